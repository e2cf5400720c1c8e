/* SPDX-License-Identifier: Apache-2.0 */
/* Slots, one a connection: an easy handle that is used again and again, and the answer it gathers.
 * The room promises that a request is answered exactly once, by a status, a failure in words, or
 * the hang-up that was asked for; and that nothing grows beyond its bound. */
#include "cli/client.h"

#include "base/slice.h"

#include <curl/curl.h>
#include <stdlib.h>

enum { POLL_MS = 1000 };

struct slot {
    CURL *easy;
    struct curl_slist *headers;
    unsigned flags;
    void *tag;
    size_t answer_len;
    char failure[CURL_ERROR_SIZE];
    char answer[CLIENT_ANSWER_BYTES_MAX + 1];
};

struct client {
    CURLM *multi;
    client_on_answer *on_answer;
    void *context;
    struct slot *slots;
    uint32_t slot_count;
    uint32_t *idle; /* numbers of the slots without a request */
    uint32_t idle_count;
};

/* Takes the answer's bytes up to the bound; what is beyond it is read and dropped. */
static size_t on_bytes(char *bytes, size_t size, size_t count, void *user)
{
    struct slot *slot = user;
    size_t len = size * count, room = CLIENT_ANSWER_BYTES_MAX - slot->answer_len;
    size_t taken = len < room ? len : room;
    memcpy(slot->answer + slot->answer_len, bytes, taken);
    slot->answer_len += taken;
    return len;
}

/* Ends a request that is to be hung up as soon as its last byte is written. */
static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    (void)user, (void)down_total, (void)down;
    return up_total > 0 && up >= up_total;
}

static enum oh_status slot_init(struct client *client, struct slot *slot,
                                const struct client_options *options)
{
    CURL *easy = slot->easy = curl_easy_init();
    if (!easy)
        return OH_NO_MEMORY;
    CURLcode rc = CURLE_OK;
#define SET(option, value) \
    if (rc == CURLE_OK)    \
    rc = curl_easy_setopt(easy, option, value)
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT_MS, (long)options->timeout_ms);
    SET(CURLOPT_ERRORBUFFER, slot->failure);
    SET(CURLOPT_PRIVATE, slot);
    SET(CURLOPT_WRITEFUNCTION, on_bytes);
    SET(CURLOPT_WRITEDATA, slot);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    if (options->ca) {
        SET(CURLOPT_CAINFO, options->ca);
        SET(CURLOPT_CAPATH, NULL);
    }
#undef SET
    client->idle[client->idle_count++] = (uint32_t)(slot - client->slots);
    return rc == CURLE_OK ? OH_OK : OH_SYSTEM;
}

enum oh_status client_new(const struct client_options *options, client_on_answer *on_answer,
                          void *context, struct client **out, struct oh_error *err)
{
    *out = NULL;
    if (options->connections < 1 || options->connections > CLIENT_CONNECTIONS_MAX)
        return oh_fail(err, OH_INVALID, "connections must be 1 to %d", CLIENT_CONNECTIONS_MAX);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return oh_fail(err, OH_SYSTEM, "libcurl does not start");
    struct client *client = calloc(1, sizeof(*client));
    if (!client) {
        curl_global_cleanup();
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    client->on_answer = on_answer;
    client->context = context;
    client->multi = curl_multi_init();
    client->slots = calloc(options->connections, sizeof(*client->slots));
    client->idle = calloc(options->connections, sizeof(*client->idle));
    enum oh_status status = client->multi && client->slots && client->idle ? OH_OK : OH_NO_MEMORY;
    if (status == OH_OK) {
        curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)options->connections);
        curl_multi_setopt(client->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                          (long)options->connections);
        client->slot_count = options->connections;
    }
    for (uint32_t i = 0; status == OH_OK && i < options->connections; i++)
        status = slot_init(client, &client->slots[i], options);
    if (status != OH_OK) {
        client_free(client);
        return oh_fail(err, status, "libcurl refuses an option or memory is out");
    }
    *out = client;
    return OH_OK;
}

/* Tells the owner what became of the slot's request and makes the slot idle. */
static void finish_slot(struct client *client, struct slot *slot, CURLcode result)
{
    long status = 0;
    curl_off_t retry_after = 0, total_us = 0;
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &retry_after);
    curl_easy_getinfo(slot->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    bool hung_up = (slot->flags & CLIENT_HANG_UP) && result == CURLE_ABORTED_BY_CALLBACK;
    /* A server that refuses a large body may close before it has read it: its answer counts. */
    bool answered = result == CURLE_OK || (status >= 400 && !hung_up);
    slot->answer[slot->answer_len] = '\0';
    struct client_answer answer = {
        .tag = slot->tag,
        .status = answered ? (int)status : 0,
        .body = slice_of(slot->answer, slot->answer_len),
        .retry_after_s = retry_after,
        .latency_us = total_us,
    };
    if (!answered && !hung_up)
        answer.failure = slot->failure[0] ? slot->failure : curl_easy_strerror(result);
    curl_multi_remove_handle(client->multi, slot->easy);
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    client->idle[client->idle_count++] = (uint32_t)(slot - client->slots);
    client->on_answer(client->context, &answer);
}

/* Moves bytes, hands over the answers that are there; `wait`: first waits for something to do. */
static enum oh_status step(struct client *client, bool wait, struct oh_error *err)
{
    int running = 0, left = 0;
    CURLMcode rc = wait ? curl_multi_poll(client->multi, NULL, 0, POLL_MS, NULL) : CURLM_OK;
    if (rc == CURLM_OK)
        rc = curl_multi_perform(client->multi, &running);
    if (rc != CURLM_OK)
        return oh_fail(err, OH_SYSTEM, "libcurl: %s", curl_multi_strerror(rc));
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left));) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode result = message->data.result; /* gone with the handle's removal */
        struct slot *slot = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &slot);
        finish_slot(client, slot, result);
    }
    return OH_OK;
}

/* Appends "name: value" to *list; curl writes a header without a value as "name;". */
static bool append_header(struct curl_slist **list, struct oh_slice name, struct oh_slice value)
{
    char *line = NULL;
    int len = value.len ? asprintf(&line, "%.*s: %.*s", (int)name.len, name.data, (int)value.len,
                                   value.data)
                        : asprintf(&line, "%.*s;", (int)name.len, name.data);
    struct curl_slist *longer = len < 0 ? NULL : curl_slist_append(*list, line);
    if (len >= 0)
        free(line);
    if (longer)
        *list = longer;
    return longer;
}

static enum oh_status start_slot(struct client *client, struct slot *slot,
                                 const struct client_request *request)
{
    bool expect = request->flags & CLIENT_EXPECT_CONTINUE;
    slot->flags = request->flags;
    slot->tag = request->tag;
    slot->answer_len = 0;
    slot->failure[0] = '\0';
    bool ok = expect ? append_header(&slot->headers, SLICE_LITERAL("Expect"),
                                     SLICE_LITERAL("100-continue"))
                     : (slot->headers = curl_slist_append(NULL, "Expect:")) != NULL;
    for (size_t i = 0; ok && i < request->header_count; i++)
        ok = append_header(&slot->headers, request->headers[i].name, request->headers[i].value);
    ok = ok && curl_easy_setopt(slot->easy, CURLOPT_URL, request->url) == CURLE_OK &&
         curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, slot->headers) == CURLE_OK &&
         curl_easy_setopt(slot->easy, CURLOPT_POST, 1L) == CURLE_OK &&
         curl_easy_setopt(slot->easy, CURLOPT_NOPROGRESS,
                          request->flags & CLIENT_HANG_UP ? 0L : 1L) == CURLE_OK &&
         curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len) ==
             CURLE_OK &&
         curl_easy_setopt(slot->easy, CURLOPT_COPYPOSTFIELDS,
                          request->body.data ? request->body.data : "") == CURLE_OK &&
         curl_multi_add_handle(client->multi, slot->easy) == CURLM_OK;
    if (ok)
        return OH_OK;
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    return OH_SYSTEM;
}

enum oh_status client_post(struct client *client, const struct client_request *request,
                           struct oh_error *err)
{
    enum oh_status status = OH_OK;
    while (status == OH_OK && client->idle_count == 0)
        status = step(client, true, err);
    if (status != OH_OK)
        return status;
    struct slot *slot = &client->slots[client->idle[--client->idle_count]];
    if (start_slot(client, slot, request) != OH_OK) {
        client->idle_count++;
        return oh_fail(err, OH_SYSTEM, "libcurl does not take the request");
    }
    return step(client, false, err);
}

enum oh_status client_finish(struct client *client, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    while (status == OH_OK && client->idle_count < client->slot_count)
        status = step(client, true, err);
    return status;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    for (uint32_t i = 0; i < client->slot_count; i++) {
        struct slot *slot = &client->slots[i];
        if (!slot->easy)
            continue;
        curl_multi_remove_handle(client->multi, slot->easy);
        curl_easy_cleanup(slot->easy);
        curl_slist_free_all(slot->headers);
    }
    if (client->multi)
        curl_multi_cleanup(client->multi);
    free(client->idle);
    free(client->slots);
    free(client);
    curl_global_cleanup();
}
