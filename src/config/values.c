/* SPDX-License-Identifier: Apache-2.0 */
/* Types of options: from the text of a value to the member it sets. */
#include "config/options.h"

#include <libpq-fe.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

/* ---- numbers with units --------------------------------------------------------------------- */

struct unit {
    const char *word;
    int64_t factor;
};

static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit percent_units[] = {{"%", 1}, {NULL, 0}};
static const struct unit byte_units[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB},
                                         {"B", 1},     {"", 1},      {NULL, 0}};
static const struct unit ms_units[] = {{"d", 24 * HOUR_MS}, {"h", HOUR_MS}, {"m", MINUTE_MS},
                                       {"s", SECOND_MS},    {"ms", 1},      {NULL, 0}};
static const struct unit s_units[] = {{"d", DAY_S}, {"h", HOUR_S}, {"m", 60}, {"s", 1}, {NULL, 0}};

/* "10MiB" and the like, without sign, fraction or space. */
static bool parse_units(const char *text, const struct unit *units, int64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    if (digits < 1 || digits > 18)
        return false;
    int64_t n = strtoll(text, NULL, 10);
    for (; units->word; units++)
        if (strcmp(text + digits, units->word) == 0)
            return !__builtin_mul_overflow(n, units->factor, out);
    return false;
}

/* Writes `n` in its largest whole unit. */
static void print_units(FILE *to, const struct unit *units, int64_t n)
{
    while (n % units->factor != 0 || (n == 0 && units->factor != 1))
        units++;
    fprintf(to, "%lld%s", (long long)(n / units->factor), units->word);
}

/* ---- types: text -> member ------------------------------------------------------------------ */

/* Each parse function fills the member at `into`. It returns NULL, or what is wrong in words that
 * follow the option's name and never repeat the value. */
typedef const char *parse_function(struct loader *loader, const struct option *option,
                                   const char *text, void *into);

struct type {
    const char *word;         /* for people */
    const struct unit *units; /* of numbers */
    const char *example;      /* what a value should look like */
    parse_function *parse;    /* NULL: a block, see read_block() */
};

static const struct type types[OPTION_RECIPES + 1]; /* below, after its functions */

static const char *parse_number(const struct option *option, const char *text, int64_t *n)
{
    if (!parse_units(text, types[option->type].units, n))
        return types[option->type].example;
    return *n < option->min || *n > option->max ? "is out of bounds" : NULL;
}

static const char *parse_integer(struct loader *loader, const struct option *option,
                                 const char *text, void *into)
{
    (void)loader;
    int64_t n = 0;
    const char *wrong = parse_number(option, text, &n);
    if (!wrong)
        *(uint32_t *)into = (uint32_t)n;
    return wrong;
}

static const char *parse_lanes(struct loader *loader, const struct option *option, const char *text,
                               void *into)
{
    if (strcmp(text, "auto") != 0)
        return parse_integer(loader, option, text, into);
    int64_t cores = loader->config->threads;
    *(uint32_t *)into = (uint32_t)(cores < option->max ? cores : option->max);
    return NULL;
}

static const char *parse_amount(struct loader *loader, const struct option *option,
                                const char *text, void *into)
{
    (void)loader;
    int64_t n = 0;
    const char *wrong = parse_number(option, text, &n);
    if (wrong)
        return wrong;
    if (option->type == OPTION_BYTES)
        *(size_t *)into = (size_t)n;
    else
        *(int64_t *)into = n;
    return NULL;
}

static const char *parse_address(struct loader *loader, const struct option *option,
                                 const char *text, void *into)
{
    (void)option;
    return address_parse(loader, text, into);
}

/* Puts `text` into the char * at `into`; memory that is gone is noted in the loader. */
static const char *set_text(char **into, char *text)
{
    text_free_wiped(*into);
    *into = text;
    return NULL;
}

static const char *parse_path(struct loader *loader, const struct option *option, const char *text,
                              void *into)
{
    (void)option;
    if (text[0] == 0)
        return "is empty";
    return set_text(into, loader_resolve_path(loader, text));
}

static const char *parse_string(struct loader *loader, const struct option *option,
                                const char *text, void *into)
{
    size_t len = strlen(text);
    if (len == 0)
        return "is empty";
    if (len > (size_t)option->max)
        return "is too long";
    return set_text(into, loader_copy(loader, text, len));
}

static const char *parse_name(struct loader *loader, const struct option *option, const char *text,
                              void *into)
{
    (void)option;
    if (!name_is_valid(text))
        return "must be a name: a to z, 0 to 9, then also . _ -, at most 63 bytes";
    return set_text(into, loader_copy(loader, text, strlen(text)));
}

static const char *parse_url(struct loader *loader, const struct option *option, const char *text,
                             void *into)
{
    size_t scheme = strncmp(text, "https://", 8) == 0  ? 8
                    : strncmp(text, "http://", 7) == 0 ? 7
                                                       : 0;
    size_t len = strlen(text);
    if (scheme == 0 || text[scheme] == 0 || text[scheme] == '/')
        return "must be a URL that begins with https:// or http:// and a host";
    if (len > (size_t)option->max)
        return "is too long";
    if (strpbrk(text, "?# \t\r\n"))
        return "must have no query, no fragment and no space";
    while (text[len - 1] == '/')
        len--;
    return set_text(into, loader_copy(loader, text, len));
}

static const char *parse_database(struct loader *loader, const struct option *option,
                                  const char *text, void *into)
{
    if (text[0] == 0)
        return "is empty";
    if (strlen(text) > (size_t)option->max)
        return "is too long";
    char *libpq_says = NULL; /* repeats the value, so it is not passed on */
    PQconninfoOption *parsed = PQconninfoParse(text, &libpq_says);
    if (libpq_says)
        OPENSSL_cleanse(libpq_says, strlen(libpq_says));
    PQfreemem(libpq_says);
    if (!parsed)
        return "is nothing libpq can connect to, such as postgresql://USER@HOST/DATABASE";
    PQconninfoFree(parsed);
    return set_text(into, loader_copy(loader, text, strlen(text)));
}

static const char *parse_choice(struct loader *loader, const struct option *option,
                                const char *text, void *into)
{
    (void)loader;
    for (uint32_t i = 0; option->choices[i]; i++)
        if (strcmp(option->choices[i], text) == 0) {
            *(uint32_t *)into = i;
            return NULL;
        }
    return "is none of its choices";
}

static const char *parse_secret(struct loader *loader, const struct option *option,
                                const char *text, void *into)
{
    struct secret *secret = into;
    size_t len = strlen(text);
    if (len == 0)
        return "is empty";
    if (len > (size_t)option->max)
        return "is too long";
    secret_free(secret);
    secret->bytes = (struct oh_slice){loader_copy(loader, text, len), len};
    return NULL;
}

/* ---- the types ---- */

static const struct type types[OPTION_RECIPES + 1] = {
    [OPTION_INTEGER] = {"integer", no_units, "must be a number", parse_integer},
    [OPTION_LANES] = {"integer or `auto`", no_units, "must be a number or \"auto\"", parse_lanes},
    [OPTION_BYTES] = {"bytes", byte_units, "must be a size such as \"1MiB\"", parse_amount},
    [OPTION_DURATION_MS] = {"duration", ms_units,
                            "must be a time such as \"150ms\", \"3s\", \"30d\"", parse_amount},
    [OPTION_DURATION_S] = {"duration", s_units, "must be a time such as \"300s\", \"12h\", \"30d\"",
                           parse_amount},
    [OPTION_PERCENT] = {"percent", percent_units, "must be a share such as \"50%\"", parse_integer},
    [OPTION_ADDRESS] = {"address", NULL, NULL, parse_address},
    [OPTION_PATH] = {"path", NULL, NULL, parse_path},
    [OPTION_STRING] = {"string", NULL, NULL, parse_string},
    [OPTION_NAME] = {"name", NULL, NULL, parse_name},
    [OPTION_URL] = {"URL", NULL, NULL, parse_url},
    [OPTION_DATABASE] = {"libpq URI", NULL, NULL, parse_database},
    [OPTION_CHOICE] = {"one of", NULL, NULL, parse_choice},
    [OPTION_SECRET] = {"secret", NULL, NULL, parse_secret},
    [OPTION_NETWORKS] = {"list of networks", NULL, NULL, NULL},
    [OPTION_SECRETS] = {"list of secrets", NULL, NULL, NULL},
    [OPTION_SOURCES] = {"list of sources", NULL, NULL, NULL},
    [OPTION_RECIPES] = {"list of recipes", NULL, NULL, NULL},
};

bool option_is_list(const struct option *option)
{
    return types[option->type].parse == NULL;
}

const char *option_parse(struct loader *loader, const struct option *option, const char *text,
                         void *into)
{
    return types[option->type].parse(loader, option, text, into);
}

void option_print_bounds(FILE *to, const struct option *option)
{
    const struct type *type = &types[option->type];
    if (option->type == OPTION_CHOICE) {
        for (size_t i = 0; option->choices[i]; i++)
            fprintf(to, "%s %s", i ? "," : "", option->choices[i]);
    } else if (type->units) {
        fprintf(to, ", ");
        print_units(to, type->units, option->min);
        fprintf(to, " to ");
        print_units(to, type->units, option->max);
    }
}

void option_print_type(FILE *to, const struct option *option)
{
    fprintf(to, "%s", types[option->type].word);
    option_print_bounds(to, option);
}
