// What step 2e and the padding rule ask of the stored values: counts per value, and whether any lies outside a range.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.hpp"

namespace edgecxr {

// counts[x - least value of T] = how many pixels hold x. counts has 2^bits entries.
template <class T>
void histogram(const T* pixels, int64_t pixel_count, int64_t threads, int64_t* counts) {
  constexpr int64_t kValues = int64_t{1} << (8 * sizeof(T));
  constexpr int32_t kLeast = std::numeric_limits<T>::min();
  constexpr int kCopies = 2;  // neighbours are often equal: each counts in another copy, so no load waits for a store
  std::vector<std::vector<uint32_t>> partial(static_cast<std::size_t>(threads));
  in_parallel(pixel_count, threads, [&](int64_t begin, int64_t end, int64_t index) {
    auto& own = partial[static_cast<std::size_t>(index)];
    own.assign(kCopies * kValues, 0);
    uint32_t* copy[kCopies];
    for (int k = 0; k < kCopies; ++k) copy[k] = own.data() + k * kValues - kLeast;
    int64_t i = begin;
    for (; i + kCopies <= end; i += kCopies) {
      for (int k = 0; k < kCopies; ++k) ++copy[k][pixels[i + k]];
    }
    for (; i < end; ++i) ++copy[0][pixels[i]];
  });
  std::fill(counts, counts + kValues, 0);
  for (const auto& own : partial) {
    for (int64_t i = 0; i < kCopies * kValues; ++i) counts[i % kValues] += own[static_cast<std::size_t>(i)];
  }
}

// True where some pixel is not in [low, high]. Ends at the first one: on a film that is soon.
template <class T>
bool any_outside(const T* pixels, int64_t pixel_count, int64_t low, int64_t high) {
  for (int64_t i = 0; i < pixel_count; ++i) {
    if (pixels[i] < low || pixels[i] > high) return true;
  }
  return false;
}

}  // namespace edgecxr
