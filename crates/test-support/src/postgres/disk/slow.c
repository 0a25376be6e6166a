/*
 * Stands between a server and its disk (LD_PRELOAD) and waits before each call, as a slow disk does. How long is in the
 * file that SLOW_DISK names, microseconds as two native 32-bit numbers: before a flush, and before a read or a write at a
 * position. It is mapped, so that a change counts from the next call on, in every process of the server.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FLUSH, TRANSFER, BOTH };

static const volatile uint32_t *micros;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("SLOW_DISK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, BOTH * sizeof(uint32_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        micros = mapped;
}

static void delay(int kind) {
    uint32_t left = micros ? micros[kind] : 0;
    if (left == 0)
        return;
    int before = errno;
    struct timespec time = {left / 1000000, (left % 1000000) * 1000L};
    /* The server's processes wake each other by signals. */
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
    errno = before;
}

#define SLOW(kind, type, name, parameters, ...)                                                                       \
    type name parameters {                                                                                            \
        static type(*real) parameters;                                                                                \
        if (!real)                                                                                                    \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                       \
        delay(kind);                                                                                                  \
        return real(__VA_ARGS__);                                                                                     \
    }

SLOW(FLUSH, int, fsync, (int file), file)
SLOW(FLUSH, int, fdatasync, (int file), file)
SLOW(TRANSFER, ssize_t, pread, (int file, void *to, size_t size, off_t at), file, to, size, at)
SLOW(TRANSFER, ssize_t, pread64, (int file, void *to, size_t size, off64_t at), file, to, size, at)
SLOW(TRANSFER, ssize_t, preadv, (int file, const struct iovec *to, int count, off_t at), file, to, count, at)
SLOW(TRANSFER, ssize_t, preadv64, (int file, const struct iovec *to, int count, off64_t at), file, to, count, at)
SLOW(TRANSFER, ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), file, from, size, at)
SLOW(TRANSFER, ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), file, from, size, at)
SLOW(TRANSFER, ssize_t, pwritev, (int file, const struct iovec *from, int count, off_t at), file, from, count, at)
SLOW(TRANSFER, ssize_t, pwritev64, (int file, const struct iovec *from, int count, off64_t at), file, from, count, at)
