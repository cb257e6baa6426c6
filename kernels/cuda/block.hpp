// One block of the fused kernel: a band of output rows by a tile of output columns of one film.
//
// A thread owns kColumns neighbouring source columns. It goes down the source rows once, `kRows` loads of up to 16 bytes
// in flight, and adds up v by the row weights of one output row; a source row that two output rows share is loaded once
// for both. The column sums go to shared memory, where one thread for each output column adds them up: the order of every
// sum is fixed, so that results have the same bits whatever runs when.
//
// `Group` is what runs the threads: a CUDA block (preprocess.cu), or a loop (emulation.cpp) that runs this very text on
// the CPU, where each(work) calls work(thread, state) for every thread, and barrier() comes between two of them.
#pragma once

#include "frame.hpp"

namespace edgecxr {
namespace {

constexpr int kRows = 4;      // source rows loaded at a time
constexpr int kBatches = 8;   // of kRows, added up in one float before it goes to the second level
constexpr int kSegment = 64;  // column sums added up in one float before they go to a double

template <int Words>
struct Packed {
  uint32_t words[Words];
};

// Column sums as they are stored, 16 bytes at a time.
struct alignas(16) Four {
  float a, b, c, d;
};

// What a thread keeps from one barrier to the next.
struct Lane {
  float sums[kColumns];  // at the start of an output row: the share of the source row that the one before had last
  double total;
};

// Shared memory: the covers of the band's rows and of the tile's columns, two rows of column sums, the near part of a
// table.
struct Shared {
  Cover* covers;
  Cover* columns;
  float* sums;
  float* near;
};

EDGECXR_HD uint64_t shared_sums(int threads) { return 2ull * kColumns * static_cast<uint64_t>(threads); }

EDGECXR_HD Shared shared_of(unsigned char* memory, int threads) {
  auto* covers = reinterpret_cast<Cover*>(memory);
  auto* sums = reinterpret_cast<float*>(covers + kBand + threads);
  return {covers, covers + kBand, sums, sums + shared_sums(threads)};
}

template <bool Padded>
struct LineValue {
  Line line;
  EDGECXR_HD float operator()(uint32_t lifted) const { return line_value<Padded>(line, lifted); }
};

struct TableValue {
  const float* near;
  const float* table;
  uint32_t near_first, near_count;

  EDGECXR_HD float operator()(uint32_t lifted) const {
    const uint32_t u = lifted - kLifted;
    const bool is_near = u - near_first < near_count;
    return (is_near ? near : table)[is_near ? u - near_first : u];
  }
};

// Pixel k of packed words as kLifted + u.
template <int Bytes>
EDGECXR_HD uint32_t lifted(const uint32_t* words, int k) {
  constexpr int kEach = 4 / Bytes;
  const uint32_t word = words[k / kEach];
#if defined(__CUDA_ARCH__)
  return __byte_perm(word, kLifted, Bytes == 1 ? 0x7440u | static_cast<uint32_t>(k % 4) : k % 2 ? 0x7432u : 0x7410u);
#else
  return kLifted | (word >> 8 * Bytes * (k % kEach) & (Bytes == 1 ? 0xffu : 0xffffu));
#endif
}

// `bits` (0, 8, 16, 24) into the 64 bits of high:low, 32 of them.
EDGECXR_HD uint32_t funnel(uint32_t low, uint32_t high, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, bits);
#else
  return bits ? low >> bits | high << (32 - bits) : low;
#endif
}

// kColumns pixels at byte `at` of the frames. Loads are aligned to their own size: where `at` is not, two of them are
// put together, of which the second is left out where it would lie behind the end.
template <class Group, int Words>
EDGECXR_HD Packed<Words> loaded(const Launch& launch, int64_t at) {
  constexpr int64_t kSize = 4 * Words;
  const int64_t start = at & -kSize;
  const auto within = static_cast<uint32_t>(at - start);
  const Packed<Words> low = Group::template load<Words>(launch, start);
  Packed<Words> high{};
  if (within != 0 && static_cast<uint64_t>(start + kSize) < launch.bytes) {
    high = Group::template load<Words>(launch, start + kSize);
  }
  uint32_t both[2 * Words + 1];
#pragma unroll
  for (int k = 0; k < Words; ++k) {
    both[k] = low.words[k];
    both[Words + k] = high.words[k];
  }
  both[2 * Words] = 0;
#pragma unroll
  for (int step = Words / 2; step > 0; step /= 2) {  // whole words first; no index that is known only at run time
    const bool skip = (within / 4 & static_cast<uint32_t>(step)) != 0;
#pragma unroll
    for (int k = 0; k + step <= 2 * Words; ++k) both[k] = skip ? both[k + step] : both[k];
  }
  Packed<Words> result;
#pragma unroll
  for (int k = 0; k < Words; ++k) result.words[k] = funnel(both[k], both[k + 1], within % 4 * 8);
  return result;
}

// Adds up the rows of `cover` in the columns at byte `at` of each, of which the lane has the first where it is `carried`.
// Puts the sums into `sums`, and leaves in the lane what the last source row gives to the next output row.
template <class Group, int Bytes, class Value>
EDGECXR_HD void stream(const Launch& launch, const Frame& frame, const Value& value, const Cover& cover, bool carried,
                       float next_weight, int64_t at, Lane& lane, float* sums) {
  constexpr int kWords = kColumns * Bytes / 4;
  const int64_t pitch = frame.pitch;
  const uint32_t flip = frame.flip;
  const bool aligned = (frame.offset | pitch) % (kColumns * Bytes) == 0;
  float low[kColumns], high[kColumns];
#pragma unroll
  for (int x = 0; x < kColumns; ++x) {
    low[x] = carried ? lane.sums[x] : 0.0f;
    high[x] = 0.0f;
  }
  Packed<kWords> border{};
  int batches = 0;
  for (int32_t y = cover.first + (carried ? 1 : 0); y <= cover.last; y += kRows) {
    Packed<kWords> rows[kRows];
    if (aligned) {
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        if (y + k <= cover.last) rows[k] = Group::template load<kWords>(launch, at + (y + k) * pitch);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        if (y + k <= cover.last) rows[k] = loaded<Group, kWords>(launch, at + (y + k) * pitch);
      }
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (y + k <= cover.last) {
        const float weight = y + k == cover.first ? cover.first_weight : y + k == cover.last ? cover.last_weight : 1.0f;
#pragma unroll
        for (int word = 0; word < kWords; ++word) rows[k].words[word] ^= flip;
#pragma unroll
        for (int x = 0; x < kColumns; ++x) low[x] = fused(weight, value(lifted<Bytes>(rows[k].words, x)), low[x]);
        border = rows[k];
      }
    }
    if (++batches % kBatches == 0) {
#pragma unroll
      for (int x = 0; x < kColumns; ++x) {
        high[x] += low[x];
        low[x] = 0.0f;
      }
    }
  }
#pragma unroll
  for (int x = 0; x < kColumns; ++x) lane.sums[x] = next_weight * value(lifted<Bytes>(border.words, x));
  auto* fours = reinterpret_cast<Four*>(sums);
#pragma unroll
  for (int k = 0; k < kColumns / 4; ++k) {
    fours[k] = {high[4 * k] + low[4 * k], high[4 * k + 1] + low[4 * k + 1], high[4 * k + 2] + low[4 * k + 2],
                high[4 * k + 3] + low[4 * k + 3]};
  }
}

// The part of an output sample that columns [begin, end) give; sums[0] is column `begin`.
EDGECXR_HD double summed(const float* sums, int32_t begin, int32_t end, const Cover& c) {
  double total = 0.0;
  if (c.first >= begin && c.first < end) {
    total = static_cast<double>(c.first == c.last ? 1.0f : c.first_weight) * sums[c.first - begin];
  }
  if (c.last != c.first && c.last >= begin && c.last < end) {
    total += static_cast<double>(c.last_weight) * sums[c.last - begin];
  }
  const int32_t stop = c.last < end ? c.last : end;
  for (int32_t x = c.first + 1 > begin ? c.first + 1 : begin; x < stop;) {
    const int32_t pause = stop - x < kSegment ? stop : x + kSegment;
    float sum = 0.0f;
    for (; x < pause; ++x) sum += sums[x - begin];
    total += static_cast<double>(sum);
  }
  return total;
}

EDGECXR_HD void store(const Launch& launch, int64_t at, float value) {
  if (launch.half) {
    static_cast<uint16_t*>(launch.output)[at] = static_cast<uint16_t>(half_bits(value));
  } else {
    static_cast<float*>(launch.output)[at] = value;
  }
}

// Rows and columns of the output plane that a block owns; `rows` and `columns` count those inside the film's box.
struct Part {
  int32_t row, rows, column, columns;
  int32_t top, bottom, left, right;  // of the plane, with the black that lies around the box
};

EDGECXR_HD Part part_of(const Frame& frame, int32_t size, int32_t block) {
  const int32_t tiles = (frame.columns + frame.tile - 1) / frame.tile;
  const int32_t row = block / tiles * frame.band, column = block % tiles * frame.tile;
  const int32_t rows = frame.rows - row < frame.band ? frame.rows - row : frame.band;
  const int32_t columns = frame.columns - column < frame.tile ? frame.columns - column : frame.tile;
  return {row,
          rows,
          column,
          columns,
          row == 0 ? 0 : frame.top + row,
          row + rows == frame.rows ? size : frame.top + row + rows,
          column == 0 ? 0 : frame.left + column,
          column + columns == frame.columns ? size : frame.left + column + columns};
}

// The black around the box, shared out among the threads.
EDGECXR_HD void blacken(const Frame& frame, const Launch& launch, const Part& part, int64_t plane, int thread,
                        int threads) {
  const int32_t wide = part.right - part.left, top = frame.top + part.row, left = frame.left + part.column;
  const bool around = wide != part.columns || part.bottom - part.top != part.rows;
  for (int64_t k = thread; around && k < static_cast<int64_t>(wide) * (part.bottom - part.top); k += threads) {
    const auto y = static_cast<int32_t>(part.top + k / wide), x = static_cast<int32_t>(part.left + k % wide);
    const bool inside = y >= top && y < top + part.rows && x >= left && x < left + part.columns;
    if (!inside) store(launch, plane + static_cast<int64_t>(y) * launch.size + x, launch.range_low);
  }
}

// `stream` for the film's type and transfer.
template <class Group, int Bytes>
EDGECXR_HD void stream_bytes(const Launch& launch, const Frame& frame, const Shared& shared, const Cover& cover,
                             bool carried, float next_weight, int32_t column, Lane& lane, float* sums) {
  const int64_t at = frame.offset + static_cast<int64_t>(column) * Bytes;
  if (frame.table >= 0) {
    const TableValue value{shared.near, launch.tables + frame.table, static_cast<uint32_t>(frame.near_first),
                           static_cast<uint32_t>(frame.near_count)};
    stream<Group, Bytes>(launch, frame, value, cover, carried, next_weight, at, lane, sums);
  } else if (frame.line.padding_count) {
    stream<Group, Bytes>(launch, frame, LineValue<true>{frame.line}, cover, carried, next_weight, at, lane, sums);
  } else {
    stream<Group, Bytes>(launch, frame, LineValue<false>{frame.line}, cover, carried, next_weight, at, lane, sums);
  }
}

template <class Group>
EDGECXR_HD void fill(Group& group, const Frame& frame, const Launch& launch, const Part& part, const Shared& shared,
                     int64_t plane) {
  const int32_t reach = kColumns * group.threads();
  const int32_t begin = cover(frame.width, frame.columns, part.column).first / kColumns * kColumns;
  const int32_t end = cover(frame.width, frame.columns, part.column + part.columns - 1).last + 1;
  const bool carries = frame.height > frame.rows && end - begin <= reach;
  int turn = 0;
  for (int32_t i = 0; i < part.rows; ++i) {
    const Cover row = shared.covers[i];
    const bool carried = carries && i > 0 && shared.covers[i - 1].last == row.first;
    const bool carrying = carries && i + 1 < part.rows && shared.covers[i + 1].first == row.last;
    const float next_weight = carrying ? shared.covers[i + 1].first_weight : 0.0f;
    for (int32_t x = begin; x < end; x += reach, turn ^= 1) {
      float* sums = shared.sums + turn * reach;
      group.each([&](int thread, Lane& lane) {
        const int32_t mine = x + kColumns * thread;
        if (mine >= end) return;
        float* out = sums + kColumns * thread;
        if (frame.bytes == 1) {
          stream_bytes<Group, 1>(launch, frame, shared, row, carried, next_weight, mine, lane, out);
        } else {
          stream_bytes<Group, 2>(launch, frame, shared, row, carried, next_weight, mine, lane, out);
        }
      });
      group.barrier();  // one is enough: the next sums go to the other half
      group.each([&](int thread, Lane& lane) {
        if (thread >= part.columns) return;
        const int32_t stop = end - x < reach ? end : x + reach;
        lane.total = (x == begin ? 0.0 : lane.total) + summed(sums, x, stop, shared.columns[thread]);
        if (stop < end) return;
        const int64_t at = plane + static_cast<int64_t>(frame.top + part.row + i) * launch.size + frame.left;
        store(launch, at + part.column + thread,
              ranged(lane.total, frame.scale, launch.range_low, launch.range_width));
      });
    }
  }
}

// Block `block` of film `index`: every element of the output (frames, size, size) is written by exactly one block.
template <class Group>
EDGECXR_HD void run_block(Group& group, const Launch& launch, int64_t index, int32_t block, unsigned char* memory) {
  const Frame& frame = launch.frames[index];
  const Shared shared = shared_of(memory, group.threads());
  const int32_t tiles = (frame.columns + frame.tile - 1) / frame.tile;
  if (block >= tiles * ((frame.rows + frame.band - 1) / frame.band)) return;  // the grid is as wide as the largest needs
  const Part part = part_of(frame, launch.size, block);
  const int64_t plane = index * launch.size * launch.size;  // its first element in the output
  group.each([&](int thread, Lane&) {
    if (thread < part.rows) shared.covers[thread] = cover(frame.height, frame.rows, part.row + thread);
    if (thread < part.columns) shared.columns[thread] = cover(frame.width, frame.columns, part.column + thread);
    const int32_t near = frame.table >= 0 ? frame.near_count : 0;
    for (int32_t k = thread; k < near; k += group.threads()) {
      shared.near[k] = launch.tables[frame.table + frame.near_first + k];
    }
    blacken(frame, launch, part, plane, thread, group.threads());
  });
  group.barrier();
  fill(group, frame, launch, part, shared, plane);
}

}  // namespace
}  // namespace edgecxr
