/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: a program runs with exactly the rights it should have, and its complaint is not lost. */
#include "cli/dev_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXEC_FAILED = 127 };

enum oh_status dev_user_find(struct dev_user *user, struct oh_error *err)
{
    *user = (struct dev_user){.drops_root = geteuid() == 0, .uid = geteuid(), .gid = getegid()};
    if (!user->drops_root)
        return OH_OK;
    const struct passwd *entry = getpwnam("postgres");
    if (!entry)
        return oh_fail(err, OH_SYSTEM, "there is no user 'postgres': is PostgreSQL installed?");
    user->uid = entry->pw_uid;
    user->gid = entry->pw_gid;
    return OH_OK;
}

const char *dev_path(char out[PATH_MAX], const char *directory, const char *name)
{
    snprintf(out, PATH_MAX, "%.*s/%.250s", DEV_DIRECTORY_MAX, directory, name);
    return out;
}

static void leave_group(void)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setpgid(0, 0);
}

void dev_child_begin(pid_t parent, int death_signal)
{
    leave_group();
    prctl(PR_SET_PDEATHSIG, death_signal);
    if (getppid() != parent)
        raise(death_signal); /* dev died before prctl() */
}

/* PostgreSQL's tools must not see PGDATA, PGPORT or a locale of somebody else. */
static void clean_environment(void)
{
    static const char *const names[] = {
        "PGDATA",     "PGHOST",    "PGHOSTADDR", "PGPORT",    "PGUSER", "PGDATABASE", "PGPASSWORD",
        "PGPASSFILE", "PGSERVICE", "PGOPTIONS",  "PGAPPNAME", "LANG",   "LANGUAGE"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    setenv("LC_ALL", "C", 1);
}

static void run_child(const struct dev_user *user, const char *directory, const char *const argv[],
                      int output_fd)
{
    leave_group();
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
        dup2(output_fd, STDERR_FILENO) < 0)
        _exit(EXEC_FAILED);
    if (user) {
        clean_environment();
        if (user->drops_root &&
            (setgroups(0, NULL) < 0 || setresgid(user->gid, user->gid, user->gid) < 0 ||
             setresuid(user->uid, user->uid, user->uid) < 0)) {
            dprintf(STDERR_FILENO, "cannot become uid %u: %s\n", (unsigned)user->uid,
                    strerror(errno));
            _exit(EXEC_FAILED);
        }
    }
    umask(077);
    if (chdir(directory) < 0) {
        dprintf(STDERR_FILENO, "%s: %s\n", directory, strerror(errno));
        _exit(EXEC_FAILED);
    }
    execvp(argv[0], (char *const *)(const void *)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(EXEC_FAILED);
}

/* Reads to the end; what does not fit pushes out what came first. */
static void read_output(int fd, struct dev_output *output)
{
    size_t have = 0, size = sizeof(output->text) - 1;
    for (;;) {
        if (have == size) {
            memmove(output->text, output->text + size / 2, size - size / 2);
            have = size - size / 2;
        }
        ssize_t n = read(fd, output->text + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    output->text[have] = '\0';
}

static const char *last_line(char *text)
{
    size_t len = strlen(text);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
        text[--len] = '\0';
    const char *newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}

enum oh_status dev_exec(const struct dev_user *user, const char *directory,
                        const char *const argv[], struct dev_output *output, struct oh_error *err)
{
    struct dev_output own;
    if (!output)
        output = &own;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return oh_fail(err, OH_SYSTEM, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0)
        run_child(user, directory, argv, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return oh_fail(err, OH_SYSTEM, "fork: %s", strerror(errno));
    }
    read_output(ends[0], output);
    close(ends[0]);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return OH_OK;
    return oh_fail(err, OH_SYSTEM, "%s failed: %s", argv[0], last_line(output->text));
}
