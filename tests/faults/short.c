/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded, it cuts writes short, which strace cannot: of one call, in each thread, the FIRSTth
 * and each STEPth behind it writes half of its bytes and says so, as any kernel may. Then the
 * thread's next one may fail, or the process is killed. machine/sweep.py gives the orders, through
 * a file that both map, and reads the log, which has strace's words: THREAD<NAME> CALL() = RESULT,
 * with (INJECTED) behind what was cut. The only files that the gateway pwrites to are its spool's.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PARTS_MAX = 64 }; /* of a writev that is cut; what is behind them is cut off too */

struct order {
    _Atomic uint32_t number; /* 0: none. With a new one all threads count from 1 again */
    uint32_t first, step;    /* step 0: once */
    int32_t then;            /* errno of the thread's next one; -1: SIGKILL; 0: nothing */
    char call[16];
};

enum turn { NOT_MINE, WHOLE, HALF, FAILS };

static const struct order *order;
static int log_fd = -1;

__attribute__((constructor)) static void load(void)
{
    const char *orders = getenv("ONCEHOOK_SHORT"), *log = getenv("ONCEHOOK_SHORT_LOG");
    int fd = orders && log ? open(orders, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd >= 0 ? mmap(NULL, sizeof(*order), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (at == MAP_FAILED)
        return;
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    order = at;
    close(fd);
}

/* What becomes of this call. One of less than two bytes has no half. */
static enum turn take_turn(const char *call, size_t bytes)
{
    static __thread uint32_t number, calls;
    static __thread bool was_cut;
    uint32_t now = order ? atomic_load(&order->number) : 0;
    if (now == 0 || bytes < 2 || strcmp(call, order->call) != 0)
        return NOT_MINE;
    if (number != now) {
        number = now;
        calls = 0;
        was_cut = false;
    }
    calls++;
    bool fails = was_cut && order->then > 0;
    was_cut = !fails && calls >= order->first &&
              (order->step ? (calls - order->first) % order->step == 0 : calls == order->first);
    return fails ? FAILS : was_cut ? HALF : WHOLE;
}

/* A half that the kernel refused, as a full socket does, is none. */
static ssize_t end_turn(enum turn turn, const char *call, ssize_t done)
{
    char name[16] = "";
    bool is_half = turn == HALF && done > 0;
    int number = turn == FAILS ? order->then : errno;
    if (turn == NOT_MINE)
        return done;
    prctl(PR_GET_NAME, name);
    dprintf(log_fd, "%d<%s> %s() = %zd%s\n", gettid(), name, call, done,
            is_half ? " (INJECTED)" : "");
    if (is_half && order->then < 0)
        kill(getpid(), SIGKILL);
    errno = number;
    return done;
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    enum turn turn = take_turn("pwrite64", n);
    size_t part = turn == HALF ? n / 2 : n;
    return end_turn(turn, "pwrite64",
                    turn == FAILS ? -1 : syscall(SYS_pwrite64, fd, buf, part, offset));
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return pwrite64(fd, buf, n, offset);
}

ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr,
               socklen_t addr_len)
{
    enum turn turn = take_turn("sendto", n);
    size_t part = turn == HALF ? n / 2 : n;
    return end_turn(turn, "sendto",
                    turn == FAILS ? -1 : syscall(SYS_sendto, fd, buf, part, flags, addr, addr_len));
}

ssize_t send(int fd, const void *buf, size_t n, int flags)
{
    return sendto(fd, buf, n, flags, NULL, 0);
}

ssize_t writev(int fd, const struct iovec *iovec, int count)
{
    struct iovec half[PARTS_MAX];
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += iovec[i].iov_len;
    enum turn turn = take_turn("writev", bytes);
    if (turn == HALF) {
        size_t left = bytes / 2;
        int used = 0;
        for (; used < count && used < PARTS_MAX && left > 0; used++) {
            half[used] = iovec[used];
            half[used].iov_len = left < half[used].iov_len ? left : half[used].iov_len;
            left -= half[used].iov_len;
        }
        iovec = half;
        count = used;
    }
    return end_turn(turn, "writev", turn == FAILS ? -1 : syscall(SYS_writev, fd, iovec, count));
}
