/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any form or query. The first line names a field and is the query of the URL, the rest
 * is the form: fields are taken off, decoded, and put together as the schemes do that sign a sorted
 * form or query (Twilio, Plivo, MessageBird, Mandrill, Contentful). */
#include "fuzz_support.h"

#include "body/form.h"
#include "verify/message.h"

static void check_fields(struct oh_slice form, struct oh_arena *arena)
{
    struct oh_slice name, value, rest = form, text, one;
    while (form_next(&rest, &name, &value)) {
        demand(name.len + value.len > 0, "a field of nothing");
        demand(name.data >= form.data && name.data + name.len <= form.data + form.len, "name");
        demand(value.len == 0 ||
                   (value.data >= form.data && value.data + value.len <= form.data + form.len),
               "value");
        demand(form_decode(name, arena, &text), "memory");
        demand(text.len <= name.len, "longer than it was");
        demand(form_name_is(name, text), "a name that is not itself");
        demand(form_field(form, text, arena, &one, NULL) != OH_NO_MEMORY, "memory");
    }
}

static void check_messages(const struct oh_request *request, struct oh_arena *arena)
{
    static const char *const schemes[] = {"twilio",     "plivo",   "messagebird", "mandrill",
                                          "contentful", "hubspot", "box",         "unisender_go"};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        for (size_t k = 0; k < oh_catalog_count(input_catalog()); k++) {
            const struct oh_recipe *recipe = oh_catalog_at(input_catalog(), k);
            struct message message;
            if (strcmp(recipe->info.provider, schemes[i]) != 0)
                continue;
            struct message_source from = {.recipe = recipe,
                                          .request = request,
                                          .arena = arena,
                                          .ts = SLICE_LITERAL("1"),
                                          .secret = SLICE_LITERAL("****"),
                                          .signature = SLICE_LITERAL("aa")};
            for (; from.variant < message_variants(recipe); from.variant++)
                if (message_build(&from, &message))
                    demand(message.count == recipe->part_count, "parts");
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oh_slice all = slice_of((const char *)data, size);
    const char *feed = size > 0 ? memchr(all.data, '\n', all.len) : NULL;
    size_t len = feed ? (size_t)(feed - all.data) : all.len;
    struct oh_slice form = slice_of(all.data + len, all.len - len);
    if (feed)
        form = slice_of(form.data + 1, form.len - 1);
    struct oh_arena *arena = oh_arena_new(4096, (size_t)256 << 20);
    char *url = arena ? oh_arena_alloc(arena, len + 32) : NULL;
    demand(url != NULL, "memory");
    memcpy(url, "https://a.example:443/in/x?", 27);
    if (len > 0)
        memcpy(url + 27, all.data, len);
    const struct oh_header headers[] = {
        {SLICE_LITERAL("content-type"), SLICE_LITERAL("application/x-www-form-urlencoded")},
        {SLICE_LITERAL("x-contentful-signed-headers"), slice_of(url + 27, len)},
        {SLICE_LITERAL("x-contentful-timestamp"), SLICE_LITERAL("1")},
        {SLICE_LITERAL("x-plivo-signature-v3-nonce"), SLICE_LITERAL("1")},
    };
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = slice_of(url, len + 27),
                                 .headers = headers,
                                 .header_count = 4,
                                 .body = form};
    if (len + form.len <= 4096)
        check_fields(form, arena);
    check_messages(&request, arena);
    oh_arena_free(arena);
    return 0;
}
