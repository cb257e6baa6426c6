// What step 2e and the padding rule ask of the stored values: counts per value, and whether any lies outside a range.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "parallel.hpp"

namespace edgecxr {

constexpr int kCopies = 2;  // neighbours are often equal: each counts in another copy, so no load waits for a store

// Counts every pixel of [begin, end): counts[kCopies * (x - least value of T) + any copy].
template <class T>
void count_all(const T* begin, const T* end, uint32_t* counts) {
  uint32_t* zero = counts - kCopies * int32_t{std::numeric_limits<T>::min()};
  for (; begin + kCopies <= end; begin += kCopies) {
    for (int k = 0; k < kCopies; ++k) ++zero[kCopies * begin[k] + k];
  }
  for (; begin < end; ++begin) ++zero[kCopies * *begin];
}

// The same, but leaves out pixels in [first, last]. Fast where that is nearly all, or where the rest is flat (borders,
// saturated air): whole blocks are passed over, or counted, after comparisons that the compiler vectorizes.
template <class T>
void count_tails(const T* begin, const T* end, T first, T last, uint32_t* counts) {
  using Unsigned = std::make_unsigned_t<T>;
  constexpr int kBlock = 64;
  const auto width = static_cast<Unsigned>(last - first);
  const auto outside = [=](T x) { return static_cast<Unsigned>(x - first) > width; };
  T tail[kBlock];
  for (; begin + kBlock <= end; begin += kBlock) {
    Unsigned any = 0, differing = 0;
    for (int i = 0; i < kBlock; ++i) any |= outside(begin[i]) ? 1 : 0;
    if (!any) continue;
    for (int i = 0; i < kBlock; ++i) differing |= static_cast<Unsigned>(begin[i] ^ begin[0]);
    if (!differing) {
      counts[kCopies * (begin[0] - int32_t{std::numeric_limits<T>::min()})] += kBlock;
      continue;
    }
    int found = 0;
    for (int i = 0; i < kBlock; ++i) {
      tail[found] = begin[i];
      found += outside(begin[i]);
    }
    count_all(tail, tail + found, counts);
  }
  for (; begin < end; ++begin) {
    if (outside(*begin)) count_all(begin, begin + 1, counts);
  }
}

// counts[x - least value of T] = how many pixels hold x. counts has 2^bits entries. Pixels in [first, last] are counted
// together, at `first`; each value by itself where that range is empty.
template <class T>
void histogram(const T* pixels, int64_t pixel_count, T first, T last, int64_t threads, int64_t* counts) {
  constexpr std::size_t kValues = std::size_t{1} << (8 * sizeof(T));
  std::vector<std::vector<uint32_t>> partial(static_cast<std::size_t>(threads));
  in_parallel(pixel_count, threads, [&](int64_t begin, int64_t end, int64_t thread) {
    auto& own = partial[static_cast<std::size_t>(thread)];
    if (own.empty()) own.resize(kCopies * kValues);
    first <= last ? count_tails(pixels + begin, pixels + end, first, last, own.data())
                  : count_all(pixels + begin, pixels + end, own.data());
  });
  std::fill(counts, counts + kValues, 0);
  int64_t counted = 0;
  for (const auto& own : partial) {
    for (std::size_t i = 0; i < own.size() / kCopies; ++i) {
      int64_t sum = 0;
      for (int k = 0; k < kCopies; ++k) sum += own[kCopies * i + k];
      counts[i] += sum;
      counted += sum;
    }
  }
  if (first <= last) counts[first - std::numeric_limits<T>::min()] = pixel_count - counted;
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
