/* SPDX-License-Identifier: Apache-2.0 */
/* What a process and all below it cost: CPU time and memory, read from /proc. */
#ifndef BENCH_USAGE_H
#define BENCH_USAGE_H

#include <stdint.h>
#include <sys/types.h>

/* CPU time in µs, user and system, of `root`, its descendants, and those of them that have ended
 * and were waited for. Resolution: one clock tick (10 ms). -1 when `root` is not there. */
int64_t usage_tree_cpu_us(pid_t root);

/* Resident memory of `root` and its descendants, in bytes; what they share counts for each. -1 when
 * `root` is not there. */
int64_t usage_tree_rss_bytes(pid_t root);

/* CPU time in µs that this process itself has used. */
int64_t usage_self_cpu_us(void);

/* Time in µs that all cores were busy, interrupts and the kernel's own threads included. */
int64_t usage_machine_cpu_us(void);

#endif
