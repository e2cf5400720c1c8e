/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: after dev_postgres_start() a durable PostgreSQL of our own answers, whatever state the
 * last `oncehook dev` left its directory in. Other clusters of the machine are never touched. */
#include "cli/dev_postgres.h"

#include "base/clock.h"
#include "base/encode.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libpq-fe.h>
#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ELSEWHERE \
    "/var/lib/oncehook-dev" /* for directories that the unprivileged user cannot reach */

enum {
    SOCKET_PATH_MAX = 107, /* sockaddr_un.sun_path without its NUL */
    ANSWER_TIMEOUT_S = 60, /* crash recovery included */
    PORT_FIRST = 20000,    /* below Linux's range for outgoing connections */
    PORT_COUNT = 10000,
    PORT_TRIES = 200,
};

/* ---- ports ----------------------------------------------------------------------------------- */

bool dev_port_is_free(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int on = 1; /* as the servers do: connections in TIME_WAIT do not count */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_free =
        bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0;
    close(fd);
    return is_free;
}

int dev_free_port(void)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            return 0;
        int port = PORT_FIRST + (int)(random % PORT_COUNT);
        if (dev_port_is_free(port))
            return port;
    }
    return 0;
}

/* ---- paths ----------------------------------------------------------------------------------- */

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static enum oh_status remove_tree(const char *path, struct oh_error *err)
{
    const char *const argv[] = {"rm", "-rf", "--", path, NULL};
    return dev_exec(NULL, "/", argv, NULL, err);
}

/* A directory that the server's user alone can enter. */
static enum oh_status make_private(const struct dev_user *user, const char *path,
                                   struct oh_error *err)
{
    if ((mkdir(path, 0700) < 0 && errno != EEXIST) ||
        (user->drops_root && chown(path, user->uid, user->gid) < 0))
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    return OH_OK;
}

/* Where the cluster of a D out of reach lives: named by D's path. What an earlier D of the same
 * path left there has nobody who could ask for it any more, and goes. */
static enum oh_status place_elsewhere(struct dev_postgres *pg, const char *directory,
                                      const char *link, struct oh_error *err)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char name[HEX_BYTES(8) + 1] = "";
    SHA256((const unsigned char *)directory, strlen(directory), digest);
    hex_encode(digest, 8, name);
    if (mkdir(ELSEWHERE, 0755) < 0 && errno != EEXIST)
        return oh_fail(
            err, OH_SYSTEM,
            "%s: %s; it is needed because PostgreSQL cannot live in %s (its socket's name would be "
            "too long, or it holds one of \"$`\\,): give another --dir",
            ELSEWHERE, strerror(errno), directory);
    snprintf(pg->base, sizeof(pg->base), "%s/%s", ELSEWHERE, name);
    if (exists(pg->base)) {
        struct dev_postgres old = *pg;
        dev_path(old.data, old.base, "data");
        enum oh_status status = dev_postgres_stop(&old, err);
        if (status == OH_OK)
            status = remove_tree(pg->base, err);
        if (status != OH_OK)
            return status;
    }
    if (symlink(pg->base, link) < 0)
        return oh_fail(err, OH_SYSTEM, "%s: %s", link, strerror(errno));
    return OH_OK;
}

/* Fills pg->base; D/postgres is there afterwards, as a directory or as a link to one. */
static enum oh_status place(struct dev_postgres *pg, const char *directory, struct oh_error *err)
{
    char link[PATH_MAX];
    dev_path(link, directory, "postgres");
    ssize_t linked = readlink(link, pg->base, sizeof(pg->base) - 1);
    if (linked > 0) {
        pg->base[linked] = '\0';
    } else if (exists(link)) {
        snprintf(pg->base, sizeof(pg->base), "%s", link);
    } else {
        const char *const reach[] = {"test", "-x", directory, NULL};
        bool fits = strlen(link) + strlen("/run/.s.PGSQL.65535.lock") <= SOCKET_PATH_MAX &&
                    link[strcspn(link, "\"$`\\,\n")] == '\0'; /* pg_ctl's shell, libpq's lists */
        if (fits && dev_exec(&pg->user, "/", reach, NULL, NULL) == OH_OK) {
            snprintf(pg->base, sizeof(pg->base), "%s", link);
        } else {
            enum oh_status status = place_elsewhere(pg, directory, link, err);
            if (status != OH_OK)
                return status;
        }
    }
    if (strlen(pg->base) > DEV_DIRECTORY_MAX)
        return oh_fail(err, OH_INVALID, "%s: too long a path", pg->base);
    dev_path(pg->data, pg->base, "data");
    return make_private(&pg->user, pg->base, err);
}

/* ---- binaries -------------------------------------------------------------------------------- */

static bool has_pg_ctl(const char *directory)
{
    char path[PATH_MAX];
    return access(dev_path(path, directory, "pg_ctl"), X_OK) == 0;
}

/* The newest of Debian's versions, or for a cluster that is there its own; else what pg_config
 * says. */
static enum oh_status find_binaries(struct dev_postgres *pg, struct oh_error *err)
{
    char path[PATH_MAX], version[16] = "*";
    FILE *file = fopen(dev_path(path, pg->data, "PG_VERSION"), "re");
    if (file) {
        if (fscanf(file, "%15[0-9]", version) != 1)
            snprintf(version, sizeof(version), "*");
        fclose(file);
    }
    char pattern[64];
    snprintf(pattern, sizeof(pattern), "/usr/lib/postgresql/%s/bin", version);
    pg->binaries[0] = '\0';
    glob_t found;
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0, newest = 0; i < found.gl_pathc; i++) {
            size_t number = strtoul(found.gl_pathv[i] + strlen("/usr/lib/postgresql/"), NULL, 10);
            if (number >= newest && has_pg_ctl(found.gl_pathv[i])) {
                newest = number;
                snprintf(pg->binaries, sizeof(pg->binaries), "%s", found.gl_pathv[i]);
            }
        }
        globfree(&found);
    }
    if (pg->binaries[0] != '\0')
        return OH_OK;
    const char *const ask[] = {"pg_config", "--bindir", NULL};
    struct dev_output output;
    if (dev_exec(NULL, "/", ask, &output, NULL) == OH_OK) {
        output.text[strcspn(output.text, "\n")] = '\0';
        if (strlen(output.text) <= DEV_DIRECTORY_MAX && has_pg_ctl(output.text)) {
            snprintf(pg->binaries, sizeof(pg->binaries), "%s", output.text);
            return OH_OK;
        }
    }
    return oh_fail(err, OH_SYSTEM,
                   "no PostgreSQL server found (package postgresql-15): %s has no pg_ctl", pattern);
}

static enum oh_status run_tool(const struct dev_postgres *pg, const char *tool,
                               const char *const arguments[], struct dev_output *output,
                               struct oh_error *err)
{
    char path[PATH_MAX];
    const char *argv[20] = {path};
    dev_path(path, pg->binaries, tool);
    for (size_t i = 0; arguments[i] && i < 18; i++)
        argv[i + 1] = arguments[i];
    return dev_exec(&pg->user, pg->base, argv, output, err);
}

/* ---- the cluster's files --------------------------------------------------------------------- */

/* Rewrites `name` in PGDATA, keeping it the server's. */
static enum oh_status write_setting_file(const struct dev_postgres *pg, const char *directory,
                                         const char *name, const char *mode, const char *text,
                                         struct oh_error *err)
{
    char path[PATH_MAX];
    FILE *file = fopen(dev_path(path, directory, name), mode);
    if (!file)
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    bool ok = fputs(text, file) >= 0 && fchmod(fileno(file), 0600) == 0 &&
              (!pg->user.drops_root || fchown(fileno(file), pg->user.uid, pg->user.gid) == 0);
    ok = fclose(file) == 0 && ok;
    return ok ? OH_OK : oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
}

/* oncehook.conf in PGDATA: what dev decides. Whoever starts the server by hand gets the same. */
static enum oh_status write_settings(const struct dev_postgres *pg, const char *directory,
                                     struct oh_error *err)
{
    char text[PATH_MAX * 2 + 512];
    int len = snprintf(text, sizeof(text),
                       "port = %d\n"
                       "listen_addresses = '127.0.0.1'\n"
                       "unix_socket_permissions = 0700\n"
                       "max_connections = 200\n"
                       "fsync = on\n"
                       "synchronous_commit = on\n"
                       "full_page_writes = on\n"
                       "unix_socket_directories = '",
                       pg->port);
    for (const char *p = pg->base; *p; p++) {
        if (*p == '\'')
            text[len++] = *p;
        text[len++] = *p;
    }
    snprintf(text + len, sizeof(text) - (size_t)len, "/run'\n");
    return write_setting_file(pg, directory, "oncehook.conf", "we", text, err);
}

static int read_port(const struct dev_postgres *pg)
{
    char path[PATH_MAX];
    int port = 0;
    FILE *file = fopen(dev_path(path, pg->data, "oncehook.conf"), "re");
    if (file) {
        if (fscanf(file, "port = %d", &port) != 1 || port < 1 || port > 65535)
            port = 0;
        fclose(file);
    }
    return port;
}

/* initdb into another directory that is renamed at the end: what is called `data` is whole. */
static enum oh_status make_cluster(struct dev_postgres *pg, struct oh_error *err)
{
    char unfinished[PATH_MAX];
    dev_path(unfinished, pg->base, "data.unfinished");
    enum oh_status status = remove_tree(unfinished, err);
    if (status != OH_OK)
        return status;
    fprintf(stderr, "oncehook dev: making a PostgreSQL cluster in %s\n", pg->base);
    const char *const initdb[] = {"-D",
                                  unfinished,
                                  "-U",
                                  "postgres",
                                  "-E",
                                  "UTF8",
                                  "--locale=C",
                                  "--auth-local=trust",
                                  "--auth-host=scram-sha-256",
                                  "--no-instructions",
                                  NULL};
    status = run_tool(pg, "initdb", initdb, NULL, err);
    if (status == OH_OK)
        status = write_settings(pg, unfinished, err);
    if (status == OH_OK)
        status = write_setting_file(pg, unfinished, "postgresql.conf", "ae",
                                    "\ninclude_if_exists = 'oncehook.conf'\n", err);
    if (status == OH_OK && rename(unfinished, pg->data) < 0)
        status = oh_fail(err, OH_SYSTEM, "%s: %s", pg->data, strerror(errno));
    return status;
}

enum oh_status dev_postgres_prepare(struct dev_postgres *pg, const char *directory,
                                    struct oh_error *err)
{
    *pg = (struct dev_postgres){.pidfd = -1};
    enum oh_status status = dev_user_find(&pg->user, err);
    if (status == OH_OK)
        status = place(pg, directory, err);
    if (status == OH_OK)
        status = find_binaries(pg, err);
    char run[PATH_MAX];
    if (status == OH_OK)
        status = make_private(&pg->user, dev_path(run, pg->base, "run"), err);
    if (status != OH_OK)
        return status;
    pg->port = read_port(pg);
    return exists(pg->data) ? OH_OK : make_cluster(pg, err);
}

/* ---- the server ------------------------------------------------------------------------------ */

/* postmaster.pid: line 1 the pid, line 4 the port. 0 when there is none. */
static pid_t read_postmaster(const struct dev_postgres *pg, int *port)
{
    char path[PATH_MAX];
    FILE *file = fopen(dev_path(path, pg->data, "postmaster.pid"), "re");
    if (!file)
        return 0;
    int pid = 0;
    int fields = fscanf(file, "%d %*[^\n] %*[^\n] %d", &pid, port);
    fclose(file);
    return fields >= 1 && pid > 1 ? pid : 0;
}

static PGconn *connect_as_superuser(const struct dev_postgres *pg)
{
    char run[PATH_MAX], port[12];
    snprintf(port, sizeof(port), "%d", pg->port);
    const char *const names[] = {"host", "port", "user", "dbname", "connect_timeout", NULL};
    const char *const values[] = {
        dev_path(run, pg->base, "run"), port, "postgres", "postgres", "10", NULL};
    return PQconnectdbParams(names, values, 0);
}

/* True for a process that has ended, reaped or not. */
static bool has_ended(int pidfd)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};
    return poll(&fd, 1, 0) != 0;
}

/* Waits until the server answers. False when it ends, or at the deadline. */
static bool wait_for_answer(const struct dev_postgres *pg, int pidfd)
{
    int64_t deadline_us = clock_mono_us() + (int64_t)ANSWER_TIMEOUT_S * 1000000;
    while (clock_mono_us() < deadline_us) {
        PGconn *connection = connect_as_superuser(pg);
        bool answers = connection && PQstatus(connection) == CONNECTION_OK;
        PQfinish(connection);
        if (answers)
            return true;
        if (has_ended(pidfd))
            return false;
        usleep(50 * 1000);
    }
    return false;
}

/* Opens the pidfd of the server that runs on our cluster; false when none does. */
static bool take_over(struct dev_postgres *pg)
{
    int port = 0;
    pid_t pid = read_postmaster(pg, &port);
    if (pid == 0 || port == 0)
        return false;
    int fd = pidfd_open(pid, 0);
    if (fd < 0)
        return false;
    int configured = pg->port;
    pg->port = port;
    /* After a reboot the pid may be anybody's; only our server answers on our socket. */
    char socket_path[PATH_MAX];
    snprintf(socket_path, sizeof(socket_path), "%.4000s/run/.s.PGSQL.%d", pg->base, port);
    if (!exists(socket_path) || !wait_for_answer(pg, fd)) {
        close(fd);
        pg->port = configured;
        return false;
    }
    pg->pidfd = fd;
    return true;
}

static enum oh_status stop_server(const struct dev_postgres *pg, struct oh_error *err)
{
    const char *const stop[] = {"stop", "-D", pg->data, "-m", "fast", "-w", "-t", "60", "-s", NULL};
    return run_tool(pg, "pg_ctl", stop, NULL, err);
}

enum oh_status dev_postgres_start(struct dev_postgres *pg, bool may_move, struct oh_error *err)
{
    if (pg->pidfd >= 0)
        close(pg->pidfd);
    pg->pidfd = -1;
    if (take_over(pg)) {
        fprintf(stderr, "oncehook dev: PostgreSQL runs already, taking it over\n");
        return OH_OK;
    }
    if (may_move && (pg->port == 0 || !dev_port_is_free(pg->port)))
        pg->port = dev_free_port();
    enum oh_status status = write_settings(pg, pg->data, err);
    if (status != OH_OK)
        return status;
    fprintf(stderr, "oncehook dev: starting PostgreSQL on 127.0.0.1:%d\n", pg->port);
    char log[PATH_MAX];
    dev_path(log, pg->base, "log");
    const char *const start[] = {"start", "-D", pg->data, "-l", log, "-w", "-t", "60", "-s", NULL};
    status = run_tool(pg, "pg_ctl", start, NULL, err);
    if (status == OH_OK && !take_over(pg)) {
        (void)stop_server(pg, NULL);
        status = oh_fail(err, OH_SYSTEM, "PostgreSQL started but does not answer");
    }
    if (status != OH_OK && err) {
        char said[256];
        snprintf(said, sizeof(said), "%.200s", err->text);
        return oh_fail(err, OH_SYSTEM, "%s (%s says why)", said, log);
    }
    return status;
}

bool dev_postgres_was_shut_down(const struct dev_postgres *pg)
{
    const char *const ask[] = {"-D", pg->data, NULL};
    struct dev_output output;
    if (run_tool(pg, "pg_controldata", ask, &output, NULL) != OH_OK)
        return false;
    const char *state = strstr(output.text, "Database cluster state:");
    return state && strstr(state, " shut down\n") &&
           strstr(state, " shut down\n") < strchr(state, '\n') + 1;
}

enum oh_status dev_postgres_stop(struct dev_postgres *pg, struct oh_error *err)
{
    if (pg->binaries[0] == '\0') {
        enum oh_status status = find_binaries(pg, err);
        if (status != OH_OK)
            return status;
    }
    if (pg->pidfd < 0 && !take_over(pg))
        return OH_OK;
    close(pg->pidfd);
    pg->pidfd = -1;
    return stop_server(pg, err);
}

/* ---- roles and database ---------------------------------------------------------------------- */

static const char roles_sql[] =
    "DO $$ BEGIN"
    " IF to_regrole('oncehook_owner') IS NULL THEN CREATE ROLE oncehook_owner; END IF;"
    " IF to_regrole('oncehook_gateway') IS NULL THEN CREATE ROLE oncehook_gateway; END IF;"
    " IF NOT pg_has_role('oncehook_gateway', 'pg_monitor', 'MEMBER') THEN"
    "  GRANT pg_monitor TO oncehook_gateway;"
    " END IF;"
    " END $$";

/* Runs one statement; *found (may be NULL) tells whether it gave a row. */
static enum oh_status run_sql(PGconn *connection, const char *text, bool *found,
                              struct oh_error *err)
{
    PGresult *result = PQexec(connection, text);
    ExecStatusType got = PQresultStatus(result);
    enum oh_status status = OH_OK;
    if (got != PGRES_TUPLES_OK && got != PGRES_COMMAND_OK)
        /* Never the whole message: it may quote the statement, and that a password. */
        status = oh_fail(err, OH_SYSTEM, "PostgreSQL refuses to set up roles and database: %s",
                         PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
    if (found)
        *found = PQntuples(result) > 0;
    PQclear(result);
    return status;
}

/* ALTER ROLE takes no parameters: the verifier is made here, so that no log sees the password. */
static enum oh_status set_password(PGconn *connection, const char *role, const char *password,
                                   struct oh_error *err)
{
    enum oh_status status = OH_NO_MEMORY;
    char *verifier = PQencryptPasswordConn(connection, password, role, "scram-sha-256");
    char *literal = verifier ? PQescapeLiteral(connection, verifier, strlen(verifier)) : NULL;
    char *text = NULL;
    if (literal && asprintf(&text, "ALTER ROLE %s LOGIN PASSWORD %s", role, literal) > 0)
        status = run_sql(connection, text, NULL, err);
    else
        oh_fail(err, status, "the password of %s cannot be set", role);
    free(text);
    PQfreemem(literal);
    PQfreemem(verifier);
    return status;
}

enum oh_status dev_postgres_set_up(const struct dev_postgres *pg, const char *owner_password,
                                   const char *gateway_password, struct oh_error *err)
{
    PGconn *connection = connect_as_superuser(pg);
    bool found = false;
    enum oh_status status =
        PQstatus(connection) == CONNECTION_OK
            ? run_sql(connection, roles_sql, NULL, err)
            : oh_fail(err, OH_SYSTEM, "PostgreSQL: %s", PQerrorMessage(connection));
    if (status == OH_OK)
        status = set_password(connection, "oncehook_owner", owner_password, err);
    if (status == OH_OK)
        status = set_password(connection, "oncehook_gateway", gateway_password, err);
    if (status == OH_OK)
        status =
            run_sql(connection, "SELECT FROM pg_database WHERE datname = 'oncehook'", &found, err);
    if (status == OH_OK && !found)
        status = run_sql(connection, "CREATE DATABASE oncehook OWNER oncehook_owner", NULL, err);
    PQfinish(connection);
    return status;
}
