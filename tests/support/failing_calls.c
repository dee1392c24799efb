/* Preloaded by test_faults.py into a process of one thread: the calls of the C library that touch
   files, of which one can be made to fail, and a record of all that were made. Not among them is
   lseek, which on a regular file moves a number and touches nothing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Set by the test. Calls count, fail and are recorded while `watching` is not 0. */
int watching = 0;
/* The call that fails, counted from here, and with which errno; 0 for none. */
long calls_until_failure = 0;
int failure = 0;
/* With which errno all later ones fail; 0: they don't. */
int failure_after = 0;
/* The one that is chosen writes half of what it should, and does not fail. */
int cut = 0;
/* How many have failed or been cut, and what the first was. */
long calls_failed = 0;
char failed_call[512];
/* A line for each call that was made: its name, its result, its arguments. */
char record[1 << 20];
long recorded = 0;

static void put(const char* text) {
  long length = strlen(text);
  if (recorded + length >= (long)sizeof record) return;
  memcpy(record + recorded, text, length);
  recorded += length;
}

static void note(const char* name, long result, const char* form, ...) {
  if (!watching) return;
  char line[9000];
  int error = errno;
  snprintf(line, sizeof line, "%s\t%ld\t", name, result);
  put(line);
  va_list arguments;
  va_start(arguments, form);
  vsnprintf(line, sizeof line, form, arguments);
  va_end(arguments);
  put(line);
  put("\n");
  errno = error;
}

/* Whether the call fails; it has a name and an argument for the test's messages. */
static int chosen(const char* name, const char* path, int number) {
  if (!watching) return 0;
  if (calls_failed == 0 && (calls_until_failure == 0 || --calls_until_failure > 0)) return 0;
  if (calls_failed > 0 && failure_after == 0) return 0;
  if (calls_failed++ == 0) {
    snprintf(failed_call, sizeof failed_call, "%s %s", name, path != NULL ? path : "");
    if (path == NULL) snprintf(failed_call, sizeof failed_call, "%s %d", name, number);
    if (cut) return 2;
    errno = failure;
  } else {
    errno = failure_after;
  }
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define UNNAMED(flags) (((flags)&O_TMPFILE) == O_TMPFILE)
/* In a call that can't be cut, being chosen for that is nothing. */
#define FAIL(result, path, number) \
  if (chosen(__func__, path, number) == 1) return result

static int mode_of(int flags, va_list* arguments) {
  return flags & (O_CREAT | __O_TMPFILE) ? va_arg(*arguments, int) : 0;
}

#define OPEN(name)                                                                 \
  int name(const char* path, int flags, ...) {                                     \
    va_list arguments;                                                             \
    va_start(arguments, flags);                                                    \
    int mode = mode_of(flags, &arguments);                                         \
    va_end(arguments);                                                             \
    if (chosen(UNNAMED(flags) ? "open unnamed" : "open", path, 0) == 1) return -1; \
    int number = REAL(name)(path, flags, mode);                                    \
    note("open", number, "%d\t%s", flags, path);                                   \
    return number;                                                                 \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                               \
  int name(int folder, const char* path, int flags, ...) {                         \
    va_list arguments;                                                             \
    va_start(arguments, flags);                                                    \
    int mode = mode_of(flags, &arguments);                                         \
    va_end(arguments);                                                             \
    if (chosen(UNNAMED(flags) ? "open unnamed" : "open", path, 0) == 1) return -1; \
    int number = REAL(name)(folder, path, flags, mode);                            \
    note("open", number, "%d\t%s", flags, path);                                   \
    return number;                                                                 \
  }
OPENAT(openat)
OPENAT(openat64)

int close(int number) {
  int fails = chosen("close", NULL, number) == 1;
  int error = errno;
  /* Linux gives the number back also where closing fails. */
  int result = REAL(close)(number);
  if (fails) errno = error;
  note("close", fails ? -1 : result, "%d", number);
  return fails ? -1 : result;
}

static void note_bytes(int number, long at, const char* data, long size) {
  if (!watching || size < 0) return;
  note("write", size, "%d\t%ld\t", number, at);
  --recorded; /* the bytes come before the end of the line */
  char digits[3];
  for (long i = 0; i < size; ++i) {
    snprintf(digits, sizeof digits, "%02x", (unsigned char)data[i]);
    put(digits);
  }
  put("\n");
}

ssize_t write(int number, const void* data, size_t size) {
  int how = chosen("write", NULL, number);
  if (how == 1) return -1;
  if (how == 2 && size > 1) size /= 2;
  long at = watching ? REAL(lseek)(number, 0, SEEK_CUR) : 0;
  ssize_t result = REAL(write)(number, data, size);
  note_bytes(number, at, data, result);
  return result;
}

#define PWRITE(name, offset)                                           \
  ssize_t name(int number, const void* data, size_t size, offset at) { \
    int how = chosen("pwrite", NULL, number);                          \
    if (how == 1) return -1;                                           \
    if (how == 2 && size > 1) size /= 2;                               \
    ssize_t result = REAL(name)(number, data, size, at);               \
    note_bytes(number, at, data, result);                              \
    return result;                                                     \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int number, const struct iovec* parts, int count) {
  FAIL(-1, NULL, number);
  long at = watching ? REAL(lseek)(number, 0, SEEK_CUR) : 0;
  ssize_t result = REAL(writev)(number, parts, count), left = result;
  for (int i = 0; i < count && left > 0; ++i) {
    long size = left < (ssize_t)parts[i].iov_len ? left : (ssize_t)parts[i].iov_len;
    note_bytes(number, at, parts[i].iov_base, size);
    at += size;
    left -= size;
  }
  return result;
}

ssize_t read(int number, void* data, size_t size) {
  FAIL(-1, NULL, number);
  return REAL(read)(number, data, size);
}

/* Calls with a number and no more than one further argument. */
#define NUMBER(name, parameters, arguments) \
  int name parameters {                     \
    FAIL(-1, NULL, number);                 \
    int result = REAL(name) arguments;      \
    note(#name, result, "%d", number);      \
    return result;                          \
  }
NUMBER(fchmod, (int number, mode_t mode), (number, mode))
NUMBER(flock, (int number, int how), (number, how))
NUMBER(fstat, (int number, struct stat* to), (number, to))
NUMBER(fstat64, (int number, struct stat64* to), (number, to))

/* Nothing waits for the disk: no power is lost here, and a thousand saves would take long. */
#define SYNCHRONISE(name)           \
  int name(int number) {            \
    FAIL(-1, NULL, number);         \
    note("fsync", 0, "%d", number); \
    return 0;                       \
  }
SYNCHRONISE(fsync)
SYNCHRONISE(fdatasync)

#define PATH(name, parameters, arguments) \
  int name parameters {                   \
    FAIL(-1, path, 0);                    \
    int result = REAL(name) arguments;    \
    note(#name, result, "%s", path);      \
    return result;                        \
  }
PATH(stat, (const char* path, struct stat* to), (path, to))
PATH(stat64, (const char* path, struct stat64* to), (path, to))
PATH(lstat, (const char* path, struct stat* to), (path, to))
PATH(lstat64, (const char* path, struct stat64* to), (path, to))
PATH(unlink, (const char* path), (path))
PATH(unlinkat, (int folder, const char* path, int flags), (folder, path, flags))

#define TRUNCATE(name, offset)                         \
  int name(int number, offset size) {                  \
    FAIL(-1, NULL, number);                            \
    int result = REAL(name)(number, size);             \
    note("truncate", result, "%d\t%ld", number, size); \
    return result;                                     \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define PATHS(name, kind, parameters, arguments) \
  int name parameters {                          \
    FAIL(-1, to, 0);                             \
    int result = REAL(name) arguments;           \
    note(kind, result, "%s\t%s", path, to);      \
    return result;                               \
  }
PATHS(rename, "rename", (const char* path, const char* to), (path, to))
PATHS(renameat, "rename", (int from, const char* path, int into, const char* to),
      (from, path, into, to))
PATHS(link, "link", (const char* path, const char* to), (path, to))
PATHS(linkat, "link", (int from, const char* path, int into, const char* to, int flags),
      (from, path, into, to, flags))

DIR* opendir(const char* path) {
  FAIL(NULL, path, 0);
  return REAL(opendir)(path);
}

struct dirent64* readdir64(DIR* folder) {
  FAIL(NULL, NULL, dirfd(folder));
  return REAL(readdir64)(folder);
}
