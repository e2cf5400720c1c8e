/* SPDX-License-Identifier: Apache-2.0 */
/* body/scan.h over yajl (docs/adr on the JSON parser says why this one).
 *
 * yajl tells of every token in order and, through yajl_get_bytes_consumed(), where it ended. From
 * that come the exact bytes of each event. Paths are followed without a stack of keys: each open
 * container remembers which wants led to it (a bit each), so a key is compared only with the next
 * token of those, and below the deepest pointer nothing is compared at all.
 *
 * yajl grows its state by one byte per nesting level and never checks an allocation. Here all its
 * memory comes from the arena, and an arena that is full ends the scan by longjmp: nothing of
 * yajl's has to be released. */
#include "body/scan.h"

#include "base/slice.h"
#include "body/text.h"
#include "oncehook/event.h"

#include <setjmp.h>
#include <yajl/yajl_parse.h>

/* Deepest container whose children may be wanted: an event below the longest split, and the
 * longest pointer below that. */
#define FRAMES_MAX (2 * POINTER_TOKENS_MAX + 2)

/* jsonb takes several bytes for one of text ("[0,0,0,…"), and 256 MiB in all. */
#define PAYLOAD_BYTES_MAX ((size_t)16 << 20)

struct frame {
    uint64_t active; /* wants whose tokens so far led to this container */
    size_t start;    /* its first byte */
    uint32_t index;  /* arrays: of the next element */
    bool is_array;
    bool on_split; /* the split's tokens so far led here */
    bool reached;  /* the split was followed further inside */
};

struct scan {
    const struct scan_plan *plan;
    struct oh_slice body;
    struct oh_arena *arena;
    struct scan_result *out;
    struct scan_event **tail;
    struct oh_error *err;
    yajl_handle parser;
    uint32_t events_max;
    enum oh_status status; /* of a scan that a callback stopped */
    size_t split_depth;    /* path length of events: the split's tokens and an implied `*` */
    bool odd_space;        /* the body holds \v or \f, white space to yajl but not in JSON */

    size_t at;                /* end of the last token */
    size_t depth;             /* open containers = path length of the value that begins next */
    size_t flaw_end;          /* end of the last token that jsonb refuses; 0 = none yet */
    struct scan_event *event; /* the event we are in */
    size_t event_depth;       /* its path length */
    uint64_t next_wants;      /* wants that the key just read leads to */
    bool next_on_split;
    struct frame frames[FRAMES_MAX];
    jmp_buf out_of_memory;
};

/* ---- memory: yajl's blocks in the arena --------------------------------------------------------
 */

struct block {
    _Alignas(16) size_t size;
};

static void *arena_take(struct scan *s, size_t bytes)
{
    void *at = oh_arena_alloc(s->arena, bytes);
    if (!at)
        longjmp(s->out_of_memory, 1);
    return at;
}

static void *block_new(void *ctx, size_t size)
{
    struct block *block = arena_take(ctx, sizeof(*block) + size);
    block->size = size;
    return block + 1;
}

/* Doubles: yajl asks for 128 bytes more at a time, which would be quadratic. */
static void *block_grow(void *ctx, void *old, size_t size)
{
    if (!old)
        return block_new(ctx, size);
    size_t old_size = ((struct block *)old)[-1].size;
    if (size <= old_size)
        return old;
    void *grown = block_new(ctx, size < 2 * old_size ? 2 * old_size : size);
    return memcpy(grown, old, old_size);
}

static void block_leave(void *ctx, void *block)
{
    (void)ctx;
    (void)block;
}

/* ---- where tokens stand ------------------------------------------------------------------------
 */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_between_tokens(char c)
{
    return is_space(c) || c == ',' || c == ':';
}

/* A range of the body, by offsets. */
struct range {
    size_t start, end;
};

/* The scalar or key that yajl has just reported. The length of a number is known, its end is not:
 * one at the very end of the body is reported only when yajl is told that nothing follows, and then
 * it counts from that call. len 0 = not known. */
static struct range token_here(struct scan *s, size_t len)
{
    struct range token = {s->at, 0};
    while (token.start < s->body.len && is_between_tokens(s->body.data[token.start]))
        token.start++;
    token.end = len ? token.start + len : yajl_get_bytes_consumed(s->parser);
    s->at = token.end;
    return token;
}

static void note_flaw(struct scan *s, size_t end)
{
    s->flaw_end = end;
}

static bool range_is_jsonb(const struct scan *s, struct range range)
{
    struct oh_slice raw = slice_of(s->body.data + range.start, range.end - range.start);
    if (s->flaw_end > range.start || raw.len > PAYLOAD_BYTES_MAX)
        return false;
    return !s->odd_space || (!memchr(raw.data, '\v', raw.len) && !memchr(raw.data, '\f', raw.len));
}

/* ---- events ------------------------------------------------------------------------------------
 */

static bool stop(struct scan *s, enum oh_status status, const char *reason)
{
    s->status = oh_fail(s->err, status, "%s", reason);
    return false;
}

static struct scan_event *event_new(struct scan *s)
{
    if (s->out->count == s->events_max) {
        stop(s, OH_TOO_MANY, "more events in one delivery than are taken");
        return NULL;
    }
    size_t values = s->plan->event_want_count * sizeof(struct scan_value);
    struct scan_event *event = arena_take(s, sizeof(*event) + values);
    memset(event, 0, sizeof(*event) + values);
    *s->tail = event;
    s->tail = &event->next;
    s->out->count++;
    return event;
}

static void event_end(struct scan *s, struct scan_event *event, struct range range)
{
    event->raw = slice_of(s->body.data + range.start, range.end - range.start);
    event->jsonb = range_is_jsonb(s, range);
}

/* ---- the split: which values are events --------------------------------------------------------
 */

enum split_step {
    SPLIT_OFF,
    SPLIT_ON,    /* events may stand below */
    SPLIT_ARRAY, /* an array whose every element counts */
    SPLIT_EVENT,
};

static bool token_is_each(const struct scan_plan *plan, size_t i)
{
    return i >= plan->split.count || plan->split.tokens[i].each;
}

/* A value whose path of length s->depth follows the split: is it an event, on the way, or neither?
 */
static enum split_step split_step(const struct scan *s, enum scan_kind kind, bool is_array)
{
    size_t depth = s->depth;
    if (depth == s->split_depth)
        return SPLIT_EVENT;
    if (is_array && token_is_each(s->plan, depth))
        return SPLIT_ARRAY;
    /* The place of the array itself, when the pointer leaves the `*` out: one event instead. */
    if (depth == s->plan->split.count && (kind == SCAN_CONTAINER || !s->plan->has_split))
        return SPLIT_EVENT;
    if (kind == SCAN_CONTAINER)
        return SPLIT_ON;
    /* An element among others that has no events below it is kept as an event itself. */
    return depth > 0 && token_is_each(s->plan, depth - 1) ? SPLIT_EVENT : SPLIT_OFF;
}

/* ---- wants -------------------------------------------------------------------------------------
 */

static uint64_t low_bits(size_t count)
{
    return (UINT64_C(1) << count) - 1;
}

static uint64_t event_wants(const struct scan *s)
{
    return low_bits(s->plan->event_want_count);
}

static uint64_t body_wants(const struct scan *s)
{
    return low_bits(s->plan->want_count) & ~event_wants(s);
}

static struct scan_value *want_value(struct scan *s, size_t want)
{
    return s->plan->wants[want].in_body ? &s->out->body_values[want] : &s->event->values[want];
}

/* How many tokens of `want` lead to a value whose path is `depth` long. */
static size_t want_level(const struct scan *s, size_t want, size_t depth)
{
    return s->plan->wants[want].in_body ? depth : depth - s->event_depth;
}

/* The wants, of those that led to the open object, that `key` leads on. What they found below an
 * earlier key of this name is void. */
static uint64_t follow_key(struct scan *s, uint64_t active, struct oh_slice key)
{
    uint64_t found = 0;
    for (; active; active &= active - 1) {
        size_t want = (size_t)__builtin_ctzll(active);
        size_t level = want_level(s, want, s->depth - 1);
        const struct pointer_token *token = &s->plan->wants[want].pointer.tokens[level];
        if (!token->each && !slice_equals(token->name, key))
            continue;
        if (!token->each)
            *want_value(s, want) = (struct scan_value){.kind = SCAN_ABSENT};
        found |= UINT64_C(1) << want;
    }
    return found;
}

static uint64_t follow_index(struct scan *s, uint64_t active, uint32_t index)
{
    uint64_t found = 0;
    for (; active; active &= active - 1) {
        size_t want = (size_t)__builtin_ctzll(active);
        size_t level = want_level(s, want, s->depth - 1);
        const struct pointer_token *token = &s->plan->wants[want].pointer.tokens[level];
        if (token->index == index || token->each)
            found |= UINT64_C(1) << want;
    }
    return found;
}

/* Keeps `value` for the wants that end here; returns those that go on. */
static uint64_t capture(struct scan *s, uint64_t wants, const struct scan_value *value)
{
    uint64_t going_on = 0;
    for (; wants; wants &= wants - 1) {
        size_t want = (size_t)__builtin_ctzll(wants);
        if (s->plan->wants[want].pointer.count > want_level(s, want, s->depth)) {
            going_on |= UINT64_C(1) << want;
            continue;
        }
        struct scan_value *kept = want_value(s, want);
        *kept = *value;
        if (!value->data)
            continue;
        /* Text with escapes stands in yajl's buffer, which the next such string overwrites. */
        uintptr_t offset = (uintptr_t)value->data - (uintptr_t)s->body.data;
        if (offset >= s->body.len) {
            char *copy = arena_take(s, value->len);
            kept->data = memcpy(copy, value->data, value->len);
        }
    }
    return going_on;
}

/* ---- values ------------------------------------------------------------------------------------
 */

/* What leads to the value that begins now: the key before it, or its index. */
static void follow_step(struct scan *s, uint64_t *wants, bool *on_split)
{
    *wants = 0;
    *on_split = false;
    if (s->depth == 0) {
        *wants = body_wants(s);
        *on_split = true;
    } else if (s->depth <= FRAMES_MAX) {
        struct frame *parent = &s->frames[s->depth - 1];
        if (!parent->is_array) {
            *wants = s->next_wants;
            *on_split = s->next_on_split;
            return;
        }
        uint32_t index = parent->index++;
        *wants = follow_index(s, parent->active, index);
        *on_split = parent->on_split && (token_is_each(s->plan, s->depth - 1) ||
                                         s->plan->split.tokens[s->depth - 1].index == index);
    }
}

/* Tells all open containers that the split was followed to here. */
static void mark_reached(struct scan *s)
{
    for (size_t i = 0; i < s->depth; i++)
        s->frames[i].reached = true;
}

/* The value that begins now is an event; false when that is one too many. */
static bool event_begin(struct scan *s, uint64_t *wants)
{
    mark_reached(s);
    s->event = event_new(s);
    s->event_depth = s->depth;
    *wants |= event_wants(s);
    return s->event != NULL;
}

static int on_scalar(struct scan *s, struct range token, const struct scan_value *value)
{
    uint64_t wants;
    bool on_split;
    follow_step(s, &wants, &on_split);
    if (s->event) {
        capture(s, wants, value);
        return 1;
    }
    bool is_event = on_split && split_step(s, value->kind, false) == SPLIT_EVENT;
    if (is_event && !event_begin(s, &wants))
        return 0;
    capture(s, wants, value);
    if (is_event)
        event_end(s, s->event, token);
    s->event = NULL;
    return 1;
}

static int on_open(struct scan *s, bool is_array)
{
    uint64_t wants;
    bool on_split;
    s->at = yajl_get_bytes_consumed(s->parser);
    follow_step(s, &wants, &on_split);
    enum split_step step = SPLIT_OFF;
    if (!s->event && on_split)
        step = split_step(s, SCAN_CONTAINER, is_array);
    if (step == SPLIT_EVENT && !event_begin(s, &wants))
        return 0;
    if (step == SPLIT_ARRAY) /* even when it is empty */
        mark_reached(s);
    static const struct scan_value container = {.kind = SCAN_CONTAINER};
    uint64_t active = capture(s, wants, &container);
    if (s->depth < FRAMES_MAX)
        s->frames[s->depth] = (struct frame){
            .active = active,
            .start = s->at - 1,
            .is_array = is_array,
            .on_split = step == SPLIT_ON || step == SPLIT_ARRAY,
            .reached = step == SPLIT_ARRAY,
        };
    s->depth++;
    if (s->depth - (s->event ? s->event_depth : 0) > OH_JSON_DEPTH_MAX)
        note_flaw(s, s->at);
    return 1;
}

static int on_close(struct scan *s)
{
    s->at = yajl_get_bytes_consumed(s->parser);
    s->depth--;
    if (s->depth >= FRAMES_MAX)
        return 1;
    const struct frame *frame = &s->frames[s->depth];
    struct range range = {frame->start, s->at};
    if (s->event) {
        if (s->depth == s->event_depth) {
            event_end(s, s->event, range);
            s->event = NULL;
        }
    } else if (frame->on_split && !frame->reached && s->depth > 0 &&
               token_is_each(s->plan, s->depth - 1)) {
        /* An element among others that has no events below it is kept as an event itself. */
        struct scan_event *event = event_new(s);
        if (!event)
            return 0;
        event_end(s, event, range);
    }
    return 1;
}

/* True when yajl's decoded text of the string token is what it stands for. */
static bool string_is_text(struct scan *s, struct range token, const void *decoded)
{
    struct oh_slice inside = slice_of(s->body.data + token.start + 1, token.end - token.start - 2);
    bool good = inside.data == decoded ? text_is_utf8(inside) : text_jsonb_takes_string(inside);
    if (!good)
        note_flaw(s, token.end);
    return good;
}

/* ---- what yajl calls ---------------------------------------------------------------------------
 */

static int on_null(void *ctx)
{
    struct scan *s = ctx;
    return on_scalar(s, token_here(s, 0), &(struct scan_value){.kind = SCAN_NULL});
}

static int on_boolean(void *ctx, int truth)
{
    struct scan *s = ctx;
    struct range token = token_here(s, 0);
    return on_scalar(s, token,
                     &(struct scan_value){
                         .data = s->body.data + token.start,
                         .len = truth ? 4 : 5,
                         .kind = SCAN_BOOL,
                     });
}

static int on_number(void *ctx, const char *text, size_t len)
{
    struct scan *s = ctx;
    struct range token = token_here(s, len);
    (void)text; /* the same bytes as in the body */
    struct oh_slice number = slice_of(s->body.data + token.start, len);
    if (!text_jsonb_takes_number(number))
        note_flaw(s, token.end);
    return on_scalar(s, token,
                     &(struct scan_value){
                         .data = number.data,
                         .len = (uint32_t)len,
                         .kind = SCAN_NUMBER,
                     });
}

static int on_string(void *ctx, const unsigned char *text, size_t len)
{
    struct scan *s = ctx;
    struct range token = token_here(s, 0);
    struct scan_value value = {.kind = SCAN_BAD_TEXT};
    if (string_is_text(s, token, text))
        value = (struct scan_value){
            .data = (const char *)text,
            .len = (uint32_t)len,
            .kind = SCAN_STRING,
        };
    return on_scalar(s, token, &value);
}

static int on_key(void *ctx, const unsigned char *text, size_t len)
{
    struct scan *s = ctx;
    struct range token = token_here(s, 0);
    struct oh_slice key = slice_of((const char *)text, len);
    bool good = string_is_text(s, token, text);
    s->next_wants = 0;
    s->next_on_split = false;
    if (!good || s->depth > FRAMES_MAX)
        return 1; /* no pointer names it */
    const struct frame *object = &s->frames[s->depth - 1];
    s->next_wants = follow_key(s, object->active, key);
    size_t i = s->depth - 1;
    s->next_on_split = object->on_split && !token_is_each(s->plan, i) &&
                       slice_equals(s->plan->split.tokens[i].name, key);
    return 1;
}

static int on_start_map(void *ctx)
{
    return on_open(ctx, false);
}

static int on_start_array(void *ctx)
{
    return on_open(ctx, true);
}

static int on_end(void *ctx)
{
    return on_close(ctx);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

/* ---- the pass ----------------------------------------------------------------------------------
 */

static enum oh_status run(struct scan *s)
{
    yajl_alloc_funcs memory = {block_new, block_grow, block_leave, s};
    if (setjmp(s->out_of_memory))
        return oh_fail(s->err, OH_NO_MEMORY, "out of memory for one delivery");
    s->parser = yajl_alloc(&callbacks, &memory, s);
    /* Bad UTF-8 must not hide the events around it; strings are checked one by one here. */
    yajl_config(s->parser, yajl_dont_validate_strings, 1);
    yajl_status status = yajl_parse(s->parser, (const unsigned char *)s->body.data, s->body.len);
    if (status == yajl_status_ok)
        status = yajl_complete_parse(s->parser);
    if (status == yajl_status_client_canceled)
        return s->status;
    /* yajl takes a string that does not end for nothing, when a whole value stands before it. */
    while (s->at < s->body.len && is_space(s->body.data[s->at]))
        s->at++;
    if (status != yajl_status_ok || s->at < s->body.len)
        return oh_fail(s->err, OH_UNREADABLE, "the body is not JSON");
    return OH_OK;
}

enum oh_status scan_body(const struct scan_plan *plan, struct oh_slice body, uint32_t events_max,
                         struct oh_arena *arena, struct scan_result *out, struct oh_error *err)
{
    const struct oh_slice byte_order_mark = SLICE_LITERAL("\xef\xbb\xbf");
    if (slice_has_prefix(body, byte_order_mark)) /* RFC 8259, section 8.1: may be ignored */
        body = slice_of(body.data + byte_order_mark.len, body.len - byte_order_mark.len);
    *out = (struct scan_result){.first = NULL};
    if (body.len == 0)
        return oh_fail(err, OH_UNREADABLE, "the body is empty");
    if (body.len > UINT32_MAX)
        return oh_fail(err, OH_UNREADABLE, "the body is too large to be read");
    struct scan *s = oh_arena_alloc(arena, sizeof(*s));
    if (!s)
        return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
    size_t tokens = plan->has_split ? plan->split.count : 0;
    bool ends_with_each = tokens > 0 && token_is_each(plan, tokens - 1);
    *s = (struct scan){
        .plan = plan,
        .body = body,
        .arena = arena,
        .out = out,
        .tail = &out->first,
        .err = err,
        .events_max = events_max,
        .split_depth = ends_with_each ? tokens : tokens + 1,
        .odd_space = memchr(body.data, '\v', body.len) || memchr(body.data, '\f', body.len),
    };
    enum oh_status status = run(s);
    if (status)
        return status;
    if (out->count == 0 && !s->frames[0].reached)
        return oh_fail(err, OH_UNREADABLE, "the body has no events where the recipe expects them");
    return OH_OK;
}
