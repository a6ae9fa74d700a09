// malloc and its kin, counted: for programs of their own that prove that something allocates nothing (the sanitizers have
// their own malloc). To be included by the file with main() alone.
#pragma once
#include <cerrno>
#include <cstdlib>

namespace {
long calls = 0;
}

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) { return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED), __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED), __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) { return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED), __libc_realloc(p, n); }
void* aligned_alloc(std::size_t alignment, std::size_t n) { return __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED), __libc_memalign(alignment, n); }
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
  __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
  return (*p = __libc_memalign(alignment, n)) ? 0 : ENOMEM;
}
}
