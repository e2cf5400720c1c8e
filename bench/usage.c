/* SPDX-License-Identifier: Apache-2.0 */
/* CPU and memory of process trees, from proc(5). */
#include "usage.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PROCESSES_MAX = 8192 };

struct process {
    pid_t pid, parent;
    uint64_t ticks, ticks_of_ended_children, rss_pages;
    bool inside; /* belongs to the tree */
};

static int64_t us_of_ticks(uint64_t ticks)
{
    return (int64_t)(ticks * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* Reads /proc/PID/stat. The command's name may hold spaces and brackets: fields count from the last
 * closing bracket. */
static bool read_process(const char *pid, struct process *out)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    const char *rest = strrchr(text, ')');
    if (!rest)
        return false;
    uint64_t user, system, child_user, child_system, rss_pages;
    int parent;
    if (sscanf(rest + 1,
               " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %*d %*d %*d %*d %*u %*u %" SCNu64,
               &parent, &user, &system, &child_user, &child_system, &rss_pages) != 6)
        return false;
    *out = (struct process){.pid = (pid_t)strtol(pid, NULL, 10),
                            .parent = parent,
                            .ticks = user + system,
                            .ticks_of_ended_children = child_user + child_system,
                            .rss_pages = rss_pages};
    return true;
}

static size_t read_processes(struct process *processes)
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    if (!proc)
        return 0;
    for (struct dirent *entry; count < PROCESSES_MAX && (entry = readdir(proc));)
        if (isdigit((unsigned char)entry->d_name[0]) &&
            read_process(entry->d_name, &processes[count]))
            count++;
    closedir(proc);
    return count;
}

/* Marks the processes whose parent is marked, until none is new: /proc has no order to rely on. */
static void mark_tree(struct process *processes, size_t count, pid_t root)
{
    for (size_t i = 0; i < count; i++)
        processes[i].inside = processes[i].pid == root;
    for (bool grew = true; grew;) {
        grew = false;
        for (size_t i = 0; i < count; i++)
            for (size_t j = 0; !processes[i].inside && j < count; j++)
                if (processes[j].inside && processes[j].pid == processes[i].parent)
                    grew = processes[i].inside = true;
    }
}

/* Adds up the tree below `root`; false when it is not there. */
static bool sum_tree(pid_t root, uint64_t *ticks, uint64_t *rss_pages)
{
    struct process *processes = calloc(PROCESSES_MAX, sizeof(*processes));
    if (!processes)
        return false;
    size_t count = read_processes(processes);
    mark_tree(processes, count, root);
    bool found = false;
    *ticks = *rss_pages = 0;
    for (size_t i = 0; i < count; i++) {
        if (!processes[i].inside)
            continue;
        found = found || processes[i].pid == root;
        *ticks += processes[i].ticks + processes[i].ticks_of_ended_children;
        *rss_pages += processes[i].rss_pages;
    }
    free(processes);
    return found;
}

int64_t usage_tree_cpu_us(pid_t root)
{
    uint64_t ticks, rss_pages;
    return sum_tree(root, &ticks, &rss_pages) ? us_of_ticks(ticks) : -1;
}

int64_t usage_tree_rss_bytes(pid_t root)
{
    uint64_t ticks, rss_pages;
    return sum_tree(root, &ticks, &rss_pages) ? (int64_t)rss_pages * sysconf(_SC_PAGESIZE) : -1;
}

int64_t usage_self_cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

int64_t usage_machine_cpu_us(void)
{
    FILE *file = fopen("/proc/stat", "re");
    if (!file)
        return -1;
    uint64_t user, nice, system, irq, softirq;
    int read = fscanf(file, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %" SCNu64 " %" SCNu64,
                      &user, &nice, &system, &irq, &softirq);
    fclose(file);
    return read == 5 ? us_of_ticks(user + nice + system + irq + softirq) : -1;
}
