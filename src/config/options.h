/* SPDX-License-Identifier: Apache-2.0 */
/* One row of the table of options, and what values.c and walk.c do with it. */
#ifndef CONFIG_OPTIONS_H
#define CONFIG_OPTIONS_H

#include "config/loader.h"

enum option_type {
    OPTION_INTEGER,     /* uint32_t */
    OPTION_LANES,       /* uint32_t; "auto" = one per core */
    OPTION_BYTES,       /* size_t */
    OPTION_DURATION_MS, /* int64_t, milliseconds */
    OPTION_DURATION_S,  /* int64_t, seconds */
    OPTION_PERCENT,     /* uint32_t */
    OPTION_ADDRESS,     /* struct config_address */
    OPTION_PATH,        /* char *, made absolute or from the working directory */
    OPTION_STRING,      /* char * */
    OPTION_NAME,        /* char *, name_is_valid() */
    OPTION_URL,         /* char *, http(s), no slash at its end */
    OPTION_DATABASE,    /* char *, what libpq can connect to; may hold a password */
    OPTION_CHOICE,      /* enum or uint32_t: index of the choice */
    OPTION_SECRET,      /* struct secret */
    OPTION_NETWORKS,    /* struct config_networks */
    OPTION_SECRETS,     /* of struct source_form */
    OPTION_SOURCES,     /* loader->forms */
    OPTION_RECIPES,     /* loader->recipes */
};

struct option {
    const char *name;
    enum option_place place;
    enum option_type type;
    bool required;
    int64_t min, max;       /* in the type's unit; for strings the most bytes */
    const char *by_default; /* NULL = not set */
    size_t offset;          /* into the struct of its place */
    const char *const *choices;
    const char *words;
};

/* The table (options.c) and its length. */
extern const struct option config_options[];
extern const size_t config_option_count;

#define KIB       INT64_C(1024)
#define MIB       (1024 * KIB)
#define GIB       (1024 * MIB)
#define TIB       (1024 * GIB)
#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define HOUR_S    INT64_C(3600)
#define DAY_S     (24 * HOUR_S)

/* Sets the option's member at `into` to what `text` says. Returns NULL, or what is wrong in words
 * that follow the option's name and never repeat the value. Not for lists. (values.c) */
const char *option_parse(struct loader *loader, const struct option *option, const char *text,
                         void *into);

/* True for options that are lists: walk.c reads them node by node. */
bool option_is_list(const struct option *option);

/* "integer, 1 to 20": what the option takes, for people. */
void option_print_type(FILE *to, const struct option *option);

/* The same without the type's name; nothing where every text may be fine. */
void option_print_bounds(FILE *to, const struct option *option);

#endif
