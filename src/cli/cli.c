/* SPDX-License-Identifier: Apache-2.0 */
/* What every command begins with: its options as a table, its configuration, its files. */
#include "cli/cli.h"

#include "base/slice.h"

#include <argp.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdlib.h>

enum { OPTIONS_MAX = 16, KEY_FIRST = 256, BAR_WIDTH = 30 };

/* What argp calls the row: its letter, or a number beyond all letters. */
static int key_of(const struct cli_option *rows, const struct cli_option *row)
{
    if (!row->name)
        return ARGP_KEY_ARG;
    return row->letter ? row->letter : KEY_FIRST + (int)(row - rows);
}

/* Whether `word` is one of "a|b|c"; `choices` of another form take every word. */
static bool is_choice(const char *choices, const char *word)
{
    char pattern[64];
    snprintf(pattern, sizeof(pattern), "@(%s)", choices);
    return choices[0] == '[' || !strchr(choices, '|') || fnmatch(pattern, word, FNM_EXTMATCH) == 0;
}

static error_t read_option(int key, char *arg, struct argp_state *state)
{
    const struct cli_option *rows = state->input;
    for (const struct cli_option *row = rows; row->name || row->argument; row++) {
        if (key == ARGP_KEY_END && row->needed && !*row->value)
            argp_error(state, "%s%s%s is needed", row->name ? "--" : "", row->name ? row->name : "",
                       row->name ? "" : row->argument);
        if (key != key_of(rows, row) || (!row->name && *row->value))
            continue;
        if (!row->name && !is_choice(row->argument, arg))
            argp_error(state, "'%s' is none of %s", arg, row->argument);
        if (row->argument)
            *row->value = arg;
        else
            *row->flag = true;
        return 0;
    }
    if (key == ARGP_KEY_ARG)
        argp_error(state, "no argument is expected: '%s'", arg);
    return ARGP_ERR_UNKNOWN;
}

void cli_read_options(const struct cli_option *rows, const char *doc, int argc, char **argv)
{
    static char name[64], arguments[64];
    struct argp_option options[OPTIONS_MAX] = {{0}};
    struct argp parser = {
        .options = options, .parser = read_option, .args_doc = arguments, .doc = doc};
    size_t count = 0;
    for (const struct cli_option *row = rows; row->name || row->argument; row++)
        if (!row->name)
            snprintf(arguments + strlen(arguments), sizeof(arguments) - strlen(arguments), "%s%s",
                     arguments[0] ? " " : "", row->argument);
        else if (count + 1 < OPTIONS_MAX)
            options[count++] =
                (struct argp_option){row->name, key_of(rows, row), row->argument, 0, row->words, 0};
    snprintf(name, sizeof(name), "oncehook %s", argv[0]);
    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, (void *)rows);
}

struct config *cli_load_config(const char *path, unsigned parts)
{
    struct config *config = NULL;
    struct config_mistakes mistakes = {NULL, 0};
    if (config_load(path, parts, &config, &mistakes) != OH_OK)
        config_mistakes_print(path, &mistakes);
    config_mistakes_free(&mistakes);
    return config;
}

enum oh_status cli_read_file(const char *path, size_t max_bytes, struct oh_slice *out,
                             struct oh_error *err)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    enum oh_status status = OH_OK;
    char *bytes = malloc(max_bytes + 2);
    size_t len = bytes ? fread(bytes, 1, max_bytes + 1, file) : 0;
    if (!bytes)
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    else if (ferror(file))
        status = oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    else if (len > max_bytes)
        status = oh_fail(err, OH_TOO_MANY, "%s: longer than %zu bytes", path, max_bytes);
    fclose(file);
    if (!bytes || status != OH_OK) {
        free(bytes);
        return status;
    }
    bytes[len] = '\0';
    *out = slice_of(bytes, len);
    return OH_OK;
}

void cli_print_quoted(FILE *to, struct oh_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '\'')
            fputs("'\\''", to);
        else
            fputc(text.data[i], to);
}

void cli_print_word(FILE *to, const char *text)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@%+=,-";
    const char *quote = !*text || text[strspn(text, plain)] ? "'" : "";
    fputs(quote, to);
    cli_print_quoted(to, slice_of_text(text));
    fputs(quote, to);
}

void cli_draw_bar(long long done, long long all, const char *format, ...)
{
    int filled = all > 0 && done < all ? (int)(done * BAR_WIDTH / all) : BAR_WIDTH;
    va_list words;
    fprintf(stderr, "\r\033[K[%.*s%*s] ", filled, "##############################",
            BAR_WIDTH - filled, "");
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fflush(stderr);
}

void cli_clear_bar(void)
{
    fputs("\r\033[K", stderr);
}
