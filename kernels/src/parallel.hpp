// Fork and join over [0, count): contiguous parts, one thread each, the caller takes the first.
//
// Threads live for one call: no pool that a fork() of the process would leave dead.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace edgecxr {

constexpr int64_t kPixelsPerThread = 1 << 18;  // less work than this is not worth starting a thread for

inline int64_t useful_threads(int64_t wanted, int64_t parts, int64_t pixels) {
  return std::max<int64_t>(1, std::min({wanted, parts, pixels / kPixelsPerThread}));
}

// Calls work(begin, end, index) for `threads` parts of [0, count). What a part throws is thrown here, after all ended.
template <class Work>
void in_parallel(int64_t count, int64_t threads, const Work& work) {
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(threads));
  const auto part = [&](int64_t index) {
    try {
      work(count * index / threads, count * (index + 1) / threads, index);
    } catch (...) {
      failures[static_cast<std::size_t>(index)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads));
  int64_t started = 1;
  try {
    for (; started < threads; ++started) others.emplace_back(part, started);
  } catch (const std::system_error&) {
    // The system refuses more threads: the caller does what is left.
  }
  part(0);
  for (int64_t index = started; index < threads; ++index) part(index);
  for (auto& thread : others) thread.join();
  for (const auto& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace edgecxr
