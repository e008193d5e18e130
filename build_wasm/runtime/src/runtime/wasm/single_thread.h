// Included before everything else: the mutexes that zig's wasi libc++ leaves out, since it has no threads.
#ifndef WEBGEMMA_SINGLE_THREAD_H_
#define WEBGEMMA_SINGLE_THREAD_H_

#ifdef __cplusplus
#include <mutex>

namespace std {

class mutex {
 public:
  void lock() {}
  bool try_lock() { return true; }
  void unlock() {}
};

class recursive_mutex : public mutex {};

template <typename... Mutexes>
class scoped_lock {
 public:
  explicit scoped_lock(Mutexes&...) {}
};

}  // namespace std
#endif

#endif  // WEBGEMMA_SINGLE_THREAD_H_
