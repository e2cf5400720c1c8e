/* SPDX-License-Identifier: Apache-2.0 */
/* verify/explain.h: the places that a recipe reads, each asked whether it is there. */
#include "verify/explain.h"

#include "base/slice.h"
#include "body/form.h"

#include <stdio.h>

void explain_add_message(struct oh_explanation *to, const struct oh_slice *parts, size_t count,
                         struct oh_arena *arena)
{
    struct oh_slice whole;
    if (to->message_count == OH_SPELLINGS_MAX || !message_join(arena, parts, count, &whole))
        return;
    for (size_t i = 0; i < to->message_count; i++)
        if (slice_equals(to->messages[i], whole))
            return;
    to->messages[to->message_count++] = whole;
}

/* What is missing, as far as it fits. */
struct list {
    char text[512];
    size_t len;
};

static void add(struct list *list, const char *what, struct oh_slice name)
{
    char item[160];
    int len = snprintf(item, sizeof(item), "%s%.*s", what, (int)name.len, name.data);
    struct oh_slice text = slice_of(item, len < (int)sizeof(item) ? (size_t)len : sizeof(item) - 1);
    if (list->len > 0 && memmem(list->text, list->len, text.data, text.len))
        return; /* it is read for two reasons */
    len = snprintf(list->text + list->len, sizeof(list->text) - list->len, "%s%.*s",
                   list->len ? ", " : "", (int)text.len, text.data);
    if ((size_t)len < sizeof(list->text) - list->len)
        list->len += (size_t)len;
    else
        list->text[list->len] = 0;
}

/* One header under any of its names. */
static void ask_header(const struct message_source *from, const struct recipe_names *names,
                       struct list *list)
{
    struct oh_slice value, all[2] = {{NULL, 0}, {NULL, 0}};
    if (find_header(from->request, names, &value) != FOUND_NONE && value.len > 0)
        return;
    for (size_t i = 0; i < names->count && i < 2; i++)
        all[i] = names->items[i];
    char both[160];
    snprintf(both, sizeof(both), "%.*s%s%.*s", (int)all[0].len, all[0].data,
             all[1].data ? " or " : "", (int)all[1].len, all[1].data ? all[1].data : "");
    add(list, "header ", slice_of_text(both));
}

static void ask_json(const struct message_source *from, size_t index, struct list *list)
{
    const struct pointer *pointer = &from->recipe->json[index];
    char text[128] = "";
    size_t len = 0;
    if (from->json && from->json[index].kind != SCAN_ABSENT)
        return;
    for (size_t i = 0; i < pointer->count && len < sizeof(text); i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "/%.*s",
                                (int)pointer->tokens[i].name.len, pointer->tokens[i].name.data);
    add(list, from->recipe->each_item ? "in an item of the body " : "in the JSON body ",
        slice_of_text(text));
}

static void ask_signature(const struct message_source *from, struct list *list)
{
    const struct recipe_signature *form = &from->recipe->signature;
    struct oh_slice value = {NULL, 0};
    switch (form->in) {
    case RECIPE_IN_HEADER: {
        char first[160];
        if (form->parse == RECIPE_PARSE_NUMBERED) {
            snprintf(first, sizeof(first), "%s1", form->names.items[0].data);
            struct oh_slice name = slice_of_text(first);
            ask_header(from, &(struct recipe_names){&name, 1}, list);
        } else {
            ask_header(from, &form->names, list);
        }
        break;
    }
    case RECIPE_IN_JSON:
        ask_json(from, form->json, list);
        break;
    case RECIPE_IN_QUERY:
        if (form_field(form_query(from->request->url), form->name, from->arena, &value, NULL))
            add(list, "in the URL's query ", form->name);
        break;
    case RECIPE_IN_FORM:
        if (form_field(from->request->body, form->name, from->arena, &value, NULL))
            add(list, "in the form ", form->name);
        break;
    case RECIPE_IN_BODY:
        break;
    }
}

void explain_find_missing(const struct message_source *from, struct oh_slice *out)
{
    const struct oh_recipe *recipe = from->recipe;
    struct list list = {.len = 0};
    ask_signature(from, &list);
    if (recipe->timestamp.in == RECIPE_TS_HEADER)
        ask_header(from, &recipe->timestamp.names, &list);
    if (recipe->timestamp.in == RECIPE_TS_JSON)
        ask_json(from, recipe->timestamp.json, &list);
    for (size_t i = 0; i < recipe->required_count; i++)
        if (!recipe->required[i].is_json)
            ask_header(from, &(struct recipe_names){&recipe->required[i].name, 1}, &list);
    for (size_t i = 0; i < recipe->part_count; i++) {
        if (recipe->parts[i].kind == RECIPE_PART_HEADER)
            ask_header(from, &recipe->parts[i].names, &list);
        if (recipe->parts[i].kind == RECIPE_PART_JSON)
            ask_json(from, recipe->parts[i].json, &list);
    }
    if (recipe->key_form == RECIPE_KEY_CERT_URL && recipe->certificate.in_json)
        ask_json(from, recipe->certificate.json, &list);
    else if (recipe->key_form == RECIPE_KEY_CERT_URL)
        ask_header(from, &(struct recipe_names){&recipe->certificate.header, 1}, &list);
    const struct oh_slice text = slice_of(list.text, list.len);
    if (!message_join(from->arena, &text, 1, out))
        *out = slice_of(NULL, 0);
}
