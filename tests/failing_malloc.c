/* Preloaded by test_memory.py: malloc and its kin, of which one call can be made to fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>

static __thread long until_failure; /* the allocation of this thread that fails; 0 for none */

/* From here on the n-th allocation fails, 0 for none. Returns how many were still to come. */
long fail_allocation(long n) {
  const long left = until_failure;
  until_failure = n;
  return left;
}

static int fails(void) { return until_failure > 0 && --until_failure == 0; }

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
  if (!fails()) return __libc_malloc(size);
  errno = ENOMEM;
  return NULL;
}

void *calloc(size_t count, size_t size) {
  if (!fails()) return __libc_calloc(count, size);
  errno = ENOMEM;
  return NULL;
}

void *realloc(void *old, size_t size) {
  if (!fails()) return __libc_realloc(old, size);
  errno = ENOMEM;
  return NULL;
}

void *aligned_alloc(size_t alignment, size_t size) {
  if (!fails()) return __libc_memalign(alignment, size);
  errno = ENOMEM;
  return NULL;
}

void *memalign(size_t alignment, size_t size) { return aligned_alloc(alignment, size); }

int posix_memalign(void **to, size_t alignment, size_t size) {
  if (fails()) return ENOMEM;
  *to = __libc_memalign(alignment, size);
  return *to == NULL ? ENOMEM : 0;
}
