// The arithmetic of the preprocessing chain (the contract is in kernels/reference.py), for one pixel or one sample.
//
// Plain functions without allocation, so that a CUDA kernel compiles the very same text (EDGECXR_HD becomes
// __host__ __device__). No fused multiply-add is relied on: built with -ffp-contract=off (nvcc: -fmad=false) every
// machine gives the same bits.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define EDGECXR_HD __host__ __device__ inline
#else
#define EDGECXR_HD inline
#endif

namespace edgecxr {
namespace {  // each instruction-set level compiles its own copy

// Steps 1 to 3 where they are a clamped straight line over stored values x:
//   rising:  clamp((x - origin) - fraction, 0, span),  falling: clamp((origin - x) - fraction, 0, span)
// in stored steps; divided by span it is v in [0, 1]. x - origin is exact, so no digits cancel in float.
struct Ramp {
  int32_t origin;          // |origin| <= 2^24
  float fraction;          // range [0, 1)
  float span;              // stored steps from v = 0 to v = 1, >= 1
  int32_t padding_first;   // stored values [padding_first, padding_first + padding_count) are black
  uint32_t padding_count;  // 0: no padding
};

template <bool Falling, bool Padded>
EDGECXR_HD float ramp_steps(const Ramp& ramp, int32_t x) {
  const float steps = static_cast<float>(Falling ? ramp.origin - x : x - ramp.origin) - ramp.fraction;
  const float floored = steps > 0.0f ? steps : 0.0f;
  const float clamped = floored < ramp.span ? floored : ramp.span;
  if (!Padded) return clamped;
  return static_cast<uint32_t>(x - ramp.padding_first) < ramp.padding_count ? 0.0f : clamped;
}

// The source samples that one target sample is made of: `first` and `last` count by their weights, those between by 1.
struct Cover {
  int32_t first;       // range [0, source)
  int32_t last;        // range [first, source)
  float first_weight;  // range (0, 1]
  float last_weight;   // range [0, 1]; not used where last == first
};

// Sample j of `target` out of `source` samples (step 4). All positions are integers over `target` (area) or over
// 2 * target (bilinear). The weights add up to `cover_total`.
EDGECXR_HD Cover cover(int64_t source, int64_t target, int64_t j) {
  if (source == target) return {static_cast<int32_t>(j), static_cast<int32_t>(j), 1.0f, 0.0f};
  if (source > target) {
    const int64_t start = j * source, stop = start + source;
    const int64_t first = start / target, last = (stop - 1) / target;
    return {static_cast<int32_t>(first), static_cast<int32_t>(last),
            static_cast<float>(static_cast<double>((first + 1) * target - start) / static_cast<double>(target)),
            static_cast<float>(static_cast<double>(stop - last * target) / static_cast<double>(target))};
  }
  const int64_t limit = 2 * target * (source - 1);
  int64_t position = (2 * j + 1) * source - target;  // in 1 / (2 target) of a source sample
  position = position < 0 ? 0 : position > limit ? limit : position;
  const int64_t first = position / (2 * target), rest = position - first * 2 * target;
  const double t = static_cast<double>(rest) / static_cast<double>(2 * target);
  return {static_cast<int32_t>(first), static_cast<int32_t>(rest ? first + 1 : first), static_cast<float>(1.0 - t),
          static_cast<float>(t)};
}

EDGECXR_HD double cover_total(int64_t source, int64_t target) {
  return source > target ? static_cast<double>(source) / static_cast<double>(target) : 1.0;
}

// Step 5 of one sample: `sum` times `scale` is v; rounding may leave it a little above 1.
EDGECXR_HD float ranged(double sum, double scale, float range_low, float range_width) {
  const double v = sum * scale;
  return static_cast<float>(range_low + (v < 1.0 ? v : 1.0) * static_cast<double>(range_width));
}

}  // namespace
}  // namespace edgecxr
