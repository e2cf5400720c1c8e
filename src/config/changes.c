/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration says now and did not say at the start. Secrets are taken while the gateway
 * runs (config/vault.h); everything else waits for a restart, and is named so that nobody wonders.
 */
#include "config/loader.h"

#include "base/slice.h"

#include <stdlib.h>
#include <string.h>

/* The options of one place; `source`: whose they are, or NULL. */
static void tell_options(FILE *to, const uint64_t *old, const uint64_t *fresh, const char *source)
{
    static const uint64_t nothing[CONFIG_OPTIONS_MAX];
    old = old ? old : nothing;
    fresh = fresh ? fresh : nothing;
    for (size_t i = 0; i < config_option_count; i++) {
        const char *name = config_options[i].name;
        if (old[i] == fresh[i] || config_options[i].part == CONFIG_SECRETS) /* vault_reload() */
            continue;
        fputs(ftell(to) > 0 ? ", " : "", to);
        if (source)
            fprintf(to, "%s: %s", source, name + strlen("sources[]."));
        else
            fputs(name, to);
    }
}

static void tell_source(FILE *to, const struct config_source *source, const char *what)
{
    fprintf(to, "%ssource %s %s", ftell(to) > 0 ? ", " : "", source->name, what);
}

char *config_changes(const struct config *old, const struct config *fresh)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        return NULL;
    tell_options(to, old->written, fresh->written, NULL);
    for (size_t i = 0; i < old->source_count; i++) {
        const struct config_source *was = &old->sources[i];
        const struct config_source *is = config_find_source(fresh, slice_of_text(was->name));
        if (is)
            tell_options(to, was->written, is->written, was->name);
        else
            tell_source(to, was, "is gone");
    }
    for (size_t i = 0; i < fresh->source_count; i++)
        if (!config_find_source(old, slice_of_text(fresh->sources[i].name)))
            tell_source(to, &fresh->sources[i], "is new");
    if (fclose(to) == 0)
        return text;
    free(text);
    return NULL;
}

/* ---- secrets --------------------------------------------------------------------------------- */

struct oh_slice config_secret_at(const struct config_source *source, int64_t now_ms)
{
    for (size_t i = 0; i < source->secret_count; i++)
        if (now_ms >= source->terms[i].not_before_ms && now_ms <= source->terms[i].not_after_ms)
            return source->secrets[i].bytes;
    return slice_of(NULL, 0);
}

const char *config_origin_word(enum config_origin origin)
{
    static const char *const words[] = {[CONFIG_FROM_TEXT] = "configuration",
                                        [CONFIG_FROM_ENVIRONMENT] = "environment",
                                        [CONFIG_FROM_FILE] = "file",
                                        [CONFIG_FROM_CREDENTIAL] = "credential"};
    return words[origin];
}
