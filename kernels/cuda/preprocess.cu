// The preprocessing chain (kernels/reference.py, steps 2 to 5) for a batch of films of different sizes, in one launch.
//
//   edgecxr_preprocess_f32(frames, pixels, bytes, tables, size, range_low, range_width, output)
//   edgecxr_preprocess_f16(…)      the same; output is float16
//
//   frames       const Frame*, device   one for each film (frame.hpp; kernels/device.py `DevicePlan.frames`)
//   pixels       const uint8_t*, device stored values; aligned to 16 bytes
//   bytes        uint64_t               readable from `pixels`; a multiple of 16
//   tables       const float*, device   `DevicePlan.tables`
//   size         int32_t                S
//   range_low, range_width  float
//   output       float* or uint16_t* (float16), device: (N, 1, S, S); each element is written exactly once
//
//   grid   (blocks, N, 1): `blocks` at least what the largest film needs; those that have no work end at once
//   block  (threads, 1, 1): 32 to 256, a multiple of 32; the same that the frames were planned for
//   shared dynamic, `DevicePlan.shared_bytes`, at most 48 KiB
//
// No header but our own is included, so that NVRTC compiles it. Built with -fmad=false.
#include "block.hpp"

namespace edgecxr {
namespace {

template <int Words>
struct Vector;
template <>
struct Vector<2> {
  using Type = uint2;
};
template <>
struct Vector<4> {
  using Type = uint4;
};

__device__ Packed<2> packed(const uint2& v) { return {{v.x, v.y}}; }
__device__ Packed<4> packed(const uint4& v) { return {{v.x, v.y, v.z, v.w}}; }

struct Block {
  Lane lane;

  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ void barrier() const { __syncthreads(); }

  template <class Work>
  __device__ void each(const Work& work) {
    work(static_cast<int>(threadIdx.x), lane);
  }

  template <int Words>
  __device__ static Packed<Words> load(const Launch& launch, int64_t at) {
    return packed(__ldg(reinterpret_cast<const typename Vector<Words>::Type*>(launch.pixels + at)));
  }
};

__device__ __forceinline__ void run(const Launch& launch) {
  extern __shared__ __align__(16) unsigned char memory[];
  Block block;
  run_block(block, launch, static_cast<int64_t>(blockIdx.y), static_cast<int32_t>(blockIdx.x), memory);
}

}  // namespace
}  // namespace edgecxr

extern "C" __global__ void __launch_bounds__(256, 3)
    edgecxr_preprocess_f32(const edgecxr::Frame* frames, const unsigned char* pixels, uint64_t bytes,
                           const float* tables, int32_t size, float range_low, float range_width, float* output) {
  edgecxr::run({frames, pixels, bytes, tables, size, range_low, range_width, output, false});
}

extern "C" __global__ void __launch_bounds__(256, 3)
    edgecxr_preprocess_f16(const edgecxr::Frame* frames, const unsigned char* pixels, uint64_t bytes,
                           const float* tables, int32_t size, float range_low, float range_width, uint16_t* output) {
  edgecxr::run({frames, pixels, bytes, tables, size, range_low, range_width, output, true});
}
