/* SPDX-License-Identifier: Apache-2.0 */
/* Types of options: from the text of a value to the member it sets. */
#include "config/loader.h"

#include "base/slice.h"
#include "body/time.h"
#include "recipe/recipe.h"

#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdlib.h>

#include <openssl/crypto.h>

/* ---- numbers with units --------------------------------------------------------------------- */

struct unit {
    const char *word;
    int64_t factor;
};

/* Largest first. */
static const struct unit no_units[] = {{"", 1}, {NULL, 0}}, percent_units[] = {{"%", 1}, {NULL, 0}},
                         byte_units[] = {{"TiB", INT64_C(1) << 40},
                                         {"GiB", 1 << 30},
                                         {"MiB", 1 << 20},
                                         {"KiB", 1 << 10},
                                         {"B", 1},
                                         {"", 1},
                                         {NULL, 0}},
                         ms_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                       {"s", 1000},     {"ms", 1},      {NULL, 0}},
                         s_units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {NULL, 0}};

static const struct type {
    const char *word;         /* for people */
    const struct unit *units; /* of numbers */
    const char *wrong;        /* what a number should look like */
} types[] = {
    [OPTION_INTEGER] = {"integer", no_units, "must be a number"},
    [OPTION_LANES] = {"integer or `auto`", no_units, "must be a number or \"auto\""},
    [OPTION_PERCENT] = {"percent", percent_units, "must be a share such as \"50%\""},
    [OPTION_BYTES] = {"bytes", byte_units, "must be a size such as \"1MiB\""},
    [OPTION_DURATION_MS] = {"duration", ms_units,
                            "must be a time such as \"150ms\", \"3s\", \"30d\""},
    [OPTION_DURATION_S] = {"duration", s_units,
                           "must be a time such as \"300s\", \"12h\", \"30d\""},
    [OPTION_CHOICE] = {"one of ", NULL, NULL},
    [OPTION_MOMENT] = {"moment", NULL, NULL},
    [OPTION_ADDRESS] = {"address", NULL, NULL},
    [OPTION_SECRET] = {"secret", NULL, NULL},
    [OPTION_PATH] = {"path", NULL, NULL},
    [OPTION_STRING] = {"string", NULL, NULL},
    [OPTION_WORD] = {"one of ", NULL, NULL},
    [OPTION_NAME] = {"name", NULL, NULL},
    [OPTION_URL] = {"URL", NULL, NULL},
    [OPTION_DATABASE] = {"libpq URI", NULL, NULL},
    [OPTION_NETWORKS] = {"list of networks", NULL, NULL},
    [OPTION_POINTERS] = {"string, or list of strings", NULL, NULL},
    [OPTION_SECRETS] = {"list of secrets", NULL, NULL},
    [OPTION_SOURCES] = {"list of sources", NULL, NULL},
    [OPTION_RECIPES] = {"list of recipes", NULL, NULL},
};

/* "10MiB" and the like, without sign, fraction or space. */
static const char *parse_number(const struct option *option, const char *text, int64_t *out)
{
    const struct type *type = &types[option->type];
    const struct unit *unit = type->units;
    size_t digits = strspn(text, "0123456789");
    while (unit->word && strcmp(text + digits, unit->word) != 0)
        unit++;
    if (digits < 1 || digits > 18 || !unit->word ||
        __builtin_mul_overflow(strtoll(text, NULL, 10), unit->factor, out))
        return type->wrong;
    return *out < option->min || *out > option->max ? "is out of bounds" : NULL;
}

/* Writes `n` in its largest whole unit. */
static void print_units(FILE *to, const struct unit *units, int64_t n)
{
    while (n % units->factor != 0 || (n == 0 && units->factor != 1))
        units++;
    fprintf(to, "%lld%s", (long long)(n / units->factor), units->word);
}

const char *option_type_word(const struct option *option)
{
    return types[option->type].word;
}

void option_print_bounds(FILE *to, const struct option *option)
{
    const struct unit *units = types[option->type].units;
    if (option->choices)
        fprintf(to, "%s", option->choices);
    if (units) {
        print_units(to, units, option->min);
        fprintf(to, " to ");
        print_units(to, units, option->max);
    }
}

/* ---- addresses ------------------------------------------------------------------------------ */

/* 1 to 5 digits up to `max`; -1 otherwise. */
static int parse_small(const char *text, int max)
{
    size_t len = strlen(text);
    if (len < 1 || len > 5 || strspn(text, "0123456789") != len)
        return -1;
    long n = strtol(text, NULL, 10);
    return n <= max ? (int)n : -1;
}

const char *network_parse(const char *text, struct config_network *network)
{
    char host[INET6_ADDRSTRLEN];
    const char *slash = strchrnul(text, '/');
    int len = (int)(slash - text);
    if ((size_t)snprintf(host, sizeof(host), "%.*s", len, text) >= sizeof(host))
        return "is not an address";
    struct in_addr v4;
    int family_bits = 128;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        family_bits = 32;
        memset(&network->address, 0, 10);
        memset(network->address.s6_addr + 10, 0xff, 2);
        memcpy(network->address.s6_addr + 12, &v4, 4);
    } else if (inet_pton(AF_INET6, host, &network->address) != 1) {
        return "is not an address";
    }
    int bits = *slash ? parse_small(slash + 1, family_bits) : family_bits;
    if (bits < 0)
        return "has a wrong number of bits after the slash";
    network->prefix_bits = (uint8_t)(128 - family_bits + bits);
    for (int bit = network->prefix_bits; bit < 128; bit++)
        if (network->address.s6_addr[bit / 8] & (0x80 >> bit % 8))
            return "has bits beyond its network: write the network's own address";
    return NULL;
}

bool config_networks_contain(const struct config_networks *networks, const struct in6_addr *address)
{
    for (size_t i = 0; i < networks->count; i++) {
        const struct config_network *n = &networks->items[i];
        size_t bytes = n->prefix_bits / 8;
        unsigned rest = n->prefix_bits % 8;
        if (memcmp(n->address.s6_addr, address->s6_addr, bytes) != 0)
            continue;
        if (rest == 0 || (n->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - rest) == 0)
            return true;
    }
    return false;
}

/* "127.0.0.1:8080", "[::1]:8080", "localhost:0". */
static const char *parse_address(struct loader *loader, const char *text,
                                 struct config_address *address)
{
    char host[254];
    struct in6_addr ignored;
    const char *colon = strrchr(text, ':');
    if (!colon)
        return "must be HOST:PORT";
    int port = parse_small(colon + 1, 65535);
    if (port < 0)
        return "must end in a port, 0 to 65535";
    int len = (int)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && colon[-1] == ']';
    if (!bracketed && memchr(text, ':', (size_t)len))
        return "needs [ ] around an IPv6 address";
    if (bracketed) {
        text++;
        len -= 2;
    }
    size_t made = (size_t)snprintf(host, sizeof(host), "%.*s", len, text);
    if (made == 0 || made >= sizeof(host) || strpbrk(host, "[]/ "))
        return "must be HOST:PORT";
    if (bracketed && inet_pton(AF_INET6, host, &ignored) != 1)
        return "has no IPv6 address between [ and ]";
    free(address->host);
    *address = (struct config_address){loader_copy(loader, host, made), (uint16_t)port};
    return NULL;
}

/* ---- texts ---------------------------------------------------------------------------------- */

const char *moment_parse(const char *text, int64_t *unix_ms)
{
    int64_t us;
    if (strspn(text, "0123456789") != 4 || !time_parse(slice_of_text(text), RECIPE_UNIT_ISO, &us))
        return "must be a moment such as 2026-12-01T00:00:00Z";
    *unix_ms = us / 1000;
    return NULL;
}

const char *name_check(const char *text)
{
    static const char letters[] = "._-abcdefghijklmnopqrstuvwxyz0123456789";
    size_t len = strlen(text);
    if (len <= CONFIG_NAME_BYTES_MAX && strspn(text, letters + 3) > 0 &&
        strspn(text, letters) == len)
        return NULL;
    return "must be a name: a to z, 0 to 9, then also . _ -, at most 63 bytes";
}

static const char *check_url(const char *text)
{
    size_t scheme = strncmp(text, "https://", 8) == 0  ? 8
                    : strncmp(text, "http://", 7) == 0 ? 7
                                                       : 0;
    if (scheme == 0 || text[scheme] == 0 || text[scheme] == '/')
        return "must be a URL that begins with https:// or http:// and a host";
    return strpbrk(text, "?# \t\r\n") ? "must have no query, no fragment and no space" : NULL;
}

static const char *check_database(const char *text)
{
    char *libpq_says = NULL; /* repeats the value, so it is not passed on */
    PQconninfoOption *parsed = PQconninfoParse(text, &libpq_says);
    if (libpq_says)
        OPENSSL_cleanse(libpq_says, strlen(libpq_says));
    PQfreemem(libpq_says);
    PQconninfoFree(parsed);
    return parsed ? NULL
                  : "is nothing libpq can connect to, such as postgresql://USER@HOST/DATABASE";
}

/* The char * at `into`; memory that is gone is noted in the loader. */
static const char *parse_text(struct loader *loader, const struct option *option, const char *text,
                              char **into)
{
    size_t len = strlen(text);
    const char *wrong = len == 0                                   ? "is empty"
                        : option->max && len > (size_t)option->max ? "is too long"
                        : option->type == OPTION_NAME              ? name_check(text)
                        : option->type == OPTION_URL               ? check_url(text)
                        : option->type == OPTION_DATABASE          ? check_database(text)
                                                                   : NULL;
    if (wrong)
        return wrong;
    while (option->type == OPTION_URL && text[len - 1] == '/')
        len--;
    text_free_wiped(*into);
    *into = option->type == OPTION_PATH ? loader_resolve_path(loader, text)
                                        : loader_copy(loader, text, len);
    return NULL;
}

const char *option_parse(struct loader *loader, const struct option *option, const char *text,
                         void *into)
{
    int64_t n = loader->config->threads; /* lanes: auto */
    const char *wrong = NULL;
    int choice = option->choices ? recipe_find_word(option->choices, slice_of_text(text)) : 0;
    if (choice < 0)
        return "is none of its choices";
    switch (option->type) {
    case OPTION_INTEGER:
    case OPTION_LANES:
    case OPTION_PERCENT:
        if (option->type != OPTION_LANES || strcmp(text, "auto") != 0)
            wrong = parse_number(option, text, &n);
        if (!wrong)
            *(uint32_t *)into = (uint32_t)(n < option->max ? n : option->max);
        return wrong;
    case OPTION_BYTES:
        wrong = parse_number(option, text, &n);
        if (!wrong)
            *(size_t *)into = (size_t)n;
        return wrong;
    case OPTION_DURATION_MS:
    case OPTION_DURATION_S:
        wrong = parse_number(option, text, &n);
        if (!wrong)
            *(int64_t *)into = n;
        return wrong;
    case OPTION_CHOICE:
        *(uint32_t *)into = (uint32_t)choice;
        return NULL;
    case OPTION_MOMENT:
        return moment_parse(text, into);
    case OPTION_ADDRESS:
        return parse_address(loader, text, into);
    case OPTION_SECRET: {
        char *bytes = NULL;
        wrong = parse_text(loader, option, text, &bytes);
        if (!wrong) {
            secret_free(into);
            ((struct secret *)into)->bytes = slice_of(bytes, strlen(text));
        }
        return wrong;
    }
    default:
        return parse_text(loader, option, text, into);
    }
}
