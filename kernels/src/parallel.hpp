// Fork and join over [0, count): every thread, the caller among them, takes the next part until none is left. So a
// thread that starts late, or loses its core to another program, holds nobody up.
//
// Threads live for one call: no pool that a fork() of the process would leave dead.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace edgecxr {

constexpr int64_t kPixelsPerThread = 1 << 18;  // less work than this is not worth starting a thread for
constexpr int64_t kPartsPerThread = 4;

inline int64_t useful_threads(int64_t wanted, int64_t parts, int64_t pixels) {
  return std::max<int64_t>(1, std::min({wanted, parts, pixels / kPixelsPerThread}));
}

// Calls work(begin, end, thread) for parts of [0, count), thread in [0, threads). What it throws is thrown here, after
// all threads ended.
template <class Work>
void in_parallel(int64_t count, int64_t threads, const Work& work) {
  const int64_t parts = threads == 1 ? 1 : std::min(count, threads * kPartsPerThread);
  std::atomic<int64_t> next{0};
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
  const auto share = [&](int64_t thread) {
    try {
      for (int64_t part; (part = next++) < parts;) work(count * part / parts, count * (part + 1) / parts, thread);
    } catch (...) {
      failures[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads));
  try {
    for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(share, thread);
  } catch (const std::system_error&) {
    // The system refuses more threads: those that run do what is left.
  }
  share(0);
  for (auto& thread : others) thread.join();
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace edgecxr
