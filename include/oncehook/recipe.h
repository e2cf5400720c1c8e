/* SPDX-License-Identifier: Apache-2.0 */
/* Recipes: what a provider signs and where its events keep id, type and time, as data.
 *
 * A catalog is loaded once (the built-in files of src/catalog/, then a user's own) and is immutable
 * from then on; recipes belong to their catalog and live as long as it does. The form of a recipe
 * file is documented in docs/providers.md. */
#ifndef ONCEHOOK_RECIPE_H
#define ONCEHOOK_RECIPE_H

#include "oncehook/types.h"

#include <stdbool.h>

struct oh_catalog;
struct oh_recipe;

/* Who an id is unique for: CONTRACT "Scope of ids". */
enum oh_id_scope { OH_SCOPE_SOURCE, OH_SCOPE_PROVIDER };

/* What a person or another room may want to know of a recipe; all strings are NUL-terminated and
 * belong to the recipe. */
struct oh_recipe_info {
    const char *provider;    /* "stripe" */
    const char *scheme;      /* engine row id, "stripe" */
    const char *title;       /* "Stripe" */
    const char *setup;       /* where to click at the provider and what to copy; NULL = not said */
    const char *secret_form; /* in words: what a source's secret has to look like */
    const char *confidence;  /* "high", "medium", "low" */
    const char *proof;       /* "published", "sdk", or "unconfirmed" */
    const char *algorithm;   /* "hmac-sha256" … */
    const char *retries;     /* the provider's retry schedule in words */
    const char *handshake;   /* in words, or "none" */
    enum oh_id_scope id_scope;
    const char *key_grade;   /* best rung the recipe names: "id", "composite", "hash" */
    int64_t ack_budget_ms;   /* how long the provider waits for an answer; 0 = not known */
    int64_t retry_horizon_s; /* how long the provider goes on trying; 0 = never retries, -1 = not
                                known */
    const int64_t *retry_after_s; /* the pause before each retry, as far as documented; or NULL */
    size_t retry_after_count;
    bool retries_signed_anew;   /* known to sign each retry with a fresh timestamp */
    int64_t tolerance_past_s;   /* the scheme's own window, -1 = no timestamp or no window */
    int64_t tolerance_future_s; /* likewise */
    int64_t
        serve_tolerance_s;   /* what `serve` allows into the past, -1 = no timestamp or no window */
    bool needs_public_url;   /* the scheme signs the URL */
    bool has_private_key;    /* signing needs a private half (ECDSA, RSA, Ed25519) */
    int64_t answer_status;   /* what a committed delivery is answered with; 0 = as usual */
    const char *answer_body; /* likewise; NULL with a status = none */
    const char *map_enrollment; /* default JSON pointer of the enrollment id, or NULL */
    const char *map_instance;   /* default JSON pointer of the instance id, or NULL */
};

/* A catalog of the built-in recipes. *out belongs to the caller: oh_catalog_free(). Errors:
 * OH_INVALID with file name and line in *err, OH_NO_MEMORY. */
enum oh_status oh_catalog_new(struct oh_catalog **out, struct oh_error *err) OH_MUST_CHECK;

/* Adds the recipe file `text` (YAML, `len` bytes): all of its schemes or, on an error, none. A
 * provider and scheme that is there already is replaced for later oh_catalog_find(). Call before
 * the catalog is shared between threads. Errors: OH_INVALID with err->line set and, unless `name`
 * is NULL, a text that begins with "NAME:LINE: "; OH_NO_MEMORY. */
enum oh_status oh_catalog_add(struct oh_catalog *catalog, const char *name, const char *text,
                              size_t len, struct oh_error *err) OH_MUST_CHECK;

/* Options of `provider: hmac`, the recipe that stands in the source itself (CONTRACT, under
 * Configuration). Pointers are JSON pointers or "header:NAME"; NULL = not given. */
struct oh_hmac_options {
    const char *header;    /* required: the header that carries the signature */
    const char *algorithm; /* "sha1", "sha256" (default), "sha512" */
    const char *encoding;  /* "hex" (default), "base64" */
    const char *prefix;    /* text before the signature, for instance "sha256=" */
    const char *event_id;
    const char *event_type;
    const char *occurred_at;
    const char *events; /* JSON pointer to the array of events */
};

/* Makes a recipe of such options; `catalog` owns it, but neither finds nor counts it; *out points
 * to it. Canonical event types (oncehook/event.h) pass as they are. Errors: OH_INVALID. */
enum oh_status oh_catalog_add_hmac(struct oh_catalog *catalog,
                                   const struct oh_hmac_options *options,
                                   const struct oh_recipe **out,
                                   struct oh_error *err) OH_MUST_CHECK;

/* The recipe of `provider`, and of `scheme` where the provider has several (NULL: its first).
 * NULL when there is none. */
const struct oh_recipe *oh_catalog_find(const struct oh_catalog *catalog, const char *provider,
                                        const char *scheme);

/* Recipes in the order of their names; index < oh_catalog_count(). */
size_t oh_catalog_count(const struct oh_catalog *catalog);
const struct oh_recipe *oh_catalog_at(const struct oh_catalog *catalog, size_t index);

/* Fills *info; its strings belong to the recipe. */
void oh_recipe_describe(const struct oh_recipe *recipe, struct oh_recipe_info *info);

/* Frees the catalog and its recipes. NULL is allowed. */
void oh_catalog_free(struct oh_catalog *catalog);

#endif
