/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the config room share while one file is being loaded: the reader of YAML
 * (reader.c), the table of options (options.c) and the making of sources (sources.c).
 *
 * The rule that all of them obey: a mistake's text names options and environment variables, never
 * a value, so that no secret can get into it, however misplaced it stands in the file. */
#ifndef CONFIG_LOADER_H
#define CONFIG_LOADER_H

#include "config/config.h"

#include "recipe/yaml.h"

enum {
    CONFIG_SECRET_BYTES_MAX = 64 << 10, /* of one secret, given or in a file */
    CONFIG_SECRETS_MAX = 64,            /* of one source */
    CONFIG_SOURCES_MAX = 4096,
    CONFIG_NETWORKS_MAX = 1024, /* of one list */
    CONFIG_MISTAKES_MAX = 1000,
    CONFIG_NAME_BYTES_MAX = 63, /* of a source or a shared scope */
    CONFIG_OPTIONS_MAX = 64,    /* rows of the table */
};

/* ---- one load ------------------------------------------------------------------------------ */

struct source_form;

/* The file as it is being read. Everything in it belongs to it but `config` and `mistakes`. */
struct loader {
    char *directory; /* of the file, with a slash at its end; empty = the working directory */
    char *text;      /* the file, variables masked (reader.c) */
    size_t len;
    struct yaml yaml;
    struct config *config;
    struct config_mistakes *mistakes;
    int lines[CONFIG_OPTIONS_MAX]; /* where each option outside sources stands, 0 = nowhere */
    struct source_form *forms;     /* the sources as written */
    size_t form_count;
    struct fy_node *recipes; /* the list under `providers`, or NULL */
    bool no_memory;
};

/* Where a secret comes from. */
struct secret_origin {
    int line;
    char *file; /* in which it stands in clear; NULL = in the environment */
};

/* One source as written, before its recipe is known. */
struct source_form {
    int line;
    int lines[CONFIG_OPTIONS_MAX];
    char *name, *provider, *scheme;
    struct secret *secrets;
    struct secret_origin *secret_origins; /* of each */
    size_t secret_count;
    char *map_enrollment, *map_instance;
    char *dedup_scope;
    uint32_t rate_per_second, rate_burst;
    struct config_networks allow;
    int64_t tolerance_s;
    char *header, *prefix, *event_id, *event_type, *occurred_at, *events;
    uint32_t algorithm, encoding; /* index of their choices */
};

/* ---- reader.c ------------------------------------------------------------------------------ */

/* Reads and parses `path`. False when there is nothing to walk through: a mistake tells why. */
bool loader_open(struct loader *loader, const char *path);
void loader_close(struct loader *loader);

/* Puts the braces of `${NAME}` back, in place, NUL-terminated: loader->text and what libfyaml makes
 * of it hold two private-use characters in their place. */
void loader_unmask(char *text, size_t *len);

/* Adds one mistake; line 0 = about the whole file. */
void loader_mistake(struct loader *loader, int line, const char *format, ...) OH_PRINTF(3, 4);

/* calloc(), strdup() that note when memory is gone; `text` may be NULL. */
void *loader_alloc(struct loader *loader, size_t count, size_t bytes);
char *loader_copy(struct loader *loader, const char *text, size_t len);

/* A scalar with its variables put in. Wiped by value_free(), it may be a secret. */
struct value {
    char *text; /* NUL-terminated, without NUL inside */
    size_t len;
    int line;
    bool in_clear; /* no part of it came from the environment */
};

/* False when `node` is no scalar, empty, or names a variable that is not set: a mistake that begins
 * with `name` tells. `line`: where to point when the node has no place of its own. */
bool value_read(struct loader *loader, const char *name, struct fy_node *node, int line,
                struct value *value);
void value_free(struct value *value);

/* The text of entry `index` of loader->recipes as a YAML document of its own whose lines have the
 * numbers they have in the file (in flow style: emitted anew, from the entry's line). malloc'd. */
char *loader_recipe_text(struct loader *loader, int index, size_t *len);

/* The file's content without one newline at its end, as a secret. `path` absolute or from the
 * working directory. Returns NULL, or what is wrong. */
const char *secret_read_file(struct loader *loader, const char *path, struct secret *secret);

/* `path` as it is when absolute, else from the file's directory. malloc'd. */
char *loader_resolve_path(struct loader *loader, const char *path);

/* Remembers a file for config_inspect(), each once. Takes a copy. */
void loader_note_file(struct loader *loader, enum config_file_kind kind, const char *path,
                      int line);

/* Wipes and frees. */
void secret_free(struct secret *secret);
void text_free_wiped(char *text);

/* ---- options.c ----------------------------------------------------------------------------- */

enum option_place { IN_CONFIG, IN_SOURCE };

/* Gives every option of `place` its default; `base` is a zeroed struct of the place. */
void options_set_defaults(struct loader *loader, enum option_place place, void *base);

/* Reads the mapping `node` into `base`, every mistake told; lines[] gets where options stand.
 * `line` is where the mapping begins. */
void options_read(struct loader *loader, enum option_place place, struct fy_node *node, int line,
                  void *base, int *lines);

/* Frees what options own in `base`. */
void options_free(enum option_place place, void *base);

/* Index of the option in lines[]; `name` is one of the table. */
int option_index(const char *name);

/* The choices of an option of that type, NULL-terminated. */
const char *const *option_choices(const char *name);

/* ---- network.c ----------------------------------------------------------------------------- */

/* "192.0.2.0/24", "2001:db8::/32" or one address. Returns NULL, or what is wrong. */
const char *network_parse(const char *text, struct config_network *network);

/* "127.0.0.1:8080", "[::1]:8080", "localhost:0". Returns NULL, or what is wrong. address->host is
 * malloc'd. */
const char *address_parse(struct loader *loader, const char *text, struct config_address *address);

/* True for [a-z0-9][a-z0-9._-]{0,62}, the names of sources and scopes. */
bool name_is_valid(const char *text);

/* ---- sources.c ----------------------------------------------------------------------------- */

/* Adds the recipes of `providers` to the catalog. */
void sources_add_recipes(struct loader *loader);

/* Makes config->sources of loader->forms, and the table that finds them. */
void sources_build(struct loader *loader);

/* Frees one source; for config_free(). */
void source_free(struct config_source *source);

#endif
