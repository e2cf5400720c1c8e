/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: on SIGTERM and SIGINT the gateway drains, then PostgreSQL stops. Whatever dies first
 * otherwise: a PostgreSQL that crashed is started again with back-off; when the gateway is killed
 * dev leaves too, and PostgreSQL lives on for the next `dev`, which takes it over. */
#include "cli/dev.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    GATEWAY_LEAVES_MS = 15 * 1000, /* it promises 10 s */
    PORT_RACES_MAX = 5, /* how often a port that was free may be lost to another program */
    BACK_OFF_FIRST_MS = 200,
    BACK_OFF_MAX_MS = 2 * 1000, /* somebody sits before it: what held it up is gone in seconds */
    BACK_OFF_FORGET_MS = 60 * 1000, /* a server that ran this long crashed for a new reason */
    SHUT_DOWN_POLL_MS = 500,
};

/* ---- children -------------------------------------------------------------------------------- */

enum oh_status dev_run_gateway(struct dev *dev, struct oh_error *err)
{
    int ends[2];
    int log = open(dev->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || pipe2(ends, O_CLOEXEC) < 0) {
        oh_fail(err, OH_SYSTEM, "%s: %s", dev->log_path, strerror(errno));
        if (log >= 0)
            close(log);
        return OH_SYSTEM;
    }
    dev->log_start = lseek(log, 0, SEEK_END);
    dev->line_len = 0;
    pid_t self = getpid();
    dev->gateway = fork();
    if (dev->gateway == 0) {
        dev_child_begin(self, SIGKILL); /* as dev itself: the next one needs the ports at once */
        int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        dup2(null_fd, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        execl("/proc/self/exe", "oncehook", "serve", "-c", dev->config_path, (char *)NULL);
        dprintf(STDERR_FILENO, "/proc/self/exe: %s\n", strerror(errno));
        _exit(CLI_NO);
    }
    close(log);
    close(ends[1]);
    dev->gateway_out_fd = ends[0];
    if (dev->gateway > 0)
        return OH_OK;
    dev->gateway = 0;
    return oh_fail(err, OH_SYSTEM, "fork: %s", strerror(errno));
}

static enum oh_status write_env(struct dev *dev, struct oh_error *err)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", (int)dev->gateway);
    const struct dev_variable variables[] = {
        {"DATABASE_URL", dev->owner_url},
        {"ONCEHOOK_DATABASE_URL", dev->gateway_url},
        {"ONCEHOOK_URL", dev->https_url},
        {"ONCEHOOK_HTTP_URL", dev->http_url},
        {"ONCEHOOK_ADMIN_URL", dev->admin_url},
        {"ONCEHOOK_ADMIN_TOKEN", dev->admin_token},
        {"ONCEHOOK_CA", dev->certificate},
        {"ONCEHOOK_CONFIG", dev->config_path},
        {"ONCEHOOK_PID", pid},
        {"ONCEHOOK_PGDATA", dev->postgres.data},
        {NULL, NULL},
    };
    return dev_files_write_env(dev->env_path, variables, err);
}

/* A process of its own, so that it can be ended like any child. */
static void start_demo(struct dev *dev)
{
    const struct demo_options demo = {.config = dev->config_path,
                                      .https_url = dev->https_url,
                                      .admin_url = dev->admin_url,
                                      .ca = dev->certificate,
                                      .owner_url = dev->owner_url,
                                      .directory = dev->directory,
                                      .once = dev->once};
    pid_t self = getpid();
    fflush(NULL);
    dev->demo_pid = fork();
    if (dev->demo_pid == 0) {
        dev_child_begin(self, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        exit(demo_run(&demo));
    }
    if (dev->demo_pid < 0) {
        dev_say("the demo cannot be started: %s", strerror(errno));
        dev->demo_pid = 0;
        dev->exit_code = CLI_NO;
        dev->leaving = dev->once;
    }
}

void dev_leave(struct dev *dev, int exit_code)
{
    if (!dev->leaving)
        dev->exit_code = exit_code;
    dev->leaving = true;
}

static void on_ready(struct dev *dev)
{
    struct oh_error err = {0};
    dev->is_ready = true;
    if (write_env(dev, &err) != OH_OK) {
        dev_say("%s", err.text);
        dev_leave(dev, CLI_NO);
        return;
    }
    dev_say("deliveries: %s/in/SOURCE   metrics: %s/metrics", dev->https_url, dev->admin_url);
    dev_say("the rest:   . %s   log: %s", dev->env_path, dev->log_path);
    puts("ready");
    fflush(stdout);
    if (dev->demo)
        start_demo(dev);
    else if (dev->once)
        dev_leave(dev, CLI_OK);
}

/* Takes what the gateway wrote on stdout; the word it waits for is a line `ready`. */
static void read_gateway_output(struct dev *dev)
{
    char buffer[256];
    ssize_t n = read(dev->gateway_out_fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        close(dev->gateway_out_fd);
        dev->gateway_out_fd = -1;
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (buffer[i] != '\n') {
            if (dev->line_len + 1 < sizeof(dev->line))
                dev->line[dev->line_len++] = buffer[i];
            continue;
        }
        dev->line[dev->line_len] = '\0';
        dev->line_len = 0;
        if (strcmp(dev->line, "ready") == 0 && !dev->is_ready)
            on_ready(dev);
    }
}

/* What the gateway logged since it started, at most the last 4 KiB: it could not start. */
static void print_log(const struct dev *dev)
{
    FILE *file = fopen(dev->log_path, "re");
    if (!file)
        return;
    fseek(file, 0, SEEK_END);
    long end = ftell(file), start = end - 4096 > dev->log_start ? end - 4096 : (long)dev->log_start;
    fseek(file, start, SEEK_SET);
    for (int c; (c = fgetc(file)) != EOF;)
        fputc(c, stderr);
    fclose(file);
}

static bool lost_a_port(const struct dev *dev)
{
    for (int i = 0; i < PORT_COUNT; i++)
        if (dev->wanted_ports[i] == 0 && !dev_port_is_free(dev->ports[i]))
            return true;
    return false;
}

static void on_gateway_end(struct dev *dev, int status)
{
    static int races;
    struct oh_error err = {0};
    dev->gateway = 0;
    if (WIFSIGNALED(status)) {
        dev_say("the gateway was ended by signal %d", WTERMSIG(status));
        dev->gateway_was_killed = !dev->leaving;
        dev_leave(dev, CLI_NO);
    } else if (!dev->is_ready && !dev->leaving && lost_a_port(dev) && races++ < PORT_RACES_MAX) {
        enum oh_status again = dev_choose_ports(dev, &err);
        if (again == OH_OK)
            again = dev_configure(dev, &err);
        if (again == OH_OK)
            again = dev_run_gateway(dev, &err);
        if (again == OH_OK)
            return;
        dev_say("%s", err.text);
        dev_leave(dev, CLI_USAGE);
    } else if (!dev->leaving) {
        if (WEXITSTATUS(status) != 0 || !dev->is_ready)
            print_log(dev);
        dev_say("the gateway left with code %d", WEXITSTATUS(status));
        dev_leave(dev, WEXITSTATUS(status));
    }
}

static void reap(struct dev *dev)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == dev->gateway) {
            on_gateway_end(dev, status);
        } else if (pid == dev->demo_pid) {
            dev->demo_pid = 0;
            int code = WIFEXITED(status) ? WEXITSTATUS(status) : CLI_NO;
            if (dev->once)
                dev_leave(dev, code);
            else if (!dev->leaving)
                dev_say("still serving; Ctrl-C stops it");
        }
    }
}

/* ---- PostgreSQL while it runs ---------------------------------------------------------------- */

static void on_postgres_end(struct dev *dev)
{
    int64_t now_us = clock_mono_us();
    close(dev->postgres.pidfd);
    dev->postgres.pidfd = -1;
    if (now_us - dev->postgres_since_us > BACK_OFF_FORGET_MS * 1000LL)
        dev->back_off_ms = 0;
    dev->back_off_ms = dev->back_off_ms == 0                    ? BACK_OFF_FIRST_MS
                       : dev->back_off_ms * 2 < BACK_OFF_MAX_MS ? dev->back_off_ms * 2
                                                                : BACK_OFF_MAX_MS;
    dev->postgres_retry_us = now_us + dev->back_off_ms * 1000;
    dev_say("PostgreSQL has gone; next look at it in %lld ms", (long long)dev->back_off_ms);
}

/* Starts it again, or finds that somebody else did; one that was shut down in order stays down. */
static void retry_postgres(struct dev *dev)
{
    struct oh_error err = {0};
    static bool told;
    if (dev_postgres_was_shut_down(&dev->postgres)) {
        if (!told)
            dev_say(
                "PostgreSQL was shut down in order and stays down; `pg_ctl start` brings it back");
        told = true;
        dev->postgres_retry_us = clock_mono_us() + SHUT_DOWN_POLL_MS * 1000LL;
        return;
    }
    told = false;
    if (dev_postgres_start(&dev->postgres, false, &err) == OH_OK) {
        dev->postgres_retry_us = 0;
        dev->postgres_since_us = clock_mono_us();
        dev_say("PostgreSQL is back");
        return;
    }
    dev->back_off_ms =
        dev->back_off_ms * 2 < BACK_OFF_MAX_MS ? dev->back_off_ms * 2 : BACK_OFF_MAX_MS;
    dev->postgres_retry_us = clock_mono_us() + dev->back_off_ms * 1000;
    dev_say("%s; again in %lld ms", err.text, (long long)dev->back_off_ms);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void on_signal(struct dev *dev)
{
    struct signalfd_siginfo info;
    while (read(dev->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            reap(dev);
        } else {
            dev_say("stopping");
            dev_leave(dev, dev->demo && dev->once ? CLI_NO
                                                  : CLI_OK); /* a demo cut short has no verdict */
        }
    }
}

/* Waits for the next thing to happen, until `until_us` (monotonic; 0 = for ever), and handles it.
 */
static void wait_and_handle(struct dev *dev, int64_t until_us)
{
    struct pollfd fds[] = {{.fd = dev->signal_fd, .events = POLLIN},
                           {.fd = dev->gateway_out_fd, .events = POLLIN},
                           {.fd = dev->postgres.pidfd, .events = POLLIN}};
    int64_t left_us = until_us - clock_mono_us();
    int timeout_ms = until_us == 0 ? -1 : left_us <= 0 ? 0 : (int)(left_us / 1000 + 1);
    if (poll(fds, 3, timeout_ms) < 0)
        return;
    if (fds[1].revents) /* before the signals: a last line may come with SIGCHLD */
        read_gateway_output(dev);
    if (fds[0].revents)
        on_signal(dev);
    if (fds[2].revents && dev->postgres.pidfd >= 0 && !dev->leaving)
        on_postgres_end(dev);
}

void dev_run(struct dev *dev)
{
    while (!dev->leaving) {
        wait_and_handle(dev, dev->postgres_retry_us);
        if (!dev->leaving && dev->postgres_retry_us != 0 &&
            clock_mono_us() >= dev->postgres_retry_us)
            retry_postgres(dev);
    }
}

/* Ends one child and waits for it, with SIGKILL at last. */
static void end_child(struct dev *dev, const pid_t *pid)
{
    if (*pid == 0)
        return;
    kill(*pid, SIGTERM);
    int64_t until_us = clock_mono_us() + GATEWAY_LEAVES_MS * 1000LL;
    while (*pid != 0 && clock_mono_us() < until_us)
        wait_and_handle(dev, until_us);
    if (*pid == 0)
        return;
    dev_say("pid %d does not leave: SIGKILL", (int)*pid);
    kill(*pid, SIGKILL);
    while (*pid != 0)
        wait_and_handle(dev, clock_mono_us() + 1000000);
}

void dev_stop(struct dev *dev)
{
    struct oh_error err = {0};
    end_child(dev, &dev->demo_pid);
    end_child(dev, &dev->gateway);
    if (dev->gateway_was_killed) {
        dev_say("PostgreSQL lives on; the next `oncehook dev` on %s takes it over", dev->directory);
    } else if (dev->postgres.binaries[0] != '\0' &&
               dev_postgres_stop(&dev->postgres, &err) != OH_OK) {
        dev_say("%s", err.text);
        dev->exit_code = CLI_NO;
    }
}

void dev_run_open(struct dev *dev)
{
    /* The server is pg_ctl's orphan: here, and not with whatever is pid 1, it is reaped when it
     * ends, since its successor waits for that. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    dev->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}
