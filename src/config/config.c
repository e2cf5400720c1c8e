/* SPDX-License-Identifier: Apache-2.0 */
/* Loading in order: the file, its options, the catalog, the rules between options, the sources.
 * Each step goes on after a mistake, so that one run tells them all. */
#include "config/loader.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- rules between options ------------------------------------------------------------------- */

/* Where an option stands; when it does not, where `otherwise` does, else the file's first line. */
static int line_of(const struct loader *loader, const char *option, const char *otherwise)
{
    int line = loader->lines[option_index(option)];
    if (!line && otherwise)
        line = loader->lines[option_index(otherwise)];
    return line ? line : 1;
}

static bool stands(const struct loader *loader, const char *option)
{
    return loader->lines[option_index(option)] != 0;
}

static void check_listeners(struct loader *loader)
{
    const struct config *config = loader->config;
    if (!stands(loader, "listen.https") && !stands(loader, "listen.http"))
        loader_mistake(loader, line_of(loader, "listen.public_url", "listen.tls.certificate"),
                       "listen.https or listen.http is missing");
    if (stands(loader, "listen.https") && !stands(loader, "listen.tls.certificate"))
        loader_mistake(loader, line_of(loader, "listen.https", NULL),
                       "listen.tls.certificate is missing: listen.https needs it");
    if (stands(loader, "listen.https") && !stands(loader, "listen.tls.key"))
        loader_mistake(loader, line_of(loader, "listen.https", NULL),
                       "listen.tls.key is missing: listen.https needs it");
    if (stands(loader, "listen.http") && config->limits.connections_per_ip &&
        !stands(loader, "listen.trusted_proxies"))
        loader_mistake(loader, line_of(loader, "limits.connections_per_ip", NULL),
                       "limits.connections_per_ip with plain listen.http needs "
                       "listen.trusted_proxies");
}

static void check_times(struct loader *loader)
{
    const struct config *config = loader->config;
    if (config->retention.ledger_s < config->retention.events_s)
        loader_mistake(loader, line_of(loader, "retention.ledger", "retention.events"),
                       "retention.ledger is shorter than retention.events");
    if (config->outage != CONFIG_OUTAGE_SPOOL)
        return;
    loader_mistake(loader, line_of(loader, "outage", NULL),
                   "outage: spool is not in this release: use refuse");
    if (config->retention.ledger_s < config->spool.age_s)
        loader_mistake(loader, line_of(loader, "retention.ledger", "spool.age"),
                       "retention.ledger is shorter than spool.age");
}

static void check_sizes(struct loader *loader)
{
    const struct config *config = loader->config;
    if (config->queue.bytes < config->limits.body_bytes)
        loader_mistake(loader, line_of(loader, "queue.bytes", "limits.body_bytes"),
                       "queue.bytes is less than limits.body_bytes: the largest delivery would "
                       "never fit");
}

/* ---- loading --------------------------------------------------------------------------------- */

static void load_catalog(struct loader *loader)
{
    struct oh_error err = {.text = ""};
    enum oh_status status = oh_catalog_new(&loader->config->catalog, &err);
    if (status == OH_NO_MEMORY)
        loader->no_memory = true;
    else if (status != OH_OK)
        loader_mistake(loader, 0, "the built-in catalog cannot be read: %s", err.text);
    else
        sources_add_recipes(loader);
}

static void note_tls_files(struct loader *loader)
{
    const struct config *config = loader->config;
    if (config->listen.certificate)
        loader_note_file(loader, CONFIG_FILE_CERTIFICATE, config->listen.certificate,
                         line_of(loader, "listen.tls.certificate", NULL));
    if (config->listen.key)
        loader_note_file(loader, CONFIG_FILE_KEY, config->listen.key,
                         line_of(loader, "listen.tls.key", NULL));
}

static void load_file(struct loader *loader)
{
    struct config *config = loader->config;
    options_set_defaults(loader, IN_CONFIG, config);
    if (!loader_open(loader, config->path))
        return;
    options_read(loader, IN_CONFIG, loader->yaml.root, 1, config, loader->lines);
    check_listeners(loader);
    check_times(loader);
    check_sizes(loader);
    note_tls_files(loader);
    load_catalog(loader);
    if (config->catalog)
        sources_build(loader);
}

static void free_form(struct source_form *form)
{
    options_free(IN_SOURCE, form);
    for (size_t i = 0; i < form->secret_count; i++) {
        if (form->secrets) /* not taken by the source */
            secret_free(&form->secrets[i]);
        free(form->secret_origins[i].file);
    }
    free(form->secrets);
    free(form->secret_origins);
}

static int compare_lines(const void *a, const void *b)
{
    const struct config_mistake *one = a, *two = b;
    if (one->line != two->line)
        return one->line < two->line ? -1 : 1;
    return strcmp(one->text, two->text);
}

enum oh_status config_load(const char *path, struct config **out, struct config_mistakes *mistakes)
{
    struct loader loader = {.mistakes = mistakes};
    *out = NULL;
    *mistakes = (struct config_mistakes){NULL, 0};
    loader.config = loader_alloc(&loader, 1, sizeof(*loader.config));
    if (!loader.config)
        return OH_NO_MEMORY;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    loader.config->threads = cores > 0 ? cores : 1;
    loader.config->path = loader_copy(&loader, path, strlen(path));
    if (loader.config->path)
        load_file(&loader);
    for (size_t i = 0; i < loader.form_count; i++)
        free_form(&loader.forms[i]);
    free(loader.forms);
    loader_close(&loader);
    enum oh_status status = loader.no_memory ? OH_NO_MEMORY : mistakes->count ? OH_INVALID : OH_OK;
    if (status == OH_OK) {
        *out = loader.config;
        return OH_OK;
    }
    config_free(loader.config);
    if (mistakes->count)
        qsort(mistakes->items, mistakes->count, sizeof(*mistakes->items), compare_lines);
    return status;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->source_count; i++)
        source_free(&config->sources[i]);
    free(config->sources);
    free(config->source_slots);
    oh_catalog_free(config->catalog);
    options_free(IN_CONFIG, config);
    for (size_t i = 0; i < config->file_count; i++)
        free(config->files[i].path);
    free(config->files);
    free(config->path);
    free(config);
}

/* ---- mistakes ---------------------------------------------------------------------------------
 */

void config_mistakes_free(struct config_mistakes *mistakes)
{
    for (size_t i = 0; i < mistakes->count; i++)
        free(mistakes->items[i].text);
    free(mistakes->items);
    *mistakes = (struct config_mistakes){NULL, 0};
}

void config_mistakes_print(const char *path, const struct config_mistakes *mistakes)
{
    if (mistakes->count == 0) /* nothing is wrong with the file, but it could not be loaded */
        fprintf(stderr, "%s: out of memory\n", path);
    for (size_t i = 0; i < mistakes->count; i++) {
        const struct config_mistake *m = &mistakes->items[i];
        if (m->line)
            fprintf(stderr, "%s:%d: %s\n", path, m->line, m->text);
        else
            fprintf(stderr, "%s: %s\n", path, m->text);
    }
}
