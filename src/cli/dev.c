/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook dev: a private PostgreSQL, certificate, configuration and migrations, then the gateway
 * as a child, all in one directory D; docs/development.md tells what stands there.
 *
 * Promise: one `dev` per D, and nothing that was in D is lost or changed but what stands below. */
#include "cli/dev.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "config/edit.h"
#include "schema/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { LOCK_TIMEOUT_MS = 20 * 1000 }; /* the last dev on D may still be stopping */

void dev_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("oncehook dev: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- options --------------------------------------------------------------------------------- */

static bool read_port_numbers(const char *const texts[PORT_COUNT], int ports[PORT_COUNT])
{
    for (int i = 0; i < PORT_COUNT; i++) {
        char *end;
        long port = strtol(texts[i], &end, 10);
        if (*texts[i] == '\0' || *end != '\0' || port < 0 || port > 65535) {
            dev_say("'%s' is no port (0 to 65535)", texts[i]);
            return false;
        }
        ports[i] = (int)port;
    }
    return true;
}

static bool read_options(struct dev *dev, int argc, char **argv)
{
    const char *ports[PORT_COUNT] = {"8443", "8080", "9090"};
    const struct cli_option options[] = {
        {"dir", .argument = "D", .value = &dev->dir,
         .words = "Where everything lives (default ./.oncehook)"},
        {"config", 'c', .argument = "FILE", .value = &dev->file,
         .words = "Take sources and tuning from FILE"},
        {"port", .argument = "PORT", .value = &ports[PORT_HTTPS],
         .words = "HTTPS (default 8443); 0 = any free, here and below"},
        {"http-port", .argument = "PORT", .value = &ports[PORT_HTTP],
         .words = "HTTP (default 8080)"},
        {"admin-port", .argument = "PORT", .value = &ports[PORT_ADMIN],
         .words = "Health and metrics (default 9090)"},
        {"demo", .words = "Send signed sample deliveries and show what became of them",
         .flag = &dev->demo},
        {"once", .words = "Stop after the demo (or once it serves), with its exit code",
         .flag = &dev->once},
        {0},
    };
    cli_read_options(options,
                     "Run the gateway with a private PostgreSQL, a self-signed certificate and a "
                     "configuration that knows every provider, all made in D where missing. Prints "
                     "`ready` once it serves; D/env then tells a shell where everything is. SIGINT "
                     "and SIGTERM stop both.",
                     argc, argv);
    return read_port_numbers(ports, dev->wanted_ports);
}

/* ---- before anything runs -------------------------------------------------------------------- */

static enum oh_status take_lock(struct dev *dev, struct oh_error *err)
{
    char path[PATH_MAX];
    dev_path(path, dev->directory, "lock");
    dev->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (dev->lock_fd < 0)
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    bool is_said = false;
    for (int64_t end_us = clock_mono_us() + LOCK_TIMEOUT_MS * 1000LL;;) {
        if (flock(dev->lock_fd, LOCK_EX | LOCK_NB) == 0)
            return OH_OK;
        if (!is_said)
            dev_say("another one has %s; waiting up to %d s for its end", dev->directory,
                    LOCK_TIMEOUT_MS / 1000);
        is_said = true;
        if (clock_mono_us() >= end_us)
            return oh_fail(err, OH_INVALID, "another `oncehook dev` runs on %s", dev->directory);
        usleep(50 * 1000);
    }
}

static enum oh_status prepare(struct dev *dev, struct oh_error *err)
{
    enum oh_status status = dev_make_directory(dev->dir, dev->directory, err);
    if (status == OH_OK)
        status = take_lock(dev, err);
    if (status == OH_OK)
        status = dev_files_prepare(dev->directory, &dev->secrets, err);
    if (status != OH_OK)
        return status;
    dev_path(dev->log_path, dev->directory, "gateway.log");
    dev_path(dev->env_path, dev->directory, "env");
    dev_path(dev->certificate, dev->directory, "cert.pem");
    dev_path(dev->key, dev->directory, "key.pem");
    dev_path(dev->spool, dev->directory, "spool");
    dev_path(dev->config_path, dev->directory, dev->file ? "gateway.yaml" : "oncehook.yaml");
    if (!dev->file && access(dev->config_path, F_OK) < 0)
        status = dev_files_make_config(dev->directory, dev->config_path, &dev->secrets, err);
    return status;
}

enum oh_status dev_choose_ports(struct dev *dev, struct oh_error *err)
{
    static const char *const names[PORT_COUNT] = {"--port", "--http-port", "--admin-port"};
    for (int i = 0; i < PORT_COUNT; i++) {
        int port = dev->wanted_ports[i];
        if (port != 0 && !dev_port_is_free(port))
            return oh_fail(err, OH_INVALID,
                           "port %d is in use: choose another with %s (0 = any free)", port,
                           names[i]);
        for (bool again = port == 0; again;) {
            port = dev_free_port();
            if (port == 0)
                return oh_fail(err, OH_SYSTEM, "no free port found");
            again = false;
            for (int j = 0; j < i; j++)
                again |= dev->ports[j] == port;
        }
        dev->ports[i] = port;
    }
    snprintf(dev->https_url, sizeof(dev->https_url), "https://127.0.0.1:%d",
             dev->ports[PORT_HTTPS]);
    snprintf(dev->http_url, sizeof(dev->http_url), "http://127.0.0.1:%d", dev->ports[PORT_HTTP]);
    snprintf(dev->admin_url, sizeof(dev->admin_url), "http://127.0.0.1:%d", dev->ports[PORT_ADMIN]);
    return OH_OK;
}

/* ---- the configuration ----------------------------------------------------------------------- */

static enum oh_status set_in_place(struct dev *dev, const struct config_setting *settings,
                                   struct config_mistakes *mistakes, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    for (; status == OH_OK && settings->path; settings++) {
        char *text = NULL;
        status = config_replace(dev->config_path, settings, &text, mistakes);
        if (text)
            status = dev_write_file(dev->config_path, 0600, text, err);
        free(text);
    }
    return status;
}

static enum oh_status derive(struct dev *dev, const struct config_setting *settings,
                             struct config_mistakes *mistakes, struct oh_error *err)
{
    static const char *const dropped[] = {"listen", "admin", NULL};
    char *text = NULL;
    enum oh_status status = config_derive(dev->file, dropped, settings, &text, mistakes);
    if (status == OH_OK)
        status = dev_write_file(dev->config_path, 0600, text, err);
    free(text);
    return status;
}

/* Reads what the gateway will read, to tell mistakes before it starts. */
static enum oh_status check_config(struct dev *dev, struct config_mistakes *mistakes)
{
    struct config *config = NULL;
    enum oh_status status = config_load(dev->config_path, CONFIG_ALL, &config, mistakes);
    if (status != OH_OK)
        return status;
    struct oh_slice token = config->admin.token.bytes;
    snprintf(dev->admin_token, sizeof(dev->admin_token), "%.*s", (int)token.len,
             token.data ? token.data : "");
    snprintf(dev->schema, sizeof(dev->schema), "%s", config->database.schema);
    config_free(config);
    return OH_OK;
}

enum oh_status dev_configure(struct dev *dev, struct oh_error *err)
{
    char addresses[PORT_COUNT][32];
    for (int i = 0; i < PORT_COUNT; i++)
        snprintf(addresses[i], sizeof(addresses[i]), "127.0.0.1:%d", dev->ports[i]);
    snprintf(dev->owner_url, sizeof(dev->owner_url),
             "postgresql://oncehook_owner:%s@127.0.0.1:%d/oncehook", dev->secrets.owner_password,
             dev->postgres.port);
    snprintf(dev->gateway_url, sizeof(dev->gateway_url),
             "postgresql://oncehook_gateway:%s@127.0.0.1:%d/oncehook",
             dev->secrets.gateway_password, dev->postgres.port);
    const struct config_setting settings[] = {
        {"listen/https", addresses[PORT_HTTPS], false},
        {"listen/http", addresses[PORT_HTTP], false},
        {"listen/public_url", dev->https_url, false},
        {"admin/listen", addresses[PORT_ADMIN], false},
        {"database/url", dev->gateway_url, false},
        {"database/owner_url", dev->owner_url, false},
        /* In D/oncehook.yaml these stand from the beginning. */
        {dev->file ? "listen/tls/certificate" : NULL, dev->certificate, false},
        {"listen/tls/key", dev->key, false},
        {"listen/trusted_proxies", "[127.0.0.1]", true},
        {"admin/token", dev->secrets.admin_token, false},
        {"spool/directory", dev->spool, false},
        {NULL, NULL, false},
    };
    struct config_mistakes mistakes = {0};
    const char *read_path = dev->file ? dev->file : dev->config_path;
    enum oh_status status = dev->file ? derive(dev, settings, &mistakes, err)
                                      : set_in_place(dev, settings, &mistakes, err);
    if (status == OH_OK) {
        read_path = dev->config_path;
        status = check_config(dev, &mistakes);
    }
    if (mistakes.count > 0) {
        config_mistakes_print(read_path, &mistakes);
        oh_fail(err, status, "%s has %zu mistake%s", read_path, mistakes.count,
                mistakes.count == 1 ? "" : "s");
    }
    config_mistakes_free(&mistakes);
    return status;
}

static void print_migration(void *context, const char *text)
{
    (void)context;
    dev_say("%s", text);
}

static enum oh_status set_up_database(struct dev *dev, struct oh_error *err)
{
    const struct schema_report report = {print_migration, NULL};
    enum oh_status status = dev_postgres_set_up(&dev->postgres, dev->secrets.owner_password,
                                                dev->secrets.gateway_password, err);
    if (status == OH_OK)
        status = schema_up(dev->owner_url, dev->schema, false, &report, err);
    return status;
}

static enum oh_status start(struct dev *dev, struct oh_error *err)
{
    enum oh_status status = prepare(dev, err);
    if (status == OH_OK)
        status = dev_choose_ports(dev, err);
    if (status == OH_OK)
        status = dev_postgres_prepare(&dev->postgres, dev->directory, err);
    if (status == OH_OK)
        status = dev_postgres_start(&dev->postgres, true, err);
    if (status == OH_OK)
        status = dev_configure(dev, err);
    if (status == OH_OK)
        status = set_up_database(dev, err);
    dev->postgres_since_us = clock_mono_us();
    return status == OH_OK ? dev_run_gateway(dev, err) : status;
}

int cli_dev(int argc, char **argv)
{
    static struct dev dev = {.dir = ".oncehook",
                             .postgres.pidfd = -1,
                             .lock_fd = -1,
                             .signal_fd = -1,
                             .gateway_out_fd = -1};
    struct oh_error err = {0};
    if (!read_options(&dev, argc, argv))
        return CLI_USAGE;
    dev_run_open(&dev);
    enum oh_status status = start(&dev, &err);
    if (status == OH_OK) {
        dev_run(&dev);
    } else {
        dev_say("%s", err.text);
        dev_leave(&dev, status == OH_INVALID ? CLI_USAGE : CLI_NO);
    }
    dev_stop(&dev);
    if (dev.gateway_out_fd >= 0)
        close(dev.gateway_out_fd);
    OPENSSL_cleanse(&dev.secrets, sizeof(dev.secrets));
    return dev.exit_code;
}
