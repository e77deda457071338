// A disk that loses what was not synced: every fsync copies the file to a mirror, which is what a power cut leaves.
// A file named "eio" beside the mirror makes syncs fail, one named "enospc" makes writes fail, and one named "bad-"
// and a name makes reading the file of that name fail.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *store, *mirror;

__attribute__((constructor)) static void begin(void) {
    store = getenv("TIDEWIRE_TEST_DIRECTORY");
    mirror = getenv("TIDEWIRE_TEST_MIRROR");
}

// The name below the store of an open file: "" for the directory itself, NULL for others.
static const char *name_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0 || !store) return NULL;
    path[length] = 0;
    size_t prefix = strlen(store);
    if (strncmp(path, store, prefix)) return NULL;
    if (!path[prefix]) return path + prefix;
    return path[prefix] == '/' ? path + prefix + 1 : NULL;
}

static int is_asked(const char *what) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.%s", mirror, what);
    return access(path, F_OK) == 0;
}

static ssize_t (*real(const char *name))() { return (ssize_t(*)())dlsym(RTLD_NEXT, name); }

// Threads sync at the same time: the mirror is changed by one of them, and an older copy never follows a newer one.
static pthread_mutex_t mirror_lock = PTHREAD_MUTEX_INITIALIZER;

static void copy(int from, const char *name) {
    char path[PATH_MAX], part[PATH_MAX], buffer[65536];
    snprintf(path, sizeof path, "%s/%s", mirror, name);
    snprintf(part, sizeof part, "%s.part", mirror);
    int to = open(part, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    off_t at = 0;
    ssize_t length;
    struct stat stat;
    // What is written meanwhile is for the next sync: whoever copies that, too, may follow a fast writer for ever.
    fstat(from, &stat);
    while (at < stat.st_size && (length = pread(from, buffer, sizeof buffer, at)) > 0) {
        if (real("write")(to, buffer, length) != length) abort();
        at += length;
    }
    close(to);
    rename(part, path);
}

// New files are there, but empty; files that were deleted are gone.
static void copy_names(void) {
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *names = opendir(store);
    while (names && (entry = readdir(names))) {
        snprintf(path, sizeof path, "%s/%s", mirror, entry->d_name);
        if (entry->d_type == DT_REG && !strstr(entry->d_name, "-shm"))
            close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    if (names) closedir(names);
    names = opendir(mirror);
    while (names && (entry = readdir(names))) {
        snprintf(path, sizeof path, "%s/%s", store, entry->d_name);
        if (entry->d_type == DT_REG && access(path, F_OK)) {
            snprintf(path, sizeof path, "%s/%s", mirror, entry->d_name);
            unlink(path);
        }
    }
    if (names) closedir(names);
}

static int sync_with(const char *call, int fd) {
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name || !mirror) return (int)real(call)(fd);
    if (is_asked("eio")) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&mirror_lock);
    if (!*name) {
        copy_names();
    } else {
        // The descriptor may be for writing only.
        int readable = open(path, O_RDONLY);
        if (readable >= 0) {
            copy(readable, name);
            close(readable);
        }
    }
    pthread_mutex_unlock(&mirror_lock);
    return 0;
}

int fsync(int fd) { return sync_with("fsync", fd); }
int fdatasync(int fd) { return sync_with("fdatasync", fd); }

static int is_bad(int fd) {
    char path[PATH_MAX], what[PATH_MAX];
    const char *name = mirror ? name_of(fd, path) : NULL;
    if (!name) return 0;
    snprintf(what, sizeof what, "bad-%s", name);
    if (!is_asked(what)) return 0;
    errno = EIO;
    return 1;
}

ssize_t pread(int fd, void *bytes, size_t length, off_t at) {
    return is_bad(fd) ? -1 : real("pread")(fd, bytes, length, at);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
    return is_bad(fd) ? -1 : real("pread64")(fd, bytes, length, at);
}

static int is_refused(int fd) {
    char path[PATH_MAX];
    if (!mirror || !is_asked("enospc") || !name_of(fd, path)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    return is_refused(fd) ? -1 : real("write")(fd, bytes, length);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    return is_refused(fd) ? -1 : real("pwrite")(fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    return is_refused(fd) ? -1 : real("pwrite64")(fd, bytes, length, at);
}
