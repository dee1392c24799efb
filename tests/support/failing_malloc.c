/* Preloaded by test_memory.py into a process of one thread: malloc and its kin, of which one call can
   be made to fail. */
#include <errno.h>
#include <stddef.h>

/* Set by the test: the allocation that fails, counted from here; 0 for none. */
long allocations_until_failure = 0;
/* How many have failed. */
long allocations_failed = 0;

static int fails(void) {
  if (allocations_until_failure == 0 || --allocations_until_failure > 0) return 0;
  ++allocations_failed;
  return 1;
}

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
