/* SPDX-License-Identifier: Apache-2.0 */
/* The file: bytes -> YAML nodes with lines, `${VAR}` from the environment, mistakes collected.
 *
 * `[${A}, b]` is how people write it, but `{` cannot stand in a plain scalar of YAML's flow style.
 * So before parsing every `${NAME}` is masked, byte for byte, and variables are put in scalar by
 * scalar afterwards: what the environment holds is never parsed. */
#include "config/loader.h"

#include "base/slice.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <openssl/crypto.h>

#define MASK_OPEN "\xcd\xb8" /* U+0378, a character that is none, for `${` */
#define MASK_END  '~'        /* for `}` */

/* ---- memory and mistakes ------------------------------------------------------------------- */

void *loader_alloc(struct loader *loader, size_t count, size_t bytes)
{
    void *p = calloc(count ? count : 1, bytes);
    if (!p)
        loader->no_memory = true;
    return p;
}

char *loader_copy(struct loader *loader, const char *text, size_t len)
{
    char *copy = loader_alloc(loader, len + 1, 1);
    if (copy)
        memcpy(copy, text, len);
    return copy;
}

void text_free_wiped(char *text)
{
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

void secret_free(struct secret *secret)
{
    char *bytes = (char *)secret->bytes.data; /* ours: made by loader_copy() */
    if (bytes)
        OPENSSL_cleanse(bytes, secret->bytes.len);
    free(bytes);
    secret->bytes = slice_of(NULL, 0);
}

void loader_mistake(struct loader *loader, int line, const char *format, ...)
{
    struct config_mistakes *all = loader->mistakes;
    if (all->count == CONFIG_MISTAKES_MAX)
        return;
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int made = vasprintf(&text, format, args);
    va_end(args);
    struct config_mistake *items = realloc(all->items, (all->count + 1) * sizeof(*items));
    if (items)
        all->items = items;
    if (items && made >= 0) {
        items[all->count++] = (struct config_mistake){.line = line, .text = text};
        return;
    }
    loader->no_memory = true;
    if (made >= 0)
        free(text);
}

bool loader_failed(struct loader *loader, enum oh_status status, int line, const char *what,
                   const struct oh_error *err)
{
    if (status == OH_NO_MEMORY)
        loader->no_memory = true;
    else if (status != OH_OK)
        loader_mistake(loader, line, "%s%s", what, err->text);
    return status != OH_OK;
}

/* ---- files --------------------------------------------------------------------------------- */

/* Reads at most `max` bytes of a regular file; a NUL follows them. NULL, or what is wrong. */
static const char *read_whole_file(struct loader *loader, const char *path, size_t max, char **text,
                                   size_t *len)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "not a regular file";
    FILE *file = fopen(path, "re");
    if (!file)
        return strerror(errno);
    const char *wrong = "out of memory";
    setvbuf(file, NULL, _IONBF, 0); /* no copy of a secret that nobody wipes */
    *text = loader_alloc(loader, max + 2, 1);
    if (*text) {
        *len = fread(*text, 1, max + 1, file);
        wrong = ferror(file) ? strerror(errno)
                : *len > max ? "larger than any such file should be"
                             : NULL;
    }
    fclose(file);
    if (wrong && *text) {
        OPENSSL_cleanse(*text, max + 1);
        free(*text);
    }
    return wrong;
}

const char *secret_read_file(struct loader *loader, const char *path, struct secret *secret)
{
    char *text = NULL;
    size_t len = 0;
    const char *wrong = read_whole_file(loader, path, CONFIG_SECRET_BYTES_MAX, &text, &len);
    if (wrong)
        return wrong;
    if (len > 0 && text[len - 1] == '\n')
        len--;
    if (len > 0 && text[len - 1] == '\r')
        len--;
    if (len > 0)
        secret->bytes = slice_of(loader_copy(loader, text, len), len);
    OPENSSL_cleanse(text, CONFIG_SECRET_BYTES_MAX);
    free(text);
    return len > 0 ? NULL : "the file is empty";
}

char *loader_resolve_path(struct loader *loader, const char *path)
{
    char *full = NULL;
    if (asprintf(&full, "%s%s", path[0] == '/' ? "" : loader->directory, path) >= 0)
        return full;
    loader->no_memory = true;
    return NULL;
}

void loader_note_file(struct loader *loader, enum config_file_kind kind, const char *path, int line)
{
    struct config *config = loader->config;
    for (size_t i = 0; i < config->file_count; i++)
        if (config->files[i].kind == kind && strcmp(config->files[i].path, path) == 0)
            return;
    struct config_file *files = realloc(config->files, (config->file_count + 1) * sizeof(*files));
    if (files)
        config->files = files;
    else
        loader->no_memory = true;
    char *copy = files ? loader_copy(loader, path, strlen(path)) : NULL;
    if (copy)
        files[config->file_count++] =
            (struct config_file){.kind = kind, .path = copy, .line = line};
}

/* ---- variables ----------------------------------------------------------------------------- */

/* Length of the name that begins at `s` and is followed by `close`; 0 = there is none. */
static size_t name_length(const char *s, const char *end, char close)
{
    const char *p = s;
    while (p < end && ((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || *p == '_' ||
                       (p > s && *p >= '0' && *p <= '9')))
        p++;
    return p < end && *p == close ? (size_t)(p - s) : 0;
}

static void replace_braces(char *text, const char *open, char close, const char *new_open,
                           char new_close)
{
    const char *end = text + strlen(text);
    for (char *p = text; (p = strstr(p, open)); p += 2) {
        size_t name = name_length(p + 2, end, close);
        if (name > 0) {
            memcpy(p, new_open, 2);
            p[2 + name] = new_close;
        }
    }
}

void loader_unmask(char *text)
{
    replace_braces(text, MASK_OPEN, MASK_END, "${", '}');
}

bool loader_is_masked(struct oh_slice text)
{
    return memmem(text.data, text.len, MASK_OPEN, 2) != NULL;
}

/* Adds to the scalar in loader->value, of *len bytes. False: it is full. */
static bool add(struct loader *loader, size_t *len, const char *bytes, size_t count)
{
    if (count > CONFIG_SECRET_BYTES_MAX - *len)
        return false;
    memcpy(loader->value + *len, bytes, count);
    *len += count;
    loader->value[*len] = 0;
    return true;
}

/* `${NAME}` becomes the variable, `$${` a literal `${`. Returns NULL, or what is wrong; `variable`
 * gets the name that it is about. */
static const char *expand(struct loader *loader, struct oh_slice text, char variable[256])
{
    const char *end = text.data + text.len;
    size_t len = 0, name;
    bool fits = add(loader, &len, "", 0);
    for (const char *p = text.data; fits && p < end;) {
        struct oh_slice left = slice_of(p, (size_t)(end - p));
        if (slice_has_prefix(left, SLICE_LITERAL("$" MASK_OPEN)) &&
            (name = name_length(p + 3, end, MASK_END)) > 0) {
            fits = add(loader, &len, "${", 2) && add(loader, &len, p + 3, name) &&
                   add(loader, &len, "}", 1);
            p += 3 + name + 1;
        } else if (slice_has_prefix(left, SLICE_LITERAL(MASK_OPEN)) &&
                   (name = name_length(p + 2, end, MASK_END)) > 0) {
            snprintf(variable, 256, "%.*s", (int)name, p + 2);
            const char *set = name < 256 ? getenv(variable) : NULL;
            if (!set)
                return "is not set";
            fits = add(loader, &len, set, strlen(set));
            p += 2 + name + 1;
        } else if (slice_has_prefix(left, SLICE_LITERAL("$${"))) {
            fits = add(loader, &len, "${", 2);
            p += 3;
        } else if (slice_has_prefix(left, SLICE_LITERAL("${"))) {
            return "\"${\" without a variable's name and \"}\" (\"$${\" stands for itself)";
        } else {
            fits = add(loader, &len, p++, 1);
        }
    }
    return fits ? NULL : "the value is too long";
}

bool value_read(struct loader *loader, const char *name, struct fy_node *node, int line,
                struct value *value)
{
    struct oh_slice text = yaml_text(node);
    char variable[256] = "";
    *value = (struct value){loader->value, yaml_line(node, line), true};
    if (!text.data) {
        loader_mistake(loader, value->line, "%s %s", name,
                       node && !fy_node_is_scalar(node) ? "must be one value, not a list or a block"
                                                        : "has no value");
        return false;
    }
    value->in_clear = !loader_is_masked(text);
    const char *wrong = expand(loader, text, variable);
    if (wrong)
        loader_mistake(loader, value->line, "%s: %s%s%s%s", name,
                       variable[0] ? "the environment variable " : "", variable,
                       variable[0] ? " " : "", wrong);
    return !wrong;
}

/* ---- the file ------------------------------------------------------------------------------ */

bool loader_open(struct loader *loader, const char *path)
{
    const char *slash = strrchr(path, '/');
    loader->directory = loader_copy(loader, path, slash ? (size_t)(slash - path) + 1 : 0);
    if (!loader->directory)
        return false;
    const char *wrong = read_whole_file(loader, path, YAML_BYTES_MAX, &loader->text, &loader->len);
    if (wrong) {
        loader->text = NULL;
        loader_mistake(loader, 0, "cannot be read: %s", wrong);
        return false;
    }
    replace_braces(loader->text, "${", '}', MASK_OPEN, MASK_END);
    struct oh_error err = {.line = 0};
    enum oh_status status = yaml_open(&loader->yaml, loader->text, loader->len, &err);
    /* the parser's texts speak of YAML's grammar, never of content */
    return !loader_failed(loader, status, err.line, "", &err);
}

void loader_close(struct loader *loader)
{
    yaml_close(&loader->yaml);
    text_free_wiped(loader->text);
    free(loader->directory);
    OPENSSL_cleanse(loader->value, sizeof(loader->value));
}
