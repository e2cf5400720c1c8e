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
    return option_line(loader->lines, option, option_line(loader->lines, otherwise, 1));
}

static bool stands(const struct loader *loader, const char *option)
{
    return option_line(loader->lines, option, 0) != 0;
}

static void check_listeners(struct loader *loader)
{
    static const char *const needed[] = {"listen.tls.certificate", "listen.tls.key"};
    if (!stands(loader, "listen.https") && !stands(loader, "listen.http"))
        loader_mistake(loader, line_of(loader, "listen.public_url", "listen.tls.certificate"),
                       "listen.https or listen.http is missing");
    for (size_t i = 0; i < 2; i++)
        if (stands(loader, "listen.https") && !stands(loader, needed[i]))
            loader_mistake(loader, line_of(loader, "listen.https", "listen.https"),
                           "%s is missing: listen.https needs it", needed[i]);
    if (stands(loader, "listen.http") && loader->config->limits.connections_per_ip &&
        !stands(loader, "listen.trusted_proxies"))
        loader_mistake(loader, line_of(loader, "limits.connections_per_ip", "listen.http"),
                       "limits.connections_per_ip with plain listen.http needs "
                       "listen.trusted_proxies");
}

static void check_bounds(struct loader *loader)
{
    const struct config *config = loader->config;
    if (config->retention.ledger_s < config->retention.events_s)
        loader_mistake(loader, line_of(loader, "retention.ledger", "retention.events"),
                       "retention.ledger is shorter than retention.events");
    if (config->retention.ledger_s < config->spool.age_s)
        loader_mistake(loader, line_of(loader, "retention.ledger", "spool.age"),
                       "retention.ledger is shorter than spool.age");
    if (config->queue.bytes < config->limits.body_bytes)
        loader_mistake(loader, line_of(loader, "queue.bytes", "limits.body_bytes"),
                       "queue.bytes is less than limits.body_bytes: the largest delivery would "
                       "never fit");
}

/* ---- loading --------------------------------------------------------------------------------- */

static void load_file(struct loader *loader)
{
    struct config *config = loader->config;
    struct oh_error err = {.line = 0};
    options_set_defaults(loader, IN_CONFIG, config);
    if (!loader_open(loader, config->path))
        return;
    options_read(loader, IN_CONFIG, loader->yaml.root, 1, config, loader->lines);
    check_listeners(loader);
    check_bounds(loader);
    if (config->listen.certificate)
        loader_note_file(loader, CONFIG_FILE_CERTIFICATE, config->listen.certificate,
                         line_of(loader, "listen.tls.certificate", "listen.https"));
    if (config->listen.key)
        loader_note_file(loader, CONFIG_FILE_KEY, config->listen.key,
                         line_of(loader, "listen.tls.key", "listen.https"));
    if (loader_failed(loader, oh_catalog_new(&config->catalog, &err), 0,
                      "the built-in catalog cannot be read: ", &err))
        return;
    sources_add_recipes(loader);
    sources_build(loader);
}

static void free_form(struct source_form *form)
{
    for (size_t i = 0; i < form->secret_count; i++)
        free(form->secret_origins[i].file);
    free(form->secret_origins);
    source_free(&form->source); /* what has not moved into the configuration */
    form->source = (struct config_source){0};
    options_free(IN_SOURCE, form);
}

static int compare_lines(const void *a, const void *b)
{
    const struct config_mistake *one = a, *two = b;
    if (one->line != two->line)
        return one->line < two->line ? -1 : 1;
    return strcmp(one->text, two->text);
}

/* warnings == NULL: the files that the configuration names are not looked into. */
static enum oh_status load(const char *path, unsigned parts, struct config **out,
                           struct config_mistakes *mistakes, struct config_mistakes *warnings)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct loader *loader = calloc(1, sizeof(*loader));
    struct config *config = calloc(1, sizeof(*config));
    char *copy = strdup(path);
    *out = NULL;
    *mistakes = (struct config_mistakes){NULL, 0};
    if (!loader || !config || !copy) {
        free(loader);
        free(config);
        free(copy);
        return OH_NO_MEMORY;
    }
    config->threads = cores > 0 ? cores : 1;
    config->path = copy;
    loader->config = config;
    loader->parts = parts;
    loader->mistakes = mistakes;
    load_file(loader);
    if (warnings) {
        struct loader *warner = calloc(1, sizeof(*warner));
        *warnings = (struct config_mistakes){NULL, 0};
        if (warner) {
            warner->mistakes = warnings;
            inspect_files(loader, warner);
        }
        loader->no_memory |= !warner || warner->no_memory;
        free(warner);
    }
    for (size_t i = 0; i < loader->form_count; i++)
        free_form(&loader->forms[i]);
    free(loader->forms);
    loader_close(loader);
    enum oh_status status = loader->no_memory ? OH_NO_MEMORY : mistakes->count ? OH_INVALID : OH_OK;
    free(loader);
    if (status == OH_OK)
        *out = config;
    else
        config_free(config);
    if (mistakes->count)
        qsort(mistakes->items, mistakes->count, sizeof(*mistakes->items), compare_lines);
    return status;
}

enum oh_status config_load(const char *path, unsigned parts, struct config **out,
                           struct config_mistakes *mistakes)
{
    return load(path, parts, out, mistakes, NULL);
}

enum oh_status config_check(const char *path, struct config **out, struct config_mistakes *mistakes,
                            struct config_mistakes *warnings)
{
    return load(path, CONFIG_ALL, out, mistakes, warnings);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->source_count; i++)
        source_free(&config->sources[i]);
    free(config->sources);
    free(config->source_slots);
    free(config->written);
    oh_catalog_free(config->catalog);
    options_free(IN_CONFIG, config);
    for (size_t i = 0; i < config->file_count; i++)
        free(config->files[i].path);
    free(config->files);
    free(config->path);
    free(config);
}

/* ---- mistakes -------------------------------------------------------------------------------- */

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
