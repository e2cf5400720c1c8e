/* SPDX-License-Identifier: Apache-2.0 */
/* What `check` tries beyond the words of the file: whether certificate and key load and belong
 * together, whether the spool can be made, and whether files with secrets are closed to others. */
#include "config/loader.h"

#include "base/clock.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

/* OpenSSL's first reason; it names formats and system errors, never content. */
static const char *openssl_reason(void)
{
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    const char *reason = ERR_reason_error_string(code);
    return reason ? reason : "not readable";
}

static const struct config_file *find_file(const struct config *config, enum config_file_kind kind)
{
    for (size_t i = 0; i < config->file_count; i++)
        if (config->files[i].kind == kind)
            return &config->files[i];
    return NULL;
}

/* A key with a passphrase must not stop a service to ask for it. */
static int refuse_passphrase(char *buffer, int size, int writing, void *user)
{
    (void)buffer, (void)size, (void)writing, (void)user;
    return 0;
}

static void inspect_tls(struct loader *loader, const struct config *config)
{
    const struct config_file *certificate = find_file(config, CONFIG_FILE_CERTIFICATE);
    const struct config_file *key = find_file(config, CONFIG_FILE_KEY);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX *alone = SSL_CTX_new(TLS_server_method()); /* so that a wrong pair is told as such */
    bool have_certificate = false, have_key = false;
    if (!context || !alone) {
        loader->no_memory = true;
        goto out;
    }
    SSL_CTX_set_default_passwd_cb(context, refuse_passphrase);
    SSL_CTX_set_default_passwd_cb(alone, refuse_passphrase);
    ERR_clear_error();
    if (certificate) {
        have_certificate = SSL_CTX_use_certificate_chain_file(context, certificate->path) == 1;
        if (!have_certificate)
            loader_mistake(loader, certificate->line, "listen.tls.certificate cannot be loaded: %s",
                           openssl_reason());
    }
    ERR_clear_error();
    if (key) {
        have_key = SSL_CTX_use_PrivateKey_file(alone, key->path, SSL_FILETYPE_PEM) == 1;
        if (!have_key)
            loader_mistake(loader, key->line, "listen.tls.key cannot be loaded: %s",
                           openssl_reason());
    }
    if (have_certificate && have_key &&
        (SSL_CTX_use_PrivateKey_file(context, key->path, SSL_FILETYPE_PEM) != 1 ||
         SSL_CTX_check_private_key(context) != 1))
        loader_mistake(loader, key->line, "listen.tls.key does not belong to the certificate");
    if (have_certificate &&
        X509_cmp_current_time(X509_get0_notAfter(SSL_CTX_get0_certificate(context))) < 0)
        loader_mistake(loader, certificate->line, "listen.tls.certificate has expired");
out:
    ERR_clear_error();
    SSL_CTX_free(context);
    SSL_CTX_free(alone);
}

/* What the gateway would not start for: it makes the directory itself, but nothing above it. */
static void inspect_spool(struct loader *loader, const struct config *config)
{
    char path[PATH_MAX];
    if (config->outage != CONFIG_OUTAGE_SPOOL || !config->spool.directory)
        return;
    snprintf(path, sizeof(path), "%s", config->spool.directory);
    int line = option_line(loader->lines, "spool.directory", 0);
    const char *place = access(path, F_OK) == 0 ? path : dirname(path), *wrong = NULL;
    struct stat st = {0};
    if (stat(place, &st) == 0 ? !S_ISDIR(st.st_mode) : errno == ENOTDIR)
        wrong = "it, or what it should lie in, is no directory: name another place";
    else if (st.st_nlink == 0 && errno == ENOENT)
        wrong = "its parent directory is missing: make it (mkdir -p), and give it to the gateway's "
                "user (chown)";
    else if (access(place, W_OK | X_OK) != 0)
        wrong =
            "this user may not write there: check as the gateway's user, or make it that user's "
            "(chown)";
    if (wrong)
        loader_mistake(loader, line, "spool.directory: %s", wrong);
}

enum { ARMED_LONG_MS = 86400000 };

/* What is no mistake and hardly meant. */
static void inspect_source(struct loader *warnings, const struct config_source *source)
{
    int64_t now_ms = clock_wall_us() / 1000;
    if (source->arm_until_ms > now_ms + ARMED_LONG_MS)
        loader_mistake(warnings, source->line,
                       "armed for more than a day: until then whoever knows the URL can plant a "
                       "secret");
    if (source->secret_count > 0 && !config_secret_at(source, now_ms).data)
        loader_mistake(warnings, source->line,
                       "no secret of this source is taken now: see their not_before and not_after");
}

void inspect_files(struct loader *loader, struct loader *warnings)
{
    const struct config *config = loader->config;
    inspect_tls(loader, config);
    inspect_spool(loader, config);
    for (size_t i = 0; i < config->file_count; i++) {
        struct stat st;
        if (config->files[i].kind != CONFIG_FILE_CERTIFICATE &&
            stat(config->files[i].path, &st) == 0 && (st.st_mode & S_IROTH))
            loader_mistake(warnings, config->files[i].line,
                           "the file with this secret is open to everybody: chmod o-r");
    }
    for (size_t i = 0; i < config->source_count; i++)
        inspect_source(warnings, &config->sources[i]);
    if (config->source_count == 0)
        loader_mistake(warnings, 0, "no sources: every delivery will be answered 404");
}
