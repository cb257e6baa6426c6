// What one thread does: a band of output rows of one film. Compiled once per instruction-set level (band.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgecxr {

enum class Pixel : int { u8, i8, u16, i16 };

// Row and column of the film's box in the plane, and the plane's value outside it.
struct Task {
  const void* pixels;  // (height, width), C-contiguous
  Pixel type;
  int64_t height, width;
  float* plane;  // (size, size)
  int64_t size, top, left, rows, columns;
  float range_low, range_width;

  const float* table;  // by bit pattern of the stored value, v in [0, 1]; null: the ramp below
  bool falling;
  int32_t origin;
  float fraction, span;
  int32_t padding_first;
  uint32_t padding_count;
};

// Output rows [begin, end) of the box; `scratch` holds scratch_floats(width) floats.
using Band = void (*)(const Task& task, int64_t begin, int64_t end, float* scratch);
inline std::size_t scratch_floats(int64_t width) { return 2 * static_cast<std::size_t>(width); }

void band_baseline(const Task&, int64_t, int64_t, float*);
void band_avx2(const Task&, int64_t, int64_t, float*);
void band_avx512(const Task&, int64_t, int64_t, float*);

}  // namespace edgecxr
