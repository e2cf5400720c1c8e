/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's half for `events:`: how a verified body is read (recipe/recipe.h, struct
 * recipe_events; docs/providers.md has the form). */
#include "recipe/load.h"

#include "base/slice.h"

#include <stdlib.h>

/* The contract's words as the loader's. */
static const struct load_word type_words[] = {
#define X(name, word) {word, OH_EVENT_##name},
    OH_EVENT_TYPES(X)
#undef X
};

static const struct load_word channel_words[] = {
    {"none", OH_CHANNEL_NONE},   {"email", OH_CHANNEL_EMAIL}, {"linkedin", OH_CHANNEL_LINKEDIN},
    {"video", OH_CHANNEL_VIDEO}, {"sms", OH_CHANNEL_SMS},     {"phone", OH_CHANNEL_PHONE},
};

static const struct load_word unit_words[] = {
    {"s", RECIPE_UNIT_S},
    {"ms", RECIPE_UNIT_MS},
    {"iso", RECIPE_UNIT_ISO},
    {"auto", RECIPE_UNIT_AUTO},
};

static int compare_words(struct oh_slice a, struct oh_slice b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_type_words(const void *a, const void *b)
{
    return compare_words(((const struct recipe_type_word *)a)->word,
                         ((const struct recipe_type_word *)b)->word);
}

static enum oh_status read_split(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    struct oh_slice text = yaml_text(node);
    if (!text.data)
        return load_fail(load, node, "`split` has to be a JSON pointer");
    events->has_split = true;
    return load_place(
        load, node,
        pointer_parse(text, POINTER_EACH, load->recipe->arena, &events->split, load->err));
}

static enum oh_status read_form_json_field(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`form_json_field`", &text);
    ((struct recipe_events *)into)->form_json_field = status ? NULL : text.data;
    return status;
}

static enum oh_status read_id(struct load *load, struct fy_node *node, void *into)
{
    return load_values(load, node, "`id`", false, &((struct recipe_events *)into)->id);
}

static enum oh_status read_composite(struct load *load, struct fy_node *node, void *into)
{
    return load_values(load, node, "`composite`", false,
                       &((struct recipe_events *)into)->composite);
}

static enum oh_status read_composite_optional(struct load *load, struct fy_node *node, void *into)
{
    return load_values(load, node, "`composite_optional`", false,
                       &((struct recipe_events *)into)->composite_optional);
}

/* A list of alternatives; each is a value, or a list of values that stand one after the other. */
static enum oh_status read_type(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    size_t count = load_list_count(node);
    if (count == 0 || count > RECIPE_LIST_MAX)
        return load_fail(load, node, "`type` has to be a value or a list of 1 to %d",
                         RECIPE_LIST_MAX);
    struct recipe_values *alternatives = load_alloc(load, count * sizeof(*alternatives));
    if (!alternatives)
        return OH_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        enum oh_status status =
            load_values(load, load_list_at(node, i), "`type`", true, &alternatives[i]);
        if (status)
            return status;
    }
    events->type = alternatives;
    events->type_count = count;
    return OH_OK;
}

static enum oh_status check_map(struct load *load, struct fy_node *node, const char *what)
{
    if (!node || !fy_node_is_mapping(node) || fy_node_mapping_item_count(node) > RECIPE_WORDS_MAX)
        return load_fail(load, node, "%s has to be a mapping of at most %d words", what,
                         RECIPE_WORDS_MAX);
    return OH_OK;
}

static enum oh_status read_type_map(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    void *at = NULL;
    struct fy_node_pair *pair;
    size_t n = 0;
    enum oh_status status = check_map(load, node, "`type_map`");
    if (status)
        return status;
    struct recipe_type_word *words =
        load_alloc(load, (size_t)fy_node_mapping_item_count(node) * sizeof(*words));
    if (!words)
        return OH_NO_MEMORY;
    while (!status && (pair = fy_node_mapping_iterate(node, &at))) {
        int value = 0;
        status = load_text(load, fy_node_pair_key(pair), "a type word", &words[n].word);
        if (!status)
            status = load_word(load, fy_node_pair_value(pair), "a type", type_words,
                               LOAD_COUNT(type_words), &value);
        words[n++].type = (enum oh_event_type)value;
    }
    qsort(words, n, sizeof(*words), compare_type_words);
    events->type_words = words;
    events->type_word_count = n;
    return status;
}

static enum oh_status read_canonical_types(struct load *load, struct fy_node *node, void *into)
{
    return load_bool(load, node, "`canonical_types`",
                     &((struct recipe_events *)into)->canonical_types);
}

static enum oh_status read_pings(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    size_t count = load_list_count(node);
    if (count == 0 || count > RECIPE_LIST_MAX)
        return load_fail(load, node, "`pings` has to be a word or a list of 1 to %d",
                         RECIPE_LIST_MAX);
    struct oh_slice *pings = load_alloc(load, count * sizeof(*pings));
    if (!pings)
        return OH_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        enum oh_status status = load_text(load, load_list_at(node, i), "a type word", &pings[i]);
        if (status)
            return status;
    }
    events->pings = pings;
    events->ping_count = count;
    return OH_OK;
}

static enum oh_status read_channel(struct load *load, struct fy_node *node, void *into)
{
    int value = 0;
    enum oh_status status =
        load_word(load, node, "`channel`", channel_words, LOAD_COUNT(channel_words), &value);
    ((struct recipe_events *)into)->channel = (enum oh_channel)value;
    return status;
}

static enum oh_status read_channel_map(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    void *at = NULL;
    struct fy_node_pair *pair;
    size_t n = 0;
    enum oh_status status = check_map(load, node, "`channel_map`");
    if (status)
        return status;
    struct recipe_channel_word *words =
        load_alloc(load, (size_t)fy_node_mapping_item_count(node) * sizeof(*words));
    if (!words)
        return OH_NO_MEMORY;
    while (!status && (pair = fy_node_mapping_iterate(node, &at))) {
        int value = 0;
        status = load_text(load, fy_node_pair_key(pair), "a type word", &words[n].word);
        if (!status)
            status = load_word(load, fy_node_pair_value(pair), "a channel", channel_words,
                               LOAD_COUNT(channel_words), &value);
        words[n++].channel = (enum oh_channel)value;
    }
    events->channel_words = words;
    events->channel_word_count = n;
    return status;
}

static enum oh_status read_time_from(struct load *load, struct fy_node *node, void *into)
{
    return load_value(load, node, false, &((struct recipe_time *)into)->from);
}

static enum oh_status read_time_unit(struct load *load, struct fy_node *node, void *into)
{
    int value = 0;
    enum oh_status status =
        load_word(load, node, "`unit`", unit_words, LOAD_COUNT(unit_words), &value);
    ((struct recipe_time *)into)->unit = (enum recipe_time_unit)value;
    return status;
}

static enum oh_status read_occurred_at(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_key keys[] = {
        {"from", true, read_time_from},
        {"unit", true, read_time_unit},
    };
    struct recipe_events *events = into;
    size_t count = load_list_count(node);
    if (count == 0 || count > RECIPE_LIST_MAX)
        return load_fail(load, node, "`occurred_at` has to be {from, unit} or a list of 1 to %d",
                         RECIPE_LIST_MAX);
    struct recipe_time *times = load_alloc(load, count * sizeof(*times));
    if (!times)
        return OH_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        enum oh_status status = load_mapping(load, load_list_at(node, i), "`occurred_at`", keys,
                                             LOAD_COUNT(keys), &times[i]);
        if (status)
            return status;
    }
    events->occurred_at = times;
    events->occurred_at_count = count;
    return OH_OK;
}

/* Reads one default of `map:`; its text goes to the recipe's info. */
static enum oh_status read_map_value(struct load *load, struct fy_node *node,
                                     struct recipe_value *out, bool *has, const char **info)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "a value of `map`", &text);
    if (!status)
        status = load_value(load, node, false, out);
    *has = !status;
    *info = status ? NULL : text.data;
    return status;
}

static enum oh_status read_map_enrollment(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    return read_map_value(load, node, &events->map_enrollment, &events->has_map_enrollment,
                          &load->recipe->info.map_enrollment);
}

static enum oh_status read_map_instance(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_events *events = into;
    return read_map_value(load, node, &events->map_instance, &events->has_map_instance,
                          &load->recipe->info.map_instance);
}

static enum oh_status read_map(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_key keys[] = {
        {"enrollment_id", false, read_map_enrollment},
        {"instance_id", false, read_map_instance},
    };
    return load_mapping(load, node, "`map`", keys, LOAD_COUNT(keys), into);
}

enum oh_status load_events(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    static const struct load_key keys[] = {
        {"split", false, read_split},
        {"form_json_field", false, read_form_json_field},
        {"id", false, read_id},
        {"composite", false, read_composite},
        {"composite_optional", false, read_composite_optional},
        {"type", false, read_type},
        {"type_map", false, read_type_map},
        {"canonical_types", false, read_canonical_types},
        {"pings", false, read_pings},
        {"channel", false, read_channel},
        {"channel_map", false, read_channel_map},
        {"occurred_at", false, read_occurred_at},
        {"map", false, read_map},
    };
    struct recipe_events *events = &load->recipe->events;
    *events = (struct recipe_events){0};
    load->recipe->info.map_enrollment = load->recipe->info.map_instance = NULL;
    enum oh_status status = load_mapping(load, node, "`events`", keys, LOAD_COUNT(keys), events);
    if (!status && events->composite_optional.count > 0 && events->composite.count == 0)
        status = load_fail(load, node, "`composite_optional` needs `composite`");
    if (!status && events->type_count == 0 && (events->type_word_count || events->ping_count))
        status = load_fail(load, node, "`type_map` and `pings` need `type`");
    return status;
}
