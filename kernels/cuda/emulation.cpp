// The fused kernel on the CPU, for the tests: the text of block.hpp, with threads that are a loop between two barriers.
// Shared memory starts as NaN, and a load that is not aligned or not inside the frames stops the run.
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "block.hpp"

namespace edgecxr {
namespace {

class Emulated {
 public:
  explicit Emulated(int threads) : lanes_(static_cast<std::size_t>(threads)) {}

  int threads() const { return static_cast<int>(lanes_.size()); }
  void barrier() const {}

  template <class Work>
  void each(const Work& work) {
    for (std::size_t k = lanes_.size(); k-- > 0;) work(static_cast<int>(k), lanes_[k]);
  }

  template <int Words>
  static Packed<Words> load(const Launch& launch, int64_t at) {
    constexpr int64_t kSize = 4 * Words;
    if (at < 0 || at % kSize != 0 || static_cast<uint64_t>(at + kSize) > launch.bytes) {
      throw std::out_of_range("load of " + std::to_string(kSize) + " bytes at byte " + std::to_string(at));
    }
    Packed<Words> packed;
    memcpy(packed.words, launch.pixels + at, sizeof packed.words);
    return packed;
  }

 private:
  std::vector<Lane> lanes_;
};

int emulate(const Launch& launch, int blocks, int frames, int threads, int shared_bytes, char* words) {
  try {
    const auto floats = static_cast<std::size_t>(shared_bytes) / sizeof(float);
    for (int index = 0; index < frames; ++index) {
      for (int block = 0; block < blocks; ++block) {
        std::vector<float> memory(floats, std::numeric_limits<float>::quiet_NaN());
        Emulated group(threads);
        run_block(group, launch, index, block, reinterpret_cast<unsigned char*>(memory.data()));
      }
    }
  } catch (const std::exception& error) {
    words[std::string(error.what()).copy(words, 199)] = 0;
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace edgecxr

// 0, or 1 with what went wrong in `words` (200 bytes).
extern "C" int edgecxr_emulate(const void* frames, const unsigned char* pixels, uint64_t bytes, const float* tables,
                               int32_t size, float range_low, float range_width, void* output, int half, int blocks,
                               int count, int threads, int shared_bytes, char* words) {
  using namespace edgecxr;
  const Launch launch{static_cast<const Frame*>(frames), pixels, bytes, tables, size, range_low, range_width, output,
                      half != 0};
  return emulate(launch, blocks, count, threads, shared_bytes, words);
}

extern "C" void edgecxr_half_bits(const float* values, int64_t count, uint16_t* halves) {
  for (int64_t k = 0; k < count; ++k) halves[k] = static_cast<uint16_t>(edgecxr::half_bits(values[k]));
}

extern "C" void edgecxr_cover(int64_t source, int64_t target, void* covers) {
  for (int64_t j = 0; j < target; ++j) static_cast<edgecxr::Cover*>(covers)[j] = edgecxr::cover(source, target, j);
}
