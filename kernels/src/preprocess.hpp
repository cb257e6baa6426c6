// The arithmetic of the preprocessing chain (the contract is in kernels/reference.py), for one pixel or one sample.
//
// Plain functions without allocation, so that a CUDA kernel compiles the very same text (EDGECXR_HD becomes
// __host__ __device__). No fused multiply-add is relied on: built with -ffp-contract=off (nvcc: -fmad=false) every
// machine gives the same bits.
#pragma once

#if defined(__CUDACC_RTC__)  // the run-time compiler has no headers of its own
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cmath>
#include <cstdint>
#include <cstring>
#endif

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

// The quotient of a >= 0 and b >= 1. A GPU has no 64-bit division; what fits into 32 bits takes the short way there.
EDGECXR_HD int64_t quotient(int64_t a, int64_t b) {
#if defined(__CUDA_ARCH__)
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
#endif
  return a / b;
}

// a / b rounded to the nearest float, for integers up to 2^24, of which a float holds every one.
EDGECXR_HD float share_of(int64_t a, int64_t b) { return static_cast<float>(a) / static_cast<float>(b); }

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
    const int64_t first = quotient(start, target), last = quotient(stop - 1, target);
    return {static_cast<int32_t>(first), static_cast<int32_t>(last), share_of((first + 1) * target - start, target),
            share_of(stop - last * target, target)};
  }
  const int64_t limit = 2 * target * (source - 1);
  int64_t position = (2 * j + 1) * source - target;  // in 1 / (2 target) of a source sample
  position = position < 0 ? 0 : position > limit ? limit : position;
  const int64_t first = quotient(position, 2 * target), rest = position - first * 2 * target;
  return {static_cast<int32_t>(first), static_cast<int32_t>(rest ? first + 1 : first),
          share_of(2 * target - rest, 2 * target), share_of(rest, 2 * target)};
}

EDGECXR_HD double cover_total(int64_t source, int64_t target) {
  return source > target ? static_cast<double>(source) / static_cast<double>(target) : 1.0;
}

// Step 5 of one sample: `sum` times `scale` is v; rounding may leave it a little above 1.
EDGECXR_HD float ranged(double sum, double scale, float range_low, float range_width) {
  const double v = sum * scale;
  return static_cast<float>(range_low + (v < 1.0 ? v : 1.0) * static_cast<double>(range_width));
}

// What follows is what a GPU does differently: few instructions a pixel, explicit fused multiply-adds. The bits are the
// same wherever it is compiled.

EDGECXR_HD float float_of_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

EDGECXR_HD uint32_t bits_of_float(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

EDGECXR_HD float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return fmaf(a, b, c);
#endif
}

EDGECXR_HD float saturated(float value) {
#if defined(__CUDA_ARCH__)
  return __saturatef(value);
#else
  return value > 0.0f ? value < 1.0f ? value : 1.0f : 0.0f;
#endif
}

// Steps 1 to 3 as a clamped line, from the bits of kLifted + u, where u in [0, 65535] is the stored value less the least
// of its type. `lifted - bias` is a whole number of stored steps from the origin and exact.
constexpr uint32_t kLifted = 0x4B000000u;  // the float 2^23; its last bits count by ones

struct Line {
  float bias;              // 2^23 + origin - least of the type, a whole number in (0, 2^24)
  float inverse;           // 1 / span; negative where v falls
  float shift;             // -fraction / span
  uint32_t padding_first;  // as u
  uint32_t padding_count;  // 0: no padding
};

template <bool Padded>
EDGECXR_HD float line_value(const Line& line, uint32_t lifted) {
  const float v = saturated(fused(float_of_bits(lifted) - line.bias, line.inverse, line.shift));
  if (!Padded) return v;
  return lifted - (kLifted + line.padding_first) < line.padding_count ? 0.0f : v;
}

// The bits of the float16 nearest to `value`, which is finite; ties go to the even one, too much becomes infinity.
EDGECXR_HD uint32_t half_bits(float value) {
  const uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x47800000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {  // a subnormal float16: adding 0.5 leaves it, rounded, in the last bits
    return sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u);
  }
  return sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

}  // namespace
}  // namespace edgecxr
