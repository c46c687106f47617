// shift_ramp of csrc/include/sem/shift_ramp.hpp on a device. The ramp of a pattern is the product of two tables, of
// rows and of columns, which a first launch computes: no exponential per pixel. Forward one more launch; backward two,
// for the spectrum and for the shifts, and a third that adds up the runs of frames of more than kRampPixels pixels a
// thread.
#pragma once

#include <cstdint>

#include "device/column_sums.hpp"
#include "device/complex.hpp"
#include "device/frames.hpp"
#include "device/group.hpp"
#include "device/math.hpp"
#include "device/ordered_sums.hpp"
#include "device/plan.hpp"
#include "device/reduce.hpp"
#include "device/two_float.hpp"
#include "sem/shift_ramp.hpp"

namespace sem::device {

inline constexpr std::int64_t kRampPixels = 16;

// N q_k, whole.
SEM_DEVICE float whole_frequency(std::int64_t k, std::int64_t side) {
  return static_cast<float>(k < (side + 1) / 2 ? k : k - side);
}

// exp(-2 pi i turns). Of shifts beyond 2^46 pixels nothing is known but that they are many turns.
SEM_DEVICE Complex turned_back(TwoFloat turns) {
  std::int32_t quarter;  // whole turns go first, and exactly
  turns = two_sum(turns.high - 4.0f * round_to_int(0.25f * turns.high, quarter), turns.low);
  const float quarters = round_to_int(4.0f * turns.high, quarter);
  const float rest = (4.0f * turns.high - quarters) + 4.0f * turns.low;
  float s, c;
  sincos(rest * (0.25f * kTwoPi), s, c);
  const bool swap = (quarter & 1) != 0;
  const float sine = swap ? c : s, cosine = swap ? s : c;
  return {((quarter + 1) & 2) != 0 ? -cosine : cosine, (quarter & 2) != 0 ? sine : -sine};
}

// tables [patterns, 2, side, 2]: exp(-2 pi i q_k f_ja) for every pattern, axis and k.
struct RampTablesKernel {
  static constexpr int kMostThreads = 256;
  const float* shift;
  float* tables;
  std::int64_t entries, side;
  TwoFloat inverse_side;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const std::int64_t entry = group.id() * kMostThreads + group.rank();
    if (entry >= entries) return;
    const float k = whole_frequency(entry % side, side);
    store(tables, entry, turned_back(two_product(k, shift[entry / side]) * inverse_side));
  }
};

inline std::int64_t ramp_table_floats(const RampShape& shape) { return 4 * shape.patterns * shape.side; }

template <class Launcher>
void run_ramp_tables(const RampShape& shape, const float* shift, float* tables, Launcher& launch) {
  constexpr int kSize = RampTablesKernel::kMostThreads;
  const std::int64_t entries = 2 * shape.patterns * shape.side;
  const TwoFloat inverse = two_float(shape.side > 0 ? 1.0 / static_cast<double>(shape.side) : 0.0);
  launch(RampTablesKernel{shift, tables, entries, shape.side, inverse}, (entries + kSize - 1) / kSize, kSize, 0);
}

SEM_DEVICE Complex ramp_at(const float* tables, std::int64_t side, std::int64_t j, std::int64_t y, std::int64_t x) {
  return times(load(tables, 2 * j * side + y), load(tables, (2 * j + 1) * side + x));
}

// Memory traffic: out is written once.
struct ShiftRampForwardKernel {
  static constexpr int kMostThreads = FramePlan::kGroupSize;
  ShiftRampForward<float> args;
  FramePlan plan;
  const float* tables;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const std::int64_t j = plan.pattern(group), frame = plan.side * plan.side;
    const std::int64_t out = j * args.shape.modes * frame;
    plan.each(group, [&](std::int64_t pixel, std::int64_t y, std::int64_t x) {
      const Complex ramp = ramp_at(tables, plan.side, j, y, x);
      for (std::int64_t at = pixel; at < args.shape.modes * frame; at += frame)
        store(args.out, out + at, times(load(args.spectrum, at), ramp));
    });
  }
};

inline std::int64_t floats(const ShiftRampForward<float>& args, const Limits&) { return ramp_table_floats(args.shape); }

template <class Launcher>
void run(const ShiftRampForward<float>& args, float* workspace, Launcher& launch) {
  run_ramp_tables(args.shape, args.shift, workspace, launch);
  const FramePlan plan(args.shape.patterns, args.shape.side, 4);
  launch(ShiftRampForwardKernel{args, plan, workspace}, plan.groups, FramePlan::kGroupSize, 0);
}

// A column is a pixel of a mode.
struct SpectrumTerms {
  static constexpr int kWidth = 2;
  OrderedSum sum;
  const float *tables, *grad_out;
  std::int64_t side;

  SEM_DEVICE auto at(std::int64_t column) const {
    const std::int64_t y = column / side % side, x = column % side;
    return [this, column, y, x](std::int64_t j, float (&addend)[kWidth]) {
      const Complex term = conjugate_times(ramp_at(tables, side, j, y, x), load(grad_out, j * sum.columns + column));
      addend[0] = term.re;
      addend[1] = term.im;
    };
  }
};

// sums [runs, patterns, 2]: 2 pi times the sums of q_a Im(conj(G) out) over modes and a run of pixels.
struct ShiftSumsKernel {
  static constexpr int kMostThreads = FramePlan::kGroupSize;
  static constexpr std::int64_t kLocalFloats = 2 * kMostThreads / 8;
  ShiftRampBackward<float> args;
  FramePlan plan;
  const float* tables;
  float* sums;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const std::int64_t j = plan.pattern(group), side = plan.side, frame = side * side;
    const std::int64_t all = args.shape.modes * frame, grads = j * all;
    RunningSum by_y, by_x;
    plan.each(group, [&](std::int64_t pixel, std::int64_t y, std::int64_t x) {
      Complex products;
      for (std::int64_t at = pixel; at < all; at += frame)
        products = products + conjugate_times(load(args.grad_out, grads + at), load(args.spectrum, at));
      const float along = times(products, ramp_at(tables, side, j, y, x)).im;
      by_y.add(whole_frequency(y, side) / static_cast<float>(side) * along);
      by_x.add(whole_frequency(x, side) / static_cast<float>(side) * along);
    });
    float values[2] = {by_y.total(), by_x.total()};
    sum(group, values, group.local());
    if (group.rank() != 0) return;
    float* const to = sums + 2 * (group.id() % plan.runs * args.shape.patterns + j);
    to[0] = kTwoPi * values[0];
    to[1] = kTwoPi * values[1];
  }
};

inline FramePlan shift_sums_plan(const RampShape& shape) { return {shape.patterns, shape.side, kRampPixels}; }

inline std::int64_t floats(const ShiftRampBackward<float>& args, const Limits&) {
  const std::int64_t runs = shift_sums_plan(args.shape).runs;
  return ramp_table_floats(args.shape) + (runs > 1 ? 2 * runs * args.shape.patterns : 0);
}

// Memory traffic: grad_out is read twice.
template <class Launcher>
void run(const ShiftRampBackward<float>& args, float* workspace, Launcher& launch) {
  const RampShape& shape = args.shape;
  run_ramp_tables(shape, args.shift, workspace, launch);
  run_ordered_sums(
      SpectrumTerms{
          {shape.patterns, shape.spectrum() / 2, args.onto, args.to_spectrum}, workspace, args.grad_out, shape.side},
      launch);
  const FramePlan plan = shift_sums_plan(shape);
  float* const sums = plan.runs > 1 ? workspace + ramp_table_floats(shape) : args.to_shift;
  launch(ShiftSumsKernel{args, plan, workspace, sums}, plan.groups, FramePlan::kGroupSize,
         ShiftSumsKernel::kLocalFloats);
  if (plan.runs == 1) return;
  ColumnSums rows;
  rows.rows = plan.runs;
  rows.columns = rows.first_columns = 2 * shape.patterns;
  rows.partial = sums;
  rows.first = args.to_shift;
  run_column_sums(rows, launch);
}

}  // namespace sem::device
