/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the config room share while one file is being loaded: reader.c makes YAML of
 * it, walk.c finds the row of options.c for each key, values.c reads the value, sources.c makes
 * sources.
 *
 * The rule that all of them obey: a mistake's text names options and environment variables, never
 * a value, so that no secret can get into it, however misplaced it stands in the file. */
#ifndef CONFIG_LOADER_H
#define CONFIG_LOADER_H

#include "config/config.h"

#include "recipe/yaml.h"

enum {
    CONFIG_SECRET_BYTES_MAX = 64 << 10, /* of any value, or of a file with a secret */
    CONFIG_SECRETS_MAX = 64,            /* of one source */
    CONFIG_SOURCES_MAX = 4096,
    CONFIG_NETWORKS_MAX = 1024, /* of one list */
    CONFIG_MISTAKES_MAX = 1000,
    CONFIG_NAME_BYTES_MAX = 63, /* of a source or a shared scope */
    CONFIG_OPTIONS_MAX = 96,    /* rows of the table */
};

/* Where a secret comes from. */
struct secret_origin {
    int line;
    char *file; /* in which it stands in clear; NULL = in the environment */
};

/* One source as written, before its recipe is known. */
struct source_form {
    struct config_source source; /* moves into the configuration */
    int lines[CONFIG_OPTIONS_MAX];
    struct secret_origin *secret_origins; /* of each secret */
    size_t secret_count;
    char *scheme, *dedup_scope;
    char *header, *algorithm, *encoding, *prefix, *event_id, *event_type, *occurred_at, *events;
};

/* The file as it is being read. Everything in it belongs to it but `config` and `mistakes`. */
struct loader {
    char *directory; /* of the file, with a slash at its end; empty = the working directory */
    char *text;      /* the file, variables masked (reader.c) */
    size_t len;
    struct yaml yaml;
    char value[CONFIG_SECRET_BYTES_MAX + 1]; /* the scalar that is being read */
    struct config *config;
    unsigned parts; /* that are read */
    struct config_mistakes *mistakes;
    int lines[CONFIG_OPTIONS_MAX]; /* where each option outside sources stands, 0 = nowhere */
    struct source_form *forms;     /* the sources as written */
    size_t form_count;
    struct fy_node *recipes; /* the list under `providers`, or NULL */
    bool no_memory;
};

/* ---- reader.c ------------------------------------------------------------------------------ */

/* Reads and parses `path`. False when there is nothing to walk through: a mistake tells why. */
bool loader_open(struct loader *loader, const char *path);
void loader_close(struct loader *loader);

/* Puts `${NAME}` back where loader->text, and what libfyaml makes of it, holds a mask. */
void loader_unmask(char *text);
bool loader_is_masked(struct oh_slice text);

/* Adds one mistake; line 0 = about the whole file. */
void loader_mistake(struct loader *loader, int line, const char *format, ...) OH_PRINTF(3, 4);

/* True when `status` is an error, which is told: "`what``err`", or noted when memory is gone. */
bool loader_failed(struct loader *loader, enum oh_status status, int line, const char *what,
                   const struct oh_error *err);

/* calloc() and a copy with a NUL behind it, that note when memory is gone. */
void *loader_alloc(struct loader *loader, size_t count, size_t bytes);
char *loader_copy(struct loader *loader, const char *text, size_t len);

/* A scalar with its variables put in. Its text is loader->value: valid until the next is read. */
struct value {
    const char *text; /* NUL-terminated, without NUL inside; may be a secret */
    int line;
    bool in_clear; /* no part of it came from the environment */
};

/* False when `node` is no scalar, empty, or names a variable that is not set: a mistake that begins
 * with `name` tells. `line`: where to point when the node has no place of its own. */
bool value_read(struct loader *loader, const char *name, struct fy_node *node, int line,
                struct value *value);

/* Reads the file's content without one newline at its end. `path` absolute or from the working
 * directory. Returns NULL, or what is wrong. */
const char *secret_read_file(struct loader *loader, const char *path, struct secret *secret);

/* `path` as it is when absolute, else from the file's directory. malloc'd. */
char *loader_resolve_path(struct loader *loader, const char *path);

/* Remembers a file for inspect_files(), each once. Takes a copy. */
void loader_note_file(struct loader *loader, enum config_file_kind kind, const char *path,
                      int line);

/* Wipes and frees. */
void secret_free(struct secret *secret);
void text_free_wiped(char *text);

/* ---- options.c ----------------------------------------------------------------------------- */

enum option_place { IN_CONFIG, IN_SOURCE };

enum option_type {
    OPTION_INTEGER,     /* uint32_t */
    OPTION_LANES,       /* uint32_t; "auto" = one per core */
    OPTION_PERCENT,     /* uint32_t */
    OPTION_BYTES,       /* size_t */
    OPTION_DURATION_MS, /* int64_t, milliseconds */
    OPTION_DURATION_S,  /* int64_t, seconds */
    OPTION_CHOICE,      /* enum: number of the word */
    OPTION_MOMENT,      /* int64_t, unix milliseconds */
    OPTION_ADDRESS,     /* struct config_address */
    OPTION_SECRET,      /* struct secret */
    OPTION_PATH,        /* char *, made absolute or from the working directory */
    OPTION_STRING,      /* char * */
    OPTION_WORD,        /* char *, one of the choices */
    OPTION_NAME,        /* char *: [a-z0-9][a-z0-9._-]{0,62} */
    OPTION_URL,         /* char *, http(s), no slash at its end */
    OPTION_DATABASE,    /* char *, what libpq can connect to; may hold a password */
    OPTION_POINTERS,    /* char *, one a line */
    OPTION_NETWORKS,    /* struct config_networks */
    OPTION_SECRETS,     /* of struct source_form */
    OPTION_SOURCES,     /* loader->forms */
    OPTION_RECIPES,     /* loader->recipes */
};

struct option {
    const char *name;
    unsigned part; /* CONFIG_SECRETS …; 0 = of all commands */
    enum option_place place;
    enum option_type type;
    size_t offset;          /* into struct config or struct source_form */
    const char *by_default; /* NULL = not set, option_required */
    int64_t min, max;       /* in the type's unit; for texts the most bytes, 0 = no bound */
    const char *choices;    /* "a, b" */
    const char *words;
};

/* The table and its length. */
extern const struct option config_options[];
extern const size_t config_option_count;
extern const char option_required[];

/* Gives every option of `place` its default; `base` is a zeroed struct of the place. */
void options_set_defaults(struct loader *loader, enum option_place place, void *base);

/* Frees what options own in `base`. */
void options_free(enum option_place place, void *base);

/* Where the option `name` stands, in loader->lines or those of a source; else `otherwise`. */
int option_line(const int lines[], const char *name, int otherwise);

/* ---- walk.c -------------------------------------------------------------------------------- */

/* Reads the mapping `node` into `base`, every mistake told; lines[] gets where options stand.
 * `line` is where the mapping begins. */
void options_read(struct loader *loader, enum option_place place, struct fy_node *node, int line,
                  void *base, int *lines);

/* ---- values.c ------------------------------------------------------------------------------ */

/* Sets the option's member at `into` to what `text` says. Returns NULL, or what is wrong in words
 * that follow the option's name and never repeat the value. Not for lists. */
const char *option_parse(struct loader *loader, const struct option *option, const char *text,
                         void *into);

/* "192.0.2.0/24", "2001:db8::/32" or one address. Returns NULL, or what is wrong. */
const char *network_parse(const char *text, struct config_network *network);

/* "2026-12-01T00:00:00Z". Returns NULL, or what is wrong. */
const char *moment_parse(const char *text, int64_t *unix_ms);

/* "a to z, 0 to 9, then also . _ -". Returns NULL, or what is wrong. */
const char *name_check(const char *text);

/* What the option takes, for people: "integer" and "1 to 20". Nothing where every text may be fine.
 */
const char *option_type_word(const struct option *option);
void option_print_bounds(FILE *to, const struct option *option);

/* ---- sources.c ----------------------------------------------------------------------------- */

/* Adds the recipes of `providers` to the catalog. */
void sources_add_recipes(struct loader *loader);

/* Makes config->sources of loader->forms, and the table that finds them. */
void sources_build(struct loader *loader);

/* Frees one source; for config_free(). */
void source_free(struct config_source *source);

/* Looks into the files that the configuration names (inspect.c). Mistakes go to `loader`, the rest
 * to `warnings`, of which only the list is used. */
void inspect_files(struct loader *loader, struct loader *warnings);

#endif
