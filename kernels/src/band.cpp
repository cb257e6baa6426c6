// One pass over the pixels: every source row is turned into v (or stored steps) and added, weighted, into a row of
// floats along x (vectorized by the compiler); that row is reduced to the output samples once per output row.
#include "band.hpp"

#include <cstring>
#include <type_traits>
#include <vector>

#include "preprocess.hpp"

namespace edgecxr {
namespace {

constexpr int kChunk = 32;    // source rows added up in one float before it goes to the second level
constexpr int kSegment = 64;  // columns added up in one float before they go to a double

// A source adds up to kRows rows at once, so that the row of sums is loaded and stored once for all of them:
// sums[x] += the sum over rows of weight * value.
template <class T, bool Falling, bool Padded>
struct RampSource {
  using Type = T;
  static constexpr int kRows = 4;
  Ramp ramp;

  void add(const T* rows, int count, int64_t width, const float* weights, float* sums) const {
    if (count == kRows) return add_exactly<kRows>(ramp, rows, width, weights, sums);
    for (int k = 0; k < count; ++k) add_exactly<1>(ramp, rows + k * width, width, weights + k, sums);
  }

  template <int Count>
  static void add_exactly(const Ramp ramp, const T* rows, int64_t width, const float* weights, float* __restrict sums) {
    float w[Count];
    for (int k = 0; k < Count; ++k) w[k] = weights[k];
    for (int64_t x = 0; x < width; ++x) {
      float sum = w[0] * ramp_steps<Falling, Padded>(ramp, static_cast<int32_t>(rows[x]));
      for (int k = 1; k < Count; ++k) {
        sum += w[k] * ramp_steps<Falling, Padded>(ramp, static_cast<int32_t>(rows[k * width + x]));
      }
      sums[x] += sum;
    }
  }
};

// Loads are what a table costs, one for each value. So the pixels come four to a load (little-endian: the lowest bits
// are the first), and eight rows are taken together; more of them, 4096 bytes apart, would not fit into the L1 cache.
template <class T>
struct TableSource {
  using Type = T;
  using Pattern = std::make_unsigned_t<T>;
  static constexpr int kRows = 8;
  const float* table;

  void add(const T* rows, int count, int64_t width, const float* weights, float* __restrict sums) const {
    using Four = std::conditional_t<sizeof(T) == 1, uint32_t, uint64_t>;
    constexpr int kBits = 8 * sizeof(T);
    int64_t x = 0;
    for (; x + 4 <= width; x += 4) {
      float sum[4] = {};
      for (int k = 0; k < count; ++k) {
        Four four;
        std::memcpy(&four, rows + k * width + x, sizeof four);
        for (int i = 0; i < 4; ++i) sum[i] += weights[k] * table[static_cast<Pattern>(four >> (i * kBits))];
      }
      for (int i = 0; i < 4; ++i) sums[x + i] += sum[i];
    }
    for (; x < width; ++x) {
      for (int k = 0; k < count; ++k) sums[x] += weights[k] * table[static_cast<Pattern>(rows[k * width + x])];
    }
  }
};

// sums (width) = the weighted sum of source rows [begin, end) of a cover.
template <class Source>
void sum_rows(const Source source, const typename Source::Type* pixels, int64_t width, const Cover& c, int64_t begin,
              int64_t end, float* sums) {
  for (int64_t x = 0; x < width; ++x) sums[x] = 0.0f;
  for (int64_t y = begin; y < end;) {
    const int count = end - y < Source::kRows ? static_cast<int>(end - y) : Source::kRows;
    float weights[Source::kRows];
    for (int k = 0; k < count; ++k) {
      weights[k] = y + k == c.first ? c.first_weight : y + k == c.last ? c.last_weight : 1.0f;
    }
    source.add(pixels + y * width, count, width, weights, sums);
    y += count;
  }
}

template <class Source>
void sum_cover(const Source source, const typename Source::Type* pixels, int64_t width, const Cover& c, float* sums,
               float* chunk) {
  int64_t y = c.first, end = c.last + 1;
  const int64_t stop = end - y <= 2 * kChunk ? end : y + kChunk;
  sum_rows(source, pixels, width, c, y, stop, sums);
  for (y = stop; y < end; y += kChunk) {
    sum_rows(source, pixels, width, c, y, y + kChunk < end ? y + kChunk : end, chunk);
    for (int64_t x = 0; x < width; ++x) sums[x] += chunk[x];
  }
}

double sum_columns(const float* sums, const Cover& c) {
  if (c.first == c.last) return sums[c.first];
  double total = static_cast<double>(c.first_weight) * sums[c.first] + static_cast<double>(c.last_weight) * sums[c.last];
  for (int32_t x = c.first + 1; x < c.last;) {
    const int32_t stop = c.last - x < kSegment ? c.last : x + kSegment;
    float sum = 0.0f;
    for (; x < stop; ++x) sum += sums[x];
    total += sum;
  }
  return total;
}

template <class Source>
void run(const Source source, const Task& task, double unit, int64_t begin, int64_t end, float* scratch) {
  const auto* pixels = static_cast<const typename Source::Type*>(task.pixels);
  const double cells = cover_total(task.height, task.rows) * cover_total(task.width, task.columns);
  const double scale = 1.0 / (unit * cells);
  std::vector<Cover> columns(static_cast<std::size_t>(task.columns));
  for (int64_t j = 0; j < task.columns; ++j) columns[j] = cover(task.width, task.columns, j);
  for (int64_t i = begin; i < end; ++i) {
    sum_cover(source, pixels, task.width, cover(task.height, task.rows, i), scratch, scratch + task.width);
    float* out = task.plane + (task.top + i) * task.size + task.left;
    for (const Cover& column : columns) {
      *out++ = ranged(sum_columns(scratch, column), scale, task.range_low, task.range_width);
    }
  }
}

template <class T>
void run_type(const Task& task, int64_t begin, int64_t end, float* scratch) {
  if (task.table) return run(TableSource<T>{task.table}, task, 1.0, begin, end, scratch);
  const Ramp ramp{task.origin, task.fraction, task.span, task.padding_first, task.padding_count};
  const double unit = static_cast<double>(task.span);
  if (task.falling) {
    task.padding_count ? run(RampSource<T, true, true>{ramp}, task, unit, begin, end, scratch)
                       : run(RampSource<T, true, false>{ramp}, task, unit, begin, end, scratch);
  } else {
    task.padding_count ? run(RampSource<T, false, true>{ramp}, task, unit, begin, end, scratch)
                       : run(RampSource<T, false, false>{ramp}, task, unit, begin, end, scratch);
  }
}

}  // namespace

void EDGECXR_BAND(const Task& task, int64_t begin, int64_t end, float* scratch) {
  switch (task.type) {
    case Pixel::u8: return run_type<uint8_t>(task, begin, end, scratch);
    case Pixel::i8: return run_type<int8_t>(task, begin, end, scratch);
    case Pixel::u16: return run_type<uint16_t>(task, begin, end, scratch);
    case Pixel::i16: return run_type<int16_t>(task, begin, end, scratch);
  }
}

}  // namespace edgecxr
