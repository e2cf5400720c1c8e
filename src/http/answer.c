/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: a decided delivery's numbers, or a problem (RFC 9457). One table of statuses. */
#include "http/room.h"

#include "base/slice.h"

#include <stdio.h>

struct status_row {
    int status;
    const char *reason; /* of the status line, and the problem's title */
};

static const struct status_row statuses[] = {
    {200, "OK"},
    {202, "Accepted"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {413, "Content Too Large"},
    {429, "Too Many Requests"},
    {503, "Service Unavailable"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        if (statuses[i].status == status)
            return statuses[i].reason;
    return "Error";
}

static void send_body(h2o_req_t *req, int status, const char *type, size_t type_len,
                      const char *body, size_t len)
{
    req->res.status = status;
    req->res.reason = reason_of(status);
    req->res.content_length = len;
    h2o_add_header(&req->pool, &req->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL, type, type_len);
    h2o_send_inline(req, body, len);
}

static void add_number(h2o_req_t *req, const char *name, size_t name_len, int number)
{
    char *text = h2o_mem_alloc_pool(&req->pool, 16);
    int len = snprintf(text, 16, "%d", number);
    h2o_add_header_by_str(&req->pool, &req->res.headers, name, name_len, 1, NULL, text,
                          (size_t)len);
}

void answer_problem(h2o_req_t *req, int status, const char *detail)
{
    char body[512];
    /* Details are our own literals: nothing in them needs escaping. */
    int len =
        snprintf(body, sizeof(body),
                 "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":\"%s\"}\n",
                 reason_of(status), status, detail);
    send_body(req, status, H2O_STRLIT("application/problem+json"), body, (size_t)len);
}

void answer_problem_retry(h2o_req_t *req, int status, const char *detail, int retry_after_s)
{
    if (retry_after_s > 0)
        add_number(req, H2O_STRLIT("retry-after"), retry_after_s);
    answer_problem(req, status, detail);
}

void answer_method_not_allowed(h2o_req_t *req, const char *allow)
{
    h2o_add_header_by_str(&req->pool, &req->res.headers, H2O_STRLIT("allow"), 0, NULL, allow,
                          strlen(allow));
    answer_problem(req, 405, "this path does not take that method");
}

void answer_text(h2o_req_t *req, int status, const char *text)
{
    send_body(req, status, H2O_STRLIT("text/plain; charset=utf-8"), text, strlen(text));
}

static void send_numbers(h2o_req_t *req, int status, const uint32_t *outcomes)
{
    char body[192];
    int len = snprintf(body, sizeof(body),
                       "{\"captured\":%u,\"duplicates\":%u,\"orphans\":%u,\"quarantined\":%u,"
                       "\"spooled\":%u}\n",
                       outcomes[DELIVERY_CAPTURED] + outcomes[DELIVERY_ORPHAN],
                       outcomes[DELIVERY_DUPLICATE], outcomes[DELIVERY_ORPHAN],
                       outcomes[DELIVERY_QUARANTINED], outcomes[DELIVERY_SPOOLED]);
    send_body(req, status, H2O_STRLIT("application/json"), body, (size_t)len);
}

/* Everything is committed: our numbers, or the words that the provider waits for. */
static int answer_captured(h2o_req_t *req, const struct config_source *source,
                           const uint32_t *outcomes)
{
    if (source->answer_status == 0) {
        send_numbers(req, 200, outcomes);
        return 200;
    }
    const char *body = source->answer_body ? source->answer_body : "";
    const struct oh_handshake_answer answer = {
        .status = source->answer_status,
        .headers = {{SLICE_LITERAL("content-type"), SLICE_LITERAL("text/plain; charset=utf-8")}},
        .header_count = body[0] != '\0',
        .body = slice_of_text(body)};
    answer_handshake(req, &answer);
    return source->answer_status;
}

int answer_delivery(h2o_req_t *req, const struct delivery *delivery)
{
    uint32_t outcomes[DELIVERY_OUTCOME_COUNT];
    for (int i = 0; i < DELIVERY_OUTCOME_COUNT; i++)
        outcomes[i] = atomic_load_explicit(&delivery->outcomes[i], memory_order_relaxed);
    /* The worst event's answer: what is committed stays, and is a duplicate at the retry. */
    if (outcomes[DELIVERY_UNDECIDED] > 0) {
        answer_problem_retry(req, 503, "not every event is known to be committed; send it again",
                             1);
        return 503;
    }
    if (outcomes[DELIVERY_SPOOLED] > 0) {
        send_numbers(req, 202, outcomes);
        return 202;
    }
    return answer_captured(req, delivery->source, outcomes);
}

int answer_nothing(h2o_req_t *req, const struct config_source *source)
{
    static const uint32_t zeros[DELIVERY_OUTCOME_COUNT];
    return answer_captured(req, source, zeros);
}

void answer_handshake(h2o_req_t *req, const struct oh_handshake_answer *answer)
{
    if (answer->status >= 400 && answer->header_count == 0) {
        answer_problem(req, answer->status, "the handshake was not accepted");
        return;
    }
    req->res.status = answer->status;
    req->res.reason = reason_of(answer->status);
    req->res.content_length = answer->status == 204 ? SIZE_MAX : answer->body.len;
    for (size_t i = 0; i < answer->header_count; i++) {
        const struct oh_header *header = &answer->headers[i];
        h2o_iovec_t value = h2o_strdup(&req->pool, header->value.data, header->value.len);
        h2o_add_header_by_str(&req->pool, &req->res.headers, header->name.data, header->name.len, 1,
                              NULL, value.base, value.len);
    }
    h2o_send_inline(req, answer->body.data ? answer->body.data : "", answer->body.len);
}
