/* Counts what a process does to files below one directory, and injects a fault at the nth operation.

   Preloaded into the processes of a fault (LD_PRELOAD). All of them share one small file, mapped into memory: the
   count, and what happens at which count. Reads, and files elsewhere, neither count nor fail.

   A second file beside it has a line for each inode that is written, `w INODE`, and that has come to the disk with a
   size, `s INODE SIZE`: what a power failure would leave. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { NOTHING, SIGNAL, FAIL_ONCE, FAIL_FROM, JUMP, SHORT, NO_LOCKS };
enum { SPACE = 1, CHANGE = 2 }; /* what an operation does: takes space, changes what is there */

typedef struct {
    int64_t count;  /* operations so far */
    int64_t at;     /* the operation at which the fault happens, from 1; 0 for none */
    int32_t action; /* one of the above */
    int32_t value;  /* number of the signal, errno, or seconds by which the clock jumps */
    int32_t target; /* process that gets the signal, the first that follows the plan; negative for its group */
    int32_t done;   /* whether the fault has happened */
    int32_t twice;  /* whether the signal comes again at the next operation */
    int32_t unused;
    char root[PATH_MAX];
} Plan;

static Plan *plan;
static int written = -1; /* the second file */

void faults_arm(const char *path) {
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s.written", path);
    if (written >= 0) close(written);
    written = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(Plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found == MAP_FAILED) return;
    plan = found;
    int32_t nobody = 0, own = plan->value == SIGINT ? -getpid() : getpid(); /* Ctrl-C goes to the group */
    __atomic_compare_exchange_n(&plan->target, &nobody, own, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_PLAN");
    if (path != NULL) faults_arm(path);
}

static int is_below(const char *path) {
    char whole[PATH_MAX];
    if (path == NULL) return 0;
    if (path[0] != '/') {
        if (getcwd(whole, sizeof whole) == NULL) return 0;
        size_t length = strlen(whole);
        snprintf(whole + length, sizeof whole - length, "/%s", path);
        path = whole;
    }
    size_t length = strlen(plan->root);
    return strncmp(path, plan->root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_file_below(int fd) {
    char link[64], path[PATH_MAX];
    struct stat about;
    if (fstat(fd, &about) != 0 || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static void note(int fd, char what) {
    int before = errno;
    struct stat about;
    char line[64];
    if (written >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        int size = snprintf(line, sizeof line, "%c %ju %jd\n", what, (uintmax_t)about.st_ino, (intmax_t)about.st_size);
        if (write(written, line, size) != size) abort();
    }
    errno = before;
}

/* Whether the operation fails; then errno is set. 2 where it is the first to fail, 3 where half of it is done. */
static int counts(int kind) {
    int before = errno;
    int64_t now = __atomic_add_fetch(&plan->count, 1, __ATOMIC_SEQ_CST);
    if (plan->at == 0 || now < plan->at) return 0;
    if (plan->action == SIGNAL && (now == plan->at || (plan->twice && now == plan->at + 1))) {
        plan->done = 1;
        kill(plan->target, plan->value);
        errno = before;
        return 0;
    }
    if (plan->action == JUMP) {
        plan->done = 1;
        return 0;
    }
    if (plan->action == NO_LOCKS) return 0;
    if (plan->action == SHORT) return now == plan->at ? plan->done = 1, 3 : 0;
    int fails = plan->action == FAIL_FROM || (plan->action == FAIL_ONCE && now == plan->at);
    if (plan->value == ENOSPC || plan->value == EDQUOT) fails = fails && (kind & SPACE);
    if (plan->value == EROFS || plan->value == EACCES) fails = fails && (kind & CHANGE);
    if (!fails) return 0;
    int first = !__atomic_exchange_n(&plan->done, 1, __ATOMIC_SEQ_CST);
    errno = plan->value;
    return first ? 2 : 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* The clock of the wall, which somebody may set; that which only counts is left alone. */
static int64_t jumped(void) { return plan != NULL && plan->action == JUMP && plan->done ? plan->value : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jumped();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int result = real(now, zone);
    if (result == 0 && now != NULL) now->tv_sec += jumped();
    return result;
}

time_t time(time_t *now) {
    REAL(time);
    time_t found = real(NULL) + jumped();
    if (now != NULL) *now = found;
    return found;
}

/* A disk that becomes full takes the first half of what is written. */
#define WRITES(name, signature, call, half)                                     \
    ssize_t name signature {                                                    \
        REAL(name);                                                             \
        if (plan != NULL && is_file_below(fd)) {                                \
            note(fd, 'w');                                                      \
            int failed = counts(SPACE);                                         \
            if (failed == 3 && size > 1) return half;                           \
            if (failed == 3) failed = 0;                                        \
            if (failed == 2 && plan->value == ENOSPC && size > 1) return half;  \
            if (failed) return -1;                                              \
        }                                                                       \
        return call;                                                            \
    }

WRITES(write, (int fd, const void *data, size_t size), real(fd, data, size), real(fd, data, size / 2))
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), real(fd, data, size, at), real(fd, data, size / 2, at))
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), real(fd, data, size, at), real(fd, data, size / 2, at))
WRITES(writev, (int fd, const struct iovec *data, int size), real(fd, data, size), real(fd, data, size / 2))

static int synced(int result, int fd) {
    if (result == 0 && plan != NULL && is_file_below(fd)) note(fd, 's');
    return result;
}

/* A file system without locks, from the operation on. */
int flock(int fd, int operation) {
    REAL(flock);
    if (plan != NULL && plan->action == NO_LOCKS && plan->count >= plan->at - 1) {
        plan->done = 1;
        errno = ENOLCK;
        return -1;
    }
    return real(fd, operation);
}

#define CHANGES(result, name, signature, call, is_ours, kind)    \
    result name signature {                                      \
        REAL(name);                                              \
        int failed = plan != NULL && (is_ours) ? counts(kind) : 0; \
        if (failed && failed != 3) return -1;                    \
        return call;                                             \
    }

CHANGES(int, rename, (const char *from, const char *to), real(from, to), is_below(to), CHANGE)
CHANGES(int, renameat, (int a, const char *from, int b, const char *to), real(a, from, b, to), is_below(to), CHANGE)
CHANGES(int, renameat2, (int a, const char *from, int b, const char *to, unsigned int flags), real(a, from, b, to, flags), is_below(to), CHANGE)
CHANGES(int, link, (const char *from, const char *to), real(from, to), is_below(to), SPACE | CHANGE)
CHANGES(int, symlink, (const char *from, const char *to), real(from, to), is_below(to), SPACE | CHANGE)
CHANGES(int, unlink, (const char *path), real(path), is_below(path), CHANGE)
CHANGES(int, unlinkat, (int at, const char *path, int flags), real(at, path, flags), path[0] == '/' || at == AT_FDCWD ? is_below(path) : is_file_below(at), CHANGE)
CHANGES(int, rmdir, (const char *path), real(path), is_below(path), CHANGE)
CHANGES(int, mkdir, (const char *path, mode_t mode), real(path, mode), is_below(path), SPACE | CHANGE)
CHANGES(int, mkdirat, (int at, const char *path, mode_t mode), real(at, path, mode), is_below(path), SPACE | CHANGE)
CHANGES(int, fsync, (int fd), synced(real(fd), fd), is_file_below(fd), 0)
CHANGES(int, fdatasync, (int fd), synced(real(fd), fd), is_file_below(fd), 0)
CHANGES(int, ftruncate, (int fd, off_t size), real(fd, size), is_file_below(fd), SPACE)
CHANGES(int, ftruncate64, (int fd, off64_t size), real(fd, size), is_file_below(fd), SPACE)

static int opened(int is_ours, int fd) {
    if (is_ours && fd >= 0) note(fd, 'w');
    return fd;
}

static int writes(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY; }

#define OPENS(name)                                                                              \
    int name(const char *path, int flags, ...) {                                                 \
        REAL(name);                                                                              \
        va_list rest;                                                                            \
        va_start(rest, flags);                                                                   \
        mode_t mode = va_arg(rest, mode_t);                                                      \
        va_end(rest);                                                                            \
        int is_ours = plan != NULL && writes(flags) && is_below(path);                           \
        int failed = is_ours ? counts(SPACE | CHANGE) : 0;                                       \
        if (failed && failed != 3) return -1;                                                    \
        return opened(is_ours, real(path, flags, mode));                                         \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                           \
    int name(int at, const char *path, int flags, ...) {                                         \
        REAL(name);                                                                              \
        va_list rest;                                                                            \
        va_start(rest, flags);                                                                   \
        mode_t mode = va_arg(rest, mode_t);                                                      \
        va_end(rest);                                                                            \
        int is_ours = plan != NULL && writes(flags) && is_below(path);                           \
        int failed = is_ours ? counts(SPACE | CHANGE) : 0;                                       \
        if (failed && failed != 3) return -1;                                                    \
        return opened(is_ours, real(at, path, flags, mode));                                     \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define FOPENS(name)                                                                                      \
    FILE *name(const char *path, const char *mode) {                                                      \
        REAL(name);                                                                                       \
        int is_ours = plan != NULL && mode[0] != 'r' && is_below(path);                                   \
        int failed = is_ours ? counts(SPACE | CHANGE) : 0;                                                \
        if (failed && failed != 3) return NULL;                                                           \
        FILE *file = real(path, mode);                                                                    \
        if (file != NULL) opened(is_ours, fileno(file));                                                  \
        return file;                                                                                      \
    }
FOPENS(fopen)
FOPENS(fopen64)
