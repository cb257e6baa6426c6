// What the host tells the kernel of one film. kernels/device.py has the same layout (FRAME); all fields are filled there.
#pragma once

#include "preprocess.hpp"

#if defined(__CUDACC_RTC__)
using uint16_t = unsigned short;
#endif

namespace edgecxr {
namespace {

struct Frame {
  int64_t offset;        // of the first pixel from `pixels`, in bytes; any
  int64_t pitch;         // from row to row, in bytes; any
  double scale;          // 1 / source pixels of an output pixel
  int32_t height, width;  // of the source, 1 to 65536
  int32_t top, left, rows, columns;  // the film's box in the output plane
  int32_t bytes;         // of a pixel: 1 or 2
  int32_t band;          // output rows of a block, 1 to kBand
  int32_t tile;          // output columns of a block, 1 to its threads
  uint32_t flip;         // exclusive or of packed pixels: 0x80808080 or 0x80008000 where they are signed, so that u >= 0
  Line line;             // the straight line; not used where there is a table
  int32_t table;         // index in `tables` of the film's 256 or 65536 values of v by u; -1: the line
  int32_t near_first;    // values of u [near_first, near_first + near_count) are copied to shared memory
  int32_t near_count;    // a multiple of 4, 0 to what the launch has shared memory for
};
static_assert(sizeof(Frame) == 96, "kernels/device.py has the same layout");

struct Launch {
  const Frame* frames;
  const unsigned char* pixels;  // aligned to 16 bytes
  uint64_t bytes;               // readable from `pixels`, a multiple of 16; every frame lies inside
  const float* tables;
  int32_t size;  // side of the output plane
  float range_low, range_width;
  void* output;  // (films, size, size) float, or uint16_t that holds float16 where `half`
  bool half;
};

constexpr int kBand = 16;   // output rows of a block, at most
constexpr int kColumns = 8;  // neighbouring columns that one thread adds up

}  // namespace
}  // namespace edgecxr
