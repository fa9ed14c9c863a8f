// parallel.h — the one place where threads are started.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace e3d {

// Calls body(begin, end) on chunks of at most `grain` items that cover [0, n), on up to `threads`
// threads. The chunks depend on n and grain alone, so a body that writes only its own items gives
// the same result on any number of threads. Threads live for the call: nothing global, nothing to
// break after a fork. The first exception thrown by a body is rethrown here.
template <class Body>
void parallel_for(int n, int threads, int grain, const Body& body) {
  if (n <= 0) return;
  const int chunks = (n + grain - 1) / grain;
  const int workers = std::min(threads, chunks);
  if (workers <= 1) {
    for (int c = 0; c < chunks; ++c) body(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  std::atomic<int> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&] {
    try {
      for (int c = next++; c < chunks; c = next++) body(c * grain, std::min(n, (c + 1) * grain));
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next = chunks;
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(workers - 1);
  try {
    for (int w = 1; w < workers; ++w) pool.emplace_back(work);
  } catch (const std::system_error&) {
    // no more threads to be had: those that started, and this one, do all the work
  }
  work();
  for (auto& thread : pool) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace e3d
