// The Python module edgecxr.kernels._native. Every function drops the GIL while it works.
// Callers are edgecxr/kernels/native.py (arguments checked there); what would read or write outside an array is
// checked here once more.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "band.hpp"
#include "parallel.hpp"
#include "statistics.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace edgecxr {
namespace {

using Pixels = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Plane = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Box = std::tuple<int64_t, int64_t, int64_t, int64_t>;  // top, left, height, width

struct Level {
  const char* name;
  bool present;
  Band band;
};

// Best first. All give the same bits.
const std::vector<Level>& levels() {
  static const std::vector<Level> all = {
#if defined(EDGECXR_X86_LEVELS)
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq"),
       band_avx512},
      {"avx2", static_cast<bool>(__builtin_cpu_supports("avx2")), band_avx2},
#endif
      {"baseline", true, band_baseline},
  };
  return all;
}

const Level& level_named(const std::string& name) {
  for (const Level& level : levels()) {
    if (level.present && (name.empty() || name == level.name)) return level;
  }
  throw std::invalid_argument("instruction-set level '" + name + "' is not compiled in or not on this machine");
}

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (const Level& level : levels()) {
    if (level.present) names.emplace_back(level.name);
  }
  return names;
}

Pixel pixel_type(const Pixels& pixels) {
  if (pixels.dtype() == nb::dtype<uint8_t>()) return Pixel::u8;
  if (pixels.dtype() == nb::dtype<int8_t>()) return Pixel::i8;
  if (pixels.dtype() == nb::dtype<uint16_t>()) return Pixel::u16;
  if (pixels.dtype() == nb::dtype<int16_t>()) return Pixel::i16;
  throw std::invalid_argument("pixels must be uint8, int8, uint16 or int16");
}

std::size_t value_count(Pixel type) { return type == Pixel::u8 || type == Pixel::i8 ? 256 : 65536; }

// work(pointer, pixel count) with the pointer's real type.
template <class Work>
void with_type(const Pixels& pixels, Pixel type, const Work& work) {
  const auto count = static_cast<int64_t>(pixels.size());
  switch (type) {
    case Pixel::u8: return work(static_cast<const uint8_t*>(pixels.data()), count);
    case Pixel::i8: return work(static_cast<const int8_t*>(pixels.data()), count);
    case Pixel::u16: return work(static_cast<const uint16_t*>(pixels.data()), count);
    case Pixel::i16: return work(static_cast<const int16_t*>(pixels.data()), count);
  }
}

Task task_of(const Pixels& pixels, const Plane& plane, const Box& box, float range_low, float range_width) {
  Task task{};
  task.pixels = pixels.data();
  task.type = pixel_type(pixels);
  task.height = static_cast<int64_t>(pixels.shape(0));
  task.width = static_cast<int64_t>(pixels.shape(1));
  task.plane = plane.data();
  task.size = static_cast<int64_t>(plane.shape(1));
  std::tie(task.top, task.left, task.rows, task.columns) = box;
  task.range_low = range_low;
  task.range_width = range_width;
  const auto inside = [](int64_t start, int64_t length, std::size_t size) {
    return start >= 0 && length >= 1 && start + length <= static_cast<int64_t>(size);
  };
  if (!inside(task.top, task.rows, plane.shape(0)) || !inside(task.left, task.columns, plane.shape(1))) {
    throw std::invalid_argument("the box does not lie inside the plane");
  }
  if (task.height < 1 || task.width < 1) throw std::invalid_argument("pixels must not be empty");
  return task;
}

void run(const Task& task, const Plane& plane, int64_t threads, const std::string& level) {
  const Band band = level_named(level).band;
  nb::gil_scoped_release release;
  std::fill(plane.data(), plane.data() + plane.size(), task.range_low);
  const int64_t parts = useful_threads(threads, task.rows, task.height * task.width);
  in_parallel(task.rows, parts, [&](int64_t begin, int64_t end, int64_t) {
    std::vector<float> scratch(scratch_floats(task.width));
    band(task, begin, end, scratch.data());
  });
}

void ramp(const Pixels& pixels, const Plane& plane, const Box& box, float range_low, float range_width, bool falling,
          int32_t origin, float fraction, float span, int32_t padding_first, uint32_t padding_count, int64_t threads,
          const std::string& level) {
  Task task = task_of(pixels, plane, box, range_low, range_width);
  task.falling = falling;
  task.origin = origin;
  task.fraction = fraction;
  task.span = span;
  task.padding_first = padding_first;
  task.padding_count = padding_count;
  run(task, plane, threads, level);
}

void table(const Pixels& pixels, const Plane& plane, const Box& box, float range_low, float range_width,
           const Table& values, int64_t threads, const std::string& level) {
  Task task = task_of(pixels, plane, box, range_low, range_width);
  if (values.size() != value_count(task.type)) {
    throw std::invalid_argument("the table needs one entry per bit pattern of a pixel");
  }
  task.table = values.data();
  run(task, plane, threads, level);
}

void count_values(const Pixels& pixels, const Counts& counts, int32_t first, int32_t last, int64_t threads) {
  const Pixel type = pixel_type(pixels);
  if (counts.size() != value_count(type)) throw std::invalid_argument("counts needs one entry per value of a pixel");
  nb::gil_scoped_release release;
  const auto size = static_cast<int64_t>(pixels.size());
  with_type(pixels, type, [&](const auto* data, int64_t count) {
    using T = std::decay_t<decltype(*data)>;
    if (first != static_cast<T>(first) || last != static_cast<T>(last)) {
      throw std::invalid_argument("first and last must be values that a pixel can hold");
    }
    histogram(data, count, static_cast<T>(first), static_cast<T>(last), useful_threads(threads, size, size),
              counts.data());
  });
}

bool outside(const Pixels& pixels, int64_t low, int64_t high) {
  const Pixel type = pixel_type(pixels);
  nb::gil_scoped_release release;
  bool found = false;
  with_type(pixels, type, [&](const auto* data, int64_t count) { found = any_outside(data, count, low, high); });
  return found;
}

}  // namespace
}  // namespace edgecxr

NB_MODULE(_native, module) {
  module.def("levels", &edgecxr::level_names);
  module.def("ramp", &edgecxr::ramp, "pixels"_a.noconvert(), "plane"_a.noconvert(), "box"_a, "range_low"_a,
             "range_width"_a, nb::kw_only(), "falling"_a, "origin"_a, "fraction"_a, "span"_a, "padding_first"_a,
             "padding_count"_a, "threads"_a, "level"_a = "");
  module.def("table", &edgecxr::table, "pixels"_a.noconvert(), "plane"_a.noconvert(), "box"_a, "range_low"_a,
             "range_width"_a, nb::kw_only(), "values"_a.noconvert(), "threads"_a, "level"_a = "");
  module.def("count_values", &edgecxr::count_values, "pixels"_a.noconvert(), "counts"_a.noconvert(), "first"_a = 1,
             "last"_a = 0, nb::kw_only(), "threads"_a);
  module.def("any_outside", &edgecxr::outside, "pixels"_a.noconvert(), "low"_a, "high"_a);
}
