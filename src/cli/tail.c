/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook tail: prints events as they are captured, from the feed of the admin listener
 * (GET /v1/events/after/{cursor}). The room promises that each event is printed once and none is
 * left out: the position moves with each line that is printed, and only a whole page moves it
 * over what a filter left out, so a lost connection repeats nothing. */
#include "cli/cli.h"

#include "base/slice.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    WAIT_S = 20, /* a long poll */
    CONNECT_MS = 5000,
    SILENCE_S = WAIT_S + 15,
    STEP_MS = 200, /* how late Ctrl-C is noticed at most */
    PAUSE_FIRST_MS = 200,
    PAUSE_LAST_MS = 5000,
    CURSOR_BYTES = 96,
    LINE_BYTES_MAX = 64 * 1024 * 1024,
};

struct tail {
    char base_url[512];
    const char *source, *type; /* NULL = all */
    bool is_human, once;
    char cursor[CURSOR_BYTES]; /* where the next page begins */
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    bool is_down; /* said on stderr */
    /* Of the page that comes in. */
    char page_cursor[CURSOR_BYTES];
    char *line; /* what came of a line, or the whole of an error */
    size_t line_len, line_size;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* ---- printing ---------------------------------------------------------------------------------
 */

/* Text from outside on a terminal: what could be a control sequence is shown as "?". */
static void print_text(const char *text, int width)
{
    int printed = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool is_c1 = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0;
        putchar(*c < 0x20 || *c == 0x7f || is_c1 ? '?' : *c);
        c += is_c1;
        printed += (*c & 0xc0) != 0x80;
    }
    for (; printed < width; printed++)
        putchar(' ');
}

static const char *text_of(json_t *event, const char *name)
{
    return json_string_value(json_object_get(event, name)); /* NULL for null */
}

static void print_event(json_t *event)
{
    const char *at = text_of(event, "received_at"), *source = text_of(event, "source");
    const char *type = text_of(event, "event_type"), *id = text_of(event, "provider_event_id");
    const char *enrollment = text_of(event, "enrollment_id"),
               *instance = text_of(event, "instance_id");
    printf("%.10s %.8s  ", at ? at : "", at && strlen(at) > 11 ? at + 11 : "");
    print_text(source ? source : "", 14);
    putchar(' ');
    print_text(type ? type : "", 12);
    printf(" %-10s %-36s ",
           enrollment ? instance ? "enrollment" : "orphan of"
           : instance ? "instance"
                      : "-",
           enrollment ? enrollment
           : instance ? instance
                      : "");
    print_text(id ? id : "", 0);
    putchar('\n');
}

/* A whole line of the page. */
static bool take_line(struct tail *tail, const char *line, size_t len)
{
    const char *cursor = NULL;
    json_t *event = json_loadb(line, len, JSON_ALLOW_NUL, NULL);
    bool good = event && json_unpack(event, "{s:s}", "cursor", &cursor) == 0 &&
                strlen(cursor) < sizeof(tail->cursor);
    if (good && tail->is_human)
        print_event(event);
    else if (good)
        printf("%.*s\n", (int)len, line);
    if (good)
        snprintf(tail->cursor, sizeof(tail->cursor), "%s", cursor);
    json_decref(event);
    return good && !ferror(stdout);
}

/* ---- one page ---------------------------------------------------------------------------------
 */

static size_t on_header(char *bytes, size_t size, size_t count, void *context)
{
    static const char name[] = "oncehook-cursor:";
    struct tail *tail = context;
    struct oh_slice line = slice_of(bytes, size * count);
    if (line.len > sizeof(name) && strncasecmp(line.data, name, sizeof(name) - 1) == 0) {
        line = slice_of(line.data + sizeof(name) - 1, line.len - (sizeof(name) - 1));
        while (line.len > 0 && (line.data[line.len - 1] == '\r' || line.data[line.len - 1] == '\n'))
            line.len--;
        line = slice_trim(line);
        if (line.len < sizeof(tail->page_cursor))
            snprintf(tail->page_cursor, sizeof(tail->page_cursor), "%.*s", (int)line.len,
                     line.data);
    }
    return size * count;
}

static bool keep_bytes(struct tail *tail, const char *bytes, size_t len)
{
    if (tail->line_len + len + 1 > tail->line_size) {
        size_t larger = (tail->line_len + len + 1) * 2;
        char *line = larger < LINE_BYTES_MAX ? realloc(tail->line, larger) : NULL;
        if (!line)
            return false;
        tail->line = line;
        tail->line_size = larger;
    }
    memcpy(tail->line + tail->line_len, bytes, len);
    tail->line_len += len;
    tail->line[tail->line_len] = '\0';
    return true;
}

/* Prints whole lines as they come; of an error, keeps its body. */
static size_t on_bytes(char *bytes, size_t size, size_t count, void *context)
{
    struct tail *tail = context;
    size_t len = size * count, from = 0;
    long status = 0;
    curl_easy_getinfo(tail->easy, CURLINFO_RESPONSE_CODE, &status);
    for (char *end; status == 200 && (end = memchr(bytes + from, '\n', len - from));) {
        size_t part = (size_t)(end - bytes) - from;
        if (!keep_bytes(tail, bytes + from, part) || !take_line(tail, tail->line, tail->line_len))
            return 0;
        tail->line_len = 0;
        from += part + 1;
    }
    return keep_bytes(tail, bytes + from, len - from) ? len : 0;
}

static void add_parameter(struct tail *tail, char *url, size_t size, const char *name,
                          const char *value)
{
    char *escaped = value ? curl_easy_escape(tail->easy, value, 0) : NULL;
    if (escaped)
        snprintf(url + strlen(url), size - strlen(url), "&%s=%s", name, escaped);
    curl_free(escaped);
}

/* Asks for the next page and prints it. The status of HTTP; 0: none came to its end, *why says why
 * (it may point into `failure`). */
static long ask(struct tail *tail, char failure[CURL_ERROR_SIZE], const char **why)
{
    char url[2048];
    char *cursor = curl_easy_escape(tail->easy, tail->cursor, 0);
    int running = 1, left;
    CURLcode result = CURLE_ABORTED_BY_CALLBACK;
    long status = 0;
    snprintf(url, sizeof(url), "%s/v1/events/after/%s?limit=1000&wait=%d", tail->base_url,
             cursor ? cursor : "", tail->once ? 0 : (int)WAIT_S);
    curl_free(cursor);
    add_parameter(tail, url, sizeof(url), "source", tail->source);
    add_parameter(tail, url, sizeof(url), "type", tail->type);
    tail->line_len = 0;
    tail->page_cursor[0] = failure[0] = '\0';
    curl_easy_setopt(tail->easy, CURLOPT_URL, url);
    curl_easy_setopt(tail->easy, CURLOPT_ERRORBUFFER, failure);
    curl_multi_add_handle(tail->multi, tail->easy);
    while (!stopped && running && curl_multi_perform(tail->multi, &running) == CURLM_OK && running)
        curl_multi_poll(tail->multi, NULL, 0, STEP_MS, NULL);
    for (CURLMsg *message; (message = curl_multi_info_read(tail->multi, &left));)
        result = message->data.result;
    curl_easy_getinfo(tail->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(tail->multi, tail->easy);
    fflush(stdout);
    *why = failure[0] ? failure : curl_easy_strerror(result);
    if (result != CURLE_OK)
        return 0;
    if ((status == 200 || status == 204) && tail->page_cursor[0])
        memcpy(tail->cursor, tail->page_cursor, sizeof(tail->cursor));
    return status;
}

/* ---- until Ctrl-C ------------------------------------------------------------------------------
 */

/* What the gateway says is wrong, for people. */
static void print_problem(const struct tail *tail, long status)
{
    const char *detail = "";
    json_t *problem = json_loadb(tail->line ? tail->line : "", tail->line_len, 0, NULL);
    json_unpack(problem, "{s:s}", "detail", &detail);
    fprintf(stderr, "oncehook tail: %s answers %ld: %s\n", tail->base_url, status,
            status == 401 ? "the token is wrong (admin.token, or ONCEHOOK_ADMIN_TOKEN with --url)"
                          : detail);
    json_decref(problem);
}

static void pause_ms(int64_t ms)
{
    for (int64_t done = 0; done < ms && !stopped; done += STEP_MS)
        usleep(1000 * (ms - done < STEP_MS ? (useconds_t)(ms - done) : STEP_MS));
}

static int follow(struct tail *tail)
{
    char failure[CURL_ERROR_SIZE];
    int64_t rest_ms = PAUSE_FIRST_MS;
    const char *why;
    while (!stopped) {
        long status = ask(tail, failure, &why);
        if (ferror(stdout))
            return CLI_OK; /* as `| head` leaves */
        if (status == 204 && tail->once)
            return CLI_OK;
        if (status == 200 || status == 204) {
            if (tail->is_down)
                fprintf(stderr, "oncehook tail: connected again\n");
            tail->is_down = false;
            rest_ms = PAUSE_FIRST_MS;
            continue;
        }
        if (stopped)
            break;
        if (status != 0 && status < 500) {
            print_problem(tail, status);
            return status == 409 || status == 410 ? CLI_NO : CLI_USAGE;
        }
        if (tail->once || !tail->is_down) {
            if (status)
                print_problem(tail, status);
            else
                fprintf(stderr, "oncehook tail: %s: %s\n", tail->base_url, why);
        }
        if (tail->once)
            return CLI_NO;
        if (!tail->is_down)
            fprintf(stderr, "oncehook tail: it is tried again until Ctrl-C\n");
        tail->is_down = true;
        pause_ms(rest_ms);
        rest_ms = rest_ms * 2 < PAUSE_LAST_MS ? rest_ms * 2 : PAUSE_LAST_MS;
    }
    fprintf(stderr, "oncehook tail: stopped; go on with --from %s\n", tail->cursor);
    return CLI_OK;
}

/* ---- the command ------------------------------------------------------------------------------
 */

/* Where the admin listener is, and its token. False: stderr says what is missing. */
static bool find_gateway(struct tail *tail, const struct config *config, const char *url,
                         char *token, size_t token_size)
{
    const char *environment = getenv("ONCEHOOK_ADMIN_TOKEN");
    const struct oh_slice configured =
        config ? config->admin.token.bytes : slice_of_text(environment);
    const char *host = config ? config->admin.listen.host : NULL;
    if (url && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        fprintf(stderr, "oncehook tail: --url: http://… or https://…, not '%s'\n", url);
        return false;
    }
    if (url) {
        snprintf(tail->base_url, sizeof(tail->base_url), "%s", url);
        for (size_t len = strlen(tail->base_url); len > 0 && tail->base_url[len - 1] == '/'; len--)
            tail->base_url[len - 1] = '\0';
    } else if (!host || config->admin.listen.port == 0) {
        fprintf(stderr, "oncehook tail: %s names no port of an admin listener: give --url\n",
                config->path);
        return false;
    } else {
        bool any =
            strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || strcmp(host, "*") == 0;
        bool v6 = !any && strchr(host, ':');
        snprintf(tail->base_url, sizeof(tail->base_url), "http://%s%s%s:%u", v6 ? "[" : "",
                 any ? "localhost" : host, v6 ? "]" : "", config->admin.listen.port);
    }
    if (configured.len == 0) {
        fprintf(stderr, "oncehook tail: no token: %s\n",
                config ? "admin.token is not set" : "set ONCEHOOK_ADMIN_TOKEN");
        return false;
    }
    snprintf(token, token_size, "Authorization: Bearer %.*s", (int)configured.len, configured.data);
    return true;
}

static bool set_up(struct tail *tail, const char *token)
{
    tail->multi = curl_multi_init();
    tail->easy = curl_easy_init();
    tail->headers = curl_slist_append(NULL, token);
    if (!tail->multi || !tail->easy || !tail->headers)
        return false;
    curl_easy_setopt(tail->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(tail->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(tail->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(tail->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(tail->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(tail->easy, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    curl_easy_setopt(tail->easy, CURLOPT_HTTPHEADER, tail->headers);
    curl_easy_setopt(tail->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(tail->easy, CURLOPT_HEADERDATA, tail);
    curl_easy_setopt(tail->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(tail->easy, CURLOPT_WRITEDATA, tail);
    return true;
}

int cli_tail(int argc, char **argv)
{
    const char *path = NULL, *url = NULL, *from = "now";
    bool json = false;
    char token[1024];
    struct tail tail = {.base_url = ""};
    const struct cli_option options[] = {
        {"config", 'c', false, "FILE", "Configuration: its admin.listen and admin.token", &path,
         NULL},
        {"url", 0, false, "URL", "The admin listener; without -c its token is ONCEHOOK_ADMIN_TOKEN",
         &url, NULL},
        {"source", 0, false, "NAME", "Only events of this source", &tail.source, NULL},
        {"type", 0, false, "TYPE", "Only events of this type: sent, opened, …", &tail.type, NULL},
        {"from", 0, false, "WHERE",
         "now (default), first, a time as 2026-01-31T00:00:00Z, or a cursor", &from, NULL},
        {"once", 0, false, NULL, "End when all that is there is printed", NULL, &tail.once},
        {"json", 0, false, NULL, "JSON lines on a terminal too", NULL, &json},
        {0}};
    cli_read_options(
        options,
        "Print events as they are captured: lines for people on a terminal, else JSON "
        "lines.\vEach event comes once, in the order of the feed; a lost connection is "
        "made again. Ctrl-C ends it and says where to go on. Exit: 0 fine, 1 the "
        "cursor is gone (or with --once: no answer), 2 usage or configuration.",
        argc, argv);
    struct config *config = path ? cli_load_config(path, CONFIG_TOKEN) : NULL;
    int code = CLI_USAGE;
    if (!path && !url)
        fprintf(stderr, "oncehook tail: which gateway? -c FILE or --url URL\n");
    else if (strlen(from) >= sizeof(tail.cursor))
        fprintf(stderr, "oncehook tail: --from is no cursor\n");
    else if ((!path || config) && find_gateway(&tail, config, url, token, sizeof(token))) {
        struct sigaction action = {.sa_handler = on_signal};
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
        snprintf(tail.cursor, sizeof(tail.cursor), "%s", from);
        tail.is_human = isatty(STDOUT_FILENO) && !json;
        if (set_up(&tail, token))
            code = follow(&tail);
        else
            fprintf(stderr, "oncehook tail: out of memory\n");
    }
    curl_easy_cleanup(tail.easy);
    curl_multi_cleanup(tail.multi);
    curl_slist_free_all(tail.headers);
    free(tail.line);
    config_free(config);
    return code;
}
