/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: a file that is there is kept; a file that is made is whole; nobody else reads a secret.
 */
#include "cli/dev_files.h"

#include "base/encode.h"
#include "cli/cli.h"
#include "cli/dev_exec.h"
#include "oncehook/sign.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOURCE_NAME_MAX = 64 };

/* ---- writing --------------------------------------------------------------------------------- */

enum oh_status dev_write_file(const char *path, mode_t mode, const char *text, struct oh_error *err)
{
    char unfinished[PATH_MAX];
    if (snprintf(unfinished, sizeof(unfinished), "%s.unfinished", path) >= PATH_MAX)
        return oh_fail(err, OH_INVALID, "%s: too long a path", path);
    unlink(unfinished);
    int fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return oh_fail(err, OH_SYSTEM, "%s: %s", unfinished, strerror(errno));
    size_t len = strlen(text), done = 0;
    while (done < len) {
        ssize_t n = write(fd, text + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        done += (size_t)n;
    }
    bool ok = done == len && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    close(fd);
    if (ok && rename(unfinished, path) == 0)
        return OH_OK;
    oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    unlink(unfinished);
    return OH_SYSTEM;
}

enum oh_status dev_make_directory(const char *directory, char out[PATH_MAX], struct oh_error *err)
{
    char path[PATH_MAX];
    if (directory[0] == '\0' || snprintf(path, sizeof(path), "%s", directory) >= PATH_MAX)
        return oh_fail(err, OH_INVALID, "--dir: not a path");
    for (char *slash = path; (slash = strchr(slash + 1, '/')) != NULL;) {
        *slash = '\0';
        mkdir(path, 0755); /* one that fails makes the last one fail too */
        *slash = '/';
    }
    if ((mkdir(path, 0755) < 0 && errno != EEXIST) || !realpath(path, out))
        return oh_fail(err, OH_SYSTEM, "%s: %s", directory, strerror(errno));
    return strlen(out) <= DEV_DIRECTORY_MAX ? OH_OK
                                            : oh_fail(err, OH_INVALID, "--dir: too long a path");
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* ---- secrets --------------------------------------------------------------------------------- */

static bool make_secret(char out[DEV_SECRET_TEXT])
{
    unsigned char bytes[DEV_SECRET_BYTES];
    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    hex_encode(bytes, sizeof(bytes), out);
    out[DEV_SECRET_TEXT - 1] = '\0';
    return true;
}

/* Three lines `name=HEX`; a file that is not like that is an error rather than replaced. */
static enum oh_status prepare_secrets(const char *path, struct dev_secrets *secrets,
                                      struct oh_error *err)
{
    static const char form[] = "owner_password=%48[0-9a-f]\n"
                               "gateway_password=%48[0-9a-f]\n"
                               "admin_token=%48[0-9a-f]\n";
    _Static_assert(DEV_SECRET_TEXT == 49, "the form's widths");
    char text[512];
    struct oh_slice old;
    if (exists(path)) {
        enum oh_status status = cli_read_file(path, sizeof(text), &old, err);
        if (status != OH_OK)
            return status;
        int fields = sscanf(old.data, form, secrets->owner_password, secrets->gateway_password,
                            secrets->admin_token);
        free((char *)old.data);
        return fields == 3 ? OH_OK : oh_fail(err, OH_INVALID, "%s is not as dev wrote it", path);
    }
    if (!make_secret(secrets->owner_password) || !make_secret(secrets->gateway_password) ||
        !make_secret(secrets->admin_token))
        return oh_fail(err, OH_SYSTEM, "no random bytes");
    snprintf(text, sizeof(text), "owner_password=%s\ngateway_password=%s\nadmin_token=%s\n",
             secrets->owner_password, secrets->gateway_password, secrets->admin_token);
    return dev_write_file(path, 0600, text, err);
}

/* ---- certificate ----------------------------------------------------------------------------- */

/* Self-signed, for localhost and 127.0.0.1; the certificate is written last, so it is there only
 * with its key. */
static enum oh_status prepare_certificate(const char *directory, struct oh_error *err)
{
    char certificate[PATH_MAX], key[PATH_MAX], unfinished[PATH_MAX];
    dev_path(certificate, directory, "cert.pem");
    dev_path(key, directory, "key.pem");
    dev_path(unfinished, directory, "cert.pem.unfinished");
    if (exists(certificate) && exists(key))
        return OH_OK;
    const char *const openssl[] = {"openssl",
                                   "req",
                                   "-x509",
                                   "-newkey",
                                   "ec",
                                   "-pkeyopt",
                                   "ec_paramgen_curve:prime256v1",
                                   "-nodes",
                                   "-sha256",
                                   "-days",
                                   "3650",
                                   "-subj",
                                   "/CN=localhost",
                                   "-addext",
                                   "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1",
                                   "-addext",
                                   "keyUsage=critical,digitalSignature,keyCertSign",
                                   "-keyout",
                                   key,
                                   "-out",
                                   unfinished,
                                   NULL};
    enum oh_status status = dev_exec(NULL, directory, openssl, NULL, err);
    if (status == OH_OK && (chmod(key, 0600) < 0 || chmod(unfinished, 0644) < 0 ||
                            rename(unfinished, certificate) < 0))
        status = oh_fail(err, OH_SYSTEM, "%s: %s", certificate, strerror(errno));
    return status;
}

enum oh_status dev_files_prepare(const char *directory, struct dev_secrets *secrets,
                                 struct oh_error *err)
{
    static const char *const private[] = {"keys", "spool"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof(private) / sizeof(private[0]); i++)
        if (mkdir(dev_path(path, directory, private[i]), 0700) < 0 && errno != EEXIST)
            return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    enum oh_status status = prepare_secrets(dev_path(path, directory, "secrets"), secrets, err);
    return status == OH_OK ? prepare_certificate(directory, err) : status;
}

/* ---- the configuration ----------------------------------------------------------------------- */

/* A fresh secret or key pair in the form that the recipe wants; a private half goes to keys/. */
static bool make_key(const char *directory, const char *source, const struct oh_recipe *recipe,
                     struct oh_made_key *key)
{
    char name[SOURCE_NAME_MAX + 16], path[PATH_MAX];
    if (oh_key_make(recipe, key, NULL) != OH_OK)
        return false;
    snprintf(name, sizeof(name), "keys/%s.pem", source);
    return !key->private_half[0] ||
           dev_write_file(dev_path(path, directory, name), 0600, key->private_half, NULL) == OH_OK;
}

/* PROVIDER, or PROVIDER-SCHEME for its further schemes, in the symbols that a name may have. */
static void make_name(const struct oh_recipe_info *info, bool is_first, char out[SOURCE_NAME_MAX])
{
    snprintf(out, SOURCE_NAME_MAX, is_first ? "%s" : "%s-%s", info->provider, info->scheme);
    for (char *p = out; *p; p++)
        if (!isalnum((unsigned char)*p) && *p != '.' && *p != '_')
            *p = '-';
}

static bool same_provider(const struct oh_catalog *catalog, size_t a, size_t b)
{
    struct oh_recipe_info left, right;
    oh_recipe_describe(oh_catalog_at(catalog, a), &left);
    oh_recipe_describe(oh_catalog_at(catalog, b), &right);
    return strcmp(left.provider, right.provider) == 0;
}

/* One entry under `sources:` for recipe `index` of the catalog. */
static bool print_source(FILE *to, const char *directory, const struct oh_catalog *catalog,
                         size_t index)
{
    const struct oh_recipe *recipe = oh_catalog_at(catalog, index);
    struct oh_recipe_info info;
    oh_recipe_describe(recipe, &info);
    bool is_first = oh_catalog_find(catalog, info.provider, NULL) == recipe;
    bool has_several =
        (index > 0 && same_provider(catalog, index, index - 1)) ||
        (index + 1 < oh_catalog_count(catalog) && same_provider(catalog, index, index + 1));
    char name[SOURCE_NAME_MAX];
    struct oh_made_key key;
    make_name(&info, is_first, name);
    if (!make_key(directory, name, recipe, &key))
        return false;
    fprintf(to, "\n  - name: %s\n    provider: \"%s\"\n", name, info.provider);
    if (has_several)
        fprintf(to, "    scheme: \"%s\"\n", info.scheme);
    char quote = strchr(key.shown, '"') ? '\'' : '"'; /* a JWK is JSON */
    fprintf(to, "    secrets: [%c%s%c]\n", quote, key.shown, quote);
    OPENSSL_cleanse(&key, sizeof(key));
    if (!info.map_enrollment || !info.map_instance) {
        fprintf(to, "    map:\n");
        if (!info.map_enrollment)
            fprintf(to, "      enrollment_id: /enrollment_id\n");
        if (!info.map_instance)
            fprintf(to, "      instance_id: /instance_id\n");
    }
    return true;
}

static bool print_config(FILE *to, const char *directory, const struct dev_secrets *secrets,
                         const struct oh_catalog *catalog)
{
    char secret[DEV_SECRET_TEXT];
    fprintf(to,
            "# Made by `oncehook dev` and yours to edit. At each start it sets listen.https,\n"
            "# listen.http, listen.public_url, admin.listen, database.url and database.owner_url;\n"
            "# everything else is kept.\n"
            "listen:\n  https: \"\"\n  http: \"\"\n  public_url: \"\"\n"
            "  tls: {certificate: cert.pem, key: key.pem}\n"
            "  trusted_proxies: [127.0.0.1]\n"
            "admin:\n  listen: \"\"\n  token: \"%s\"\n"
            "database:\n  url: \"\"\n  owner_url: \"\"\n"
            "spool:\n  directory: spool\n"
            "certificates:\n  directory: certificates\n"
            "watch:\n  unseen_sources: ignore\n"
            "sources:\n",
            secrets->admin_token);
    if (!make_secret(secret))
        return false;
    fprintf(to,
            "  - name: hmac\n    provider: hmac\n    secrets: [\"%s\"]\n    header: X-Signature\n"
            "    algorithm: sha256\n    encoding: hex\n    event_id: /id\n    event_type: /type\n"
            "    occurred_at: /occurred_at\n"
            "    map:\n      enrollment_id: /enrollment_id\n      instance_id: /instance_id\n",
            secret);
    for (size_t i = 0; i < oh_catalog_count(catalog); i++)
        if (!print_source(to, directory, catalog, i))
            return false;
    return true;
}

/* Providers that sign with a certificate get one of their private half, where the gateway looks for
 * those that it need not fetch: under the URL that `send` names. */
static enum oh_status make_certificates(const char *directory, struct oh_error *err)
{
    static const struct {
        const char *key, *place, *name;
    } rows[] = {
        {"keys/aws_sns.pem", "certificates/sns.us-east-1.amazonaws.com", "oncehook.pem"},
        {"keys/paypal.pem", "certificates/api.paypal.com/v1/notifications/certs", "oncehook"},
    };
    enum oh_status status = OH_OK;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && status == OH_OK; i++) {
        char key[PATH_MAX], place[PATH_MAX], real[PATH_MAX], out[PATH_MAX];
        dev_path(key, directory, rows[i].key);
        status = dev_make_directory(dev_path(place, directory, rows[i].place), real, err);
        if (status != OH_OK)
            break;
        const char *const openssl[] = {"openssl",
                                       "req",
                                       "-x509",
                                       "-new",
                                       "-key",
                                       key,
                                       "-sha256",
                                       "-days",
                                       "3650",
                                       "-subj",
                                       "/CN=oncehook dev",
                                       "-out",
                                       dev_path(out, real, rows[i].name),
                                       NULL};
        status = dev_exec(NULL, directory, openssl, NULL, err);
    }
    return status;
}

enum oh_status dev_files_make_config(const char *directory, const char *path,
                                     const struct dev_secrets *secrets, struct oh_error *err)
{
    struct oh_catalog *catalog = NULL;
    char *text = NULL;
    size_t len = 0;
    enum oh_status status = oh_catalog_new(&catalog, err);
    if (status != OH_OK)
        return status;
    FILE *to = open_memstream(&text, &len);
    bool ok = to && print_config(to, directory, secrets, catalog);
    if (to && fclose(to) != 0)
        ok = false;
    status = ok ? make_certificates(directory, err)
                : oh_fail(err, OH_SYSTEM, "%s: a source's key cannot be made", path);
    if (status == OH_OK)
        status = dev_write_file(path, 0600, text, err);
    free(text);
    oh_catalog_free(catalog);
    return status;
}

/* ---- D/env ----------------------------------------------------------------------------------- */

enum oh_status dev_files_write_env(const char *path, const struct dev_variable *variables,
                                   struct oh_error *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (const struct dev_variable *v = variables; v->name; v++) {
        fprintf(to, "%s=", v->name);
        cli_print_word(to, v->value);
        fputc('\n', to);
    }
    fputs("export", to);
    for (const struct dev_variable *v = variables; v->name; v++)
        fprintf(to, " %s", v->name);
    fputc('\n', to);
    enum oh_status status = fclose(to) == 0 ? dev_write_file(path, 0600, text, err)
                                            : oh_fail(err, OH_NO_MEMORY, "out of memory");
    free(text);
    return status;
}
