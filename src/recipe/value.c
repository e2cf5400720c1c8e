/* SPDX-License-Identifier: Apache-2.0 */
/* Values: "/pointer", "inner:/pointer", "has:/pointer", "body:/pointer",
 * "header:NAME", "lit:TEXT" (recipe/recipe.h). */
#include "recipe/recipe.h"

#include "base/slice.h"

int recipe_find_word(const char *list, struct oh_slice word)
{
    for (int i = 0; *list; i++) {
        struct oh_slice entry = slice_of(list, strcspn(list, ", "));
        if (slice_equals(entry, word) ||
            (list[entry.len - 1] == ':' && slice_has_prefix(word, entry)))
            return i;
        list += entry.len;
        list += strspn(list, ", ");
    }
    return -1;
}

/* A token of RFC 9110, section 5.6.2. */
static bool header_name_is_valid(struct oh_slice name)
{
    static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < name.len; i++)
        if (!memchr(token, name.data[i], sizeof(token) - 1))
            return false;
    return name.len > 0 && name.len <= 128;
}

enum oh_status recipe_header_name(struct oh_slice text, struct oh_arena *arena,
                                  struct oh_slice *out, struct oh_error *err)
{
    if (!header_name_is_valid(text))
        return oh_fail(err, OH_INVALID, "'%.*s' is not the name of a header",
                       (int)(text.len > 128 ? 128 : text.len), text.data ? text.data : "");
    char *lower = oh_arena_alloc(arena, text.len + 1);
    if (!lower)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < text.len; i++)
        lower[i] =
            (char)(text.data[i] >= 'A' && text.data[i] <= 'Z' ? text.data[i] + 32 : text.data[i]);
    lower[text.len] = 0;
    *out = slice_of(lower, text.len);
    return OH_OK;
}

enum oh_status recipe_value_parse(struct oh_slice text, bool literal_allowed,
                                  struct oh_arena *arena, struct recipe_value *out,
                                  struct oh_error *err)
{
    static const struct {
        const char *text;
        enum recipe_from from;
    } prefixes[] = {{"body:", RECIPE_FROM_BODY},
                    {"inner:", RECIPE_FROM_INNER},
                    {"has:", RECIPE_FROM_PRESENT},
                    {"header:", RECIPE_FROM_HEADER},
                    {"lit:", RECIPE_FROM_LITERAL}};
    *out = (struct recipe_value){.from = RECIPE_FROM_EVENT};
    if (text.len > 0 && text.data[0] == '/')
        return pointer_parse(text, POINTER_EACH, arena, &out->pointer, err);
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        struct oh_slice prefix = slice_of_text(prefixes[i].text);
        if (!slice_has_prefix(text, prefix))
            continue;
        struct oh_slice rest = slice_of(text.data + prefix.len, text.len - prefix.len);
        out->from = prefixes[i].from;
        if (out->from != RECIPE_FROM_HEADER && out->from != RECIPE_FROM_LITERAL)
            return pointer_parse(rest, POINTER_EACH, arena, &out->pointer, err);
        if (out->from == RECIPE_FROM_HEADER)
            return recipe_header_name(rest, arena, &out->text, err);
        if (!literal_allowed)
            return oh_fail(err, OH_INVALID, "`lit:` has no place here");
        return recipe_copy(rest, arena, &out->text, err);
    }
    return oh_fail(err, OH_INVALID, "a value is /POINTER, body:/POINTER or header:NAME%s",
                   literal_allowed ? ", or lit:TEXT" : "");
}

enum oh_status recipe_copy(struct oh_slice text, struct oh_arena *arena, struct oh_slice *out,
                           struct oh_error *err)
{
    char *copy = oh_arena_alloc(arena, text.len + 1);
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    copy[text.len] = 0;
    *out = slice_of(copy, text.len);
    return OH_OK;
}
