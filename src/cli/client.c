/* SPDX-License-Identifier: Apache-2.0 */
/* Slots, one a connection: an easy handle that is used again and again, and the answer it gathers.
 * The room promises that a request is answered exactly once, by a status, a failure in words, or
 * the hang-up that was asked for; and that nothing grows beyond its bound. */
#include "cli/client.h"

#include "base/slice.h"

#include <curl/curl.h>
#include <stdlib.h>

enum { FETCH_S = 3, PAGE_MAX = 32 * 1024 * 1024 };

enum { POLL_MS = 1000, ANSWER_BYTES_MAX = 4096 };

struct slot {
    CURL *easy; /* NULL before the first request */
    struct curl_slist *headers;
    bool busy, hang_up;
    void *tag;
    size_t answer_len;
    char failure[CURL_ERROR_SIZE];
    char answer[ANSWER_BYTES_MAX];
};

struct client {
    CURLM *multi;
    const char *ca;
    client_on_answer *on_answer;
    void *context;
    uint32_t slot_count, busy_count;
    struct slot slots[CLIENT_CONNECTIONS_MAX];
};

/* Takes the answer's bytes up to the bound; what is beyond it is read and dropped. */
static size_t on_bytes(char *bytes, size_t size, size_t count, void *user)
{
    struct slot *slot = user;
    size_t len = size * count, room = ANSWER_BYTES_MAX - slot->answer_len;
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

enum oh_status client_new(const char *ca, uint32_t connections, client_on_answer *on_answer,
                          void *context, struct client **out, struct oh_error *err)
{
    struct client *client = *out = calloc(1, sizeof(*client));
    if (!client || !(client->multi = curl_multi_init())) {
        free(client);
        *out = NULL;
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    client->ca = ca;
    client->on_answer = on_answer;
    client->context = context;
    client->slot_count = connections;
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)connections);
    return OH_OK;
}

/* Takes the request out of curl; the slot is free for the next one. */
static void end_slot(struct client *client, struct slot *slot)
{
    curl_multi_remove_handle(client->multi, slot->easy);
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    client->busy_count -= slot->busy;
    slot->busy = false;
}

/* Tells the owner what became of the slot's request. */
static void finish_slot(struct client *client, struct slot *slot, CURLcode result)
{
    long status = 0;
    curl_off_t retry_after = 0, total_us = 0;
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &retry_after);
    curl_easy_getinfo(slot->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    bool hung_up = slot->hang_up && result == CURLE_ABORTED_BY_CALLBACK;
    /* A server that refuses a large body may close before it has read it: its answer counts. */
    bool answered = result == CURLE_OK || (status >= 400 && !hung_up);
    struct client_answer answer = {
        .tag = slot->tag,
        .status = answered ? (int)status : 0,
        .body = slice_of(slot->answer, slot->answer_len),
        .retry_after_s = retry_after,
        .latency_us = total_us,
    };
    if (!answered && !hung_up)
        answer.failure = slot->failure[0] ? slot->failure : curl_easy_strerror(result);
    end_slot(client, slot);
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
        CURLcode result = message->data.result; /* gone with the handle's removal */
        struct slot *slot = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &slot);
        finish_slot(client, slot, result);
    }
    return OH_OK;
}

/* "name: value", a line more; curl writes a header without a value as "name;". */
static bool append_header(struct slot *slot, const struct oh_header *header)
{
    char *line = NULL;
    if (asprintf(&line, "%.*s%s%.*s", (int)header->name.len, header->name.data,
                 header->value.len ? ": " : ";", (int)header->value.len, header->value.data) < 0)
        return false;
    struct curl_slist *longer = curl_slist_append(slot->headers, line);
    free(line);
    if (longer)
        slot->headers = longer;
    return longer;
}

static bool start_slot(struct client *client, struct slot *slot, const char *url,
                       const struct sample_delivery *delivery)
{
    if (!slot->easy && !(slot->easy = curl_easy_init()))
        return false;
    CURLcode rc = CURLE_OK;
#define SET(option, value) \
    if (rc == CURLE_OK)    \
    rc = curl_easy_setopt(slot->easy, option, value)
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TIMEOUT_MS, (long)CLIENT_TIMEOUT_MS);
    SET(CURLOPT_ERRORBUFFER, slot->failure);
    SET(CURLOPT_PRIVATE, slot);
    SET(CURLOPT_WRITEFUNCTION, on_bytes);
    SET(CURLOPT_WRITEDATA, slot);
    SET(CURLOPT_XFERINFOFUNCTION, on_progress);
    SET(CURLOPT_NOPROGRESS, slot->hang_up ? 0L : 1L);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)delivery->body.len);
    SET(CURLOPT_COPYPOSTFIELDS, delivery->body.data);
    if (client->ca) {
        SET(CURLOPT_CAINFO, client->ca);
        SET(CURLOPT_CAPATH, NULL);
    }
    for (size_t i = 0; rc == CURLE_OK && i < delivery->header_count; i++)
        rc = append_header(slot, &delivery->headers[i]) ? CURLE_OK : CURLE_OUT_OF_MEMORY;
    SET(CURLOPT_HTTPHEADER, slot->headers);
#undef SET
    return rc == CURLE_OK && curl_multi_add_handle(client->multi, slot->easy) == CURLM_OK;
}

enum oh_status client_post(struct client *client, const char *url,
                           const struct sample_delivery *delivery, bool hang_up, void *tag,
                           struct oh_error *err)
{
    while (client->busy_count == client->slot_count) {
        enum oh_status status = step(client, true, err);
        if (status != OH_OK)
            return status;
    }
    struct slot *slot = client->slots;
    while (slot->busy)
        slot++;
    slot->hang_up = hang_up;
    slot->tag = tag;
    slot->answer_len = 0;
    slot->failure[0] = '\0';
    if (!start_slot(client, slot, url, delivery)) {
        end_slot(client, slot);
        return oh_fail(err, OH_SYSTEM, "libcurl does not take the request");
    }
    slot->busy = true;
    client->busy_count++;
    return step(client, false, err);
}

enum oh_status client_finish(struct client *client, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    while (status == OH_OK && client->busy_count > 0)
        status = step(client, true, err);
    return status;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    for (uint32_t i = 0; i < client->slot_count; i++) {
        end_slot(client, &client->slots[i]);
        curl_easy_cleanup(client->slots[i].easy);
    }
    curl_multi_cleanup(client->multi);
    free(client);
}

/* ---- one page -------------------------------------------------------------------------------- */

static size_t keep_page(char *bytes, size_t one, size_t count, void *out)
{
    return ftell(out) > PAGE_MAX ? 0 : fwrite(bytes, one, count, out);
}

char *client_get(const char *url, char *why, size_t why_size)
{
    char *page = NULL;
    size_t len = 0;
    CURLcode result = CURLE_OUT_OF_MEMORY;
    CURL *curl = curl_easy_init();
    FILE *out = curl ? open_memstream(&page, &len) : NULL;
    if (out) {
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
        curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)FETCH_S);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep_page);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
        result = curl_easy_perform(curl);
        fclose(out);
    }
    curl_easy_cleanup(curl);
    if (result == CURLE_OK && page)
        return page;
    snprintf(why, why_size, "no gateway answers at %.100s (%s)", url, curl_easy_strerror(result));
    free(page);
    return NULL;
}

bool client_admin_url(const struct config *config, const char *base, const char *path, char *url,
                      size_t url_size)
{
    const struct config_address *at = config ? &config->admin.listen : NULL;
    int len = 0;
    url[0] = '\0';
    if (base) {
        len = snprintf(url, url_size, "%s%s", base, path);
    } else if (at && at->host && at->port) {
        bool is_any4 = strcmp(at->host, "0.0.0.0") == 0, is_any6 = strcmp(at->host, "::") == 0;
        const char *host = is_any4 ? "127.0.0.1" : is_any6 ? "::1" : at->host;
        len = snprintf(url, url_size, "http://%s%s%s:%u%s", strchr(host, ':') ? "[" : "", host,
                       strchr(host, ':') ? "]" : "", at->port, path);
    }
    return len > 0 && (size_t)len < url_size;
}
