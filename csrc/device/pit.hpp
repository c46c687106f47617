// Phase-information transport and its gradients. A group works on one row at a time, which stays in its threads'
// registers; a row is read once and written once.
//
// The density on the bins is a sum over entries that hit bins in no order. So that it needs no atomics and has one
// order of additions, threads own private copies of it ("columns" of local memory, next to each other, so that threads
// of one instruction never meet in a memory bank), add their entries in order, and the columns are then added up in
// order. An entry hits 2 * 6 + 1 bins. With the nearest bin at distance t, their weights are exp(-(t - m)^2 / 2) =
// exp(-t^2 / 2) exp(t)^m exp(-m^2 / 2): two exponentials and a table.
//
// Sizes: up to 2048 entries in a row are held in registers; a longer row's working values go through global memory.
// Up to 244 bins every warp has 32 columns; with more bins there is room for fewer (one from 4084 bins on), and threads
// take turns at them: correct, but slow.
#pragma once

#include <cstdint>
#include <type_traits>

#include "device/column_sums.hpp"
#include "device/complex.hpp"
#include "device/group.hpp"
#include "device/math.hpp"
#include "device/pit_plan.hpp"
#include "device/plan.hpp"
#include "device/reduce.hpp"
#include "sem/pit.hpp"

namespace sem::device {

// The kernel at the thirteen bins around a phase, t bins from the nearest.
struct PitTaps {
  SEM_DEVICE explicit PitTaps(float t) : offset(recomputed(t)) {
    t = offset;
    constexpr float kTable[kPitReach + 1] = {1.0f,          0.60653066f,   0.13533528f,  1.1108997e-2f,
                                             3.3546263e-4f, 3.7266532e-6f, 1.5229979e-8f};
    const float peak = exp(-0.5f * t * t), ratio = exp(t), inverse = exp(-t);
    weight[kPitReach] = peak;
    float up = peak, down = peak;
    SEM_UNROLL
    for (int m = 1; m <= kPitReach; ++m) {
      up *= ratio;
      down *= inverse;
      weight[kPitReach + m] = up * kTable[m];
      weight[kPitReach - m] = down * kTable[m];
    }
  }
  // Bin j minus the phase; the kernel's slope there is this times its value.
  SEM_DEVICE float distance(int j) const { return static_cast<float>(j - kPitReach) - offset; }

  float offset;
  float weight[kPitTaps];
};

struct PitDensity {
  float value, first, second;
};

// The rows of one group: what forward and backward share. Bins are stored with six more on either side, those across
// the seam of the circle, so that the bins around a phase follow each other.
template <class Group, class Storage>
class PitRows {
 public:
  enum Plane { kRe, kIm, kOffset, kCell, kTurnedRe, kTurnedIm, kLocal, kByValue, kBySlope, kKerrSum };

  SEM_DEVICE PitRows(const Group& group, const PitPlan& plan, std::int64_t width, std::int32_t bins, PitRule rule,
                     float strength, const float* kerr, float* workspace)
      : group_(group),
        storage_(group, plan, width, workspace),
        kerr_(kerr),
        width_(static_cast<float>(width)),
        bins_(bins),
        columns_(plan.columns),
        score_(rule == PitRule::score),
        direction_((score_ ? -1.0f : 1.0f) * (kTwoPi / static_cast<float>(bins))),
        strength_(strength),
        column_(group.local() + group.rank() % plan.columns),
        density_(group.local() + padded_bins() * plan.columns),
        lambda_(density_ + padded_bins()),
        scratch_(group.local() + plan.local_floats - 2 * group.size()) {}

  SEM_DEVICE void forward(const float* psi, const float* reference_rms, float* out) {
    if (!load_row(psi)) {
      fill(out, finite_ ? 0.0f : kNaN);
      return;
    }
    locate();
    float turned[1] = {0};
    storage_.each([&](int i, std::int64_t d) {
      const float re = at(kRe, i), im = at(kIm, i);
      const float s = counted(re, im) ? score(density_at<1>(density_, i)) : 0.0f;
      float sine, cosine;
      sincos(kerr_turns(i, d) * kTwoPi + direction_ * strength_ * (s / sqrt(1.0f + s * s)), sine, cosine);
      const float turned_re = re * cosine - im * sine, turned_im = re * sine + im * cosine;
      turned[0] += turned_re * turned_re + turned_im * turned_im;
      at(kRe, i) = turned_re;
      at(kIm, i) = turned_im;
    });
    sum(group_, turned, scratch_);
    const float factor =
        reference_rms != nullptr ? *reference_rms / sqrt(turned[0] / width_) : sqrt(square_ / turned[0]) * inverse_;
    storage_.each([&](int i, std::int64_t d) { store(out, d, {at(kRe, i) * factor, at(kIm, i) * factor}); });
  }

  SEM_DEVICE void begin_sums() {
    strength_sum_ = 0;
    storage_.each([&](int i, std::int64_t) { at(kKerrSum, i) = 0; });
  }

  // Adds the row's share to the sums of the group's rows.
  SEM_DEVICE void backward(const float* psi, const float* reference_rms, const float* grad_out, float* grad_psi,
                           float* grad_reference) {
    if (!load_row(psi)) {
      storage_.each([&](int i, std::int64_t d) {
        const Complex kept = reference_rms == nullptr ? load(grad_out, d) : Complex{};
        store(grad_psi, d, finite_ ? kept : Complex{kNaN, kNaN});
        if (!finite_) at(kKerrSum, i) = kNaN;
      });
      if (!finite_) strength_sum_ = kNaN;
      if (grad_reference != nullptr && group_.rank() == 0) *grad_reference = finite_ ? 0.0f : kNaN;
      return;
    }
    // The formulas of sem/pit.hpp on p = psi * factor; `back` turns the bracket of g_psi into dL/dpsi.
    locate();
    const float rms = sqrt(square_ / width_);
    const float c = reference_rms != nullptr ? *reference_rms / rms : inverse_;
    const float back = reference_rms != nullptr ? c * factor_ : 1.0f;

    float sums[2] = {0, 0};  // of the radial part, of the strength gradient
    storage_.each([&](int i, std::int64_t d) {
      const float re = at(kRe, i), im = at(kIm, i);
      const bool counts = counted(re, im);
      const PitDensity n = density_at<2>(density_, i);
      const float s = counts ? score(n) : 0.0f;
      const float shrink = 1.0f / sqrt(1.0f + s * s), bounded = s * shrink;
      float sine, cosine;
      sincos(kerr_turns(i, d) * kTwoPi + direction_ * strength_ * bounded, sine, cosine);
      const Complex g = load(grad_out, d);
      const float q_re = cosine * g.re + sine * g.im, q_im = cosine * g.im - sine * g.re;
      const float w = re * q_im - im * q_re;
      sums[0] += re * q_re + im * q_im;
      sums[1] += bounded * w;
      const float h = counts ? direction_ * strength_ * w * (shrink * shrink * shrink) : 0.0f;
      const float inverse = counts ? 1.0f / n.value : 0.0f;
      const float by_slope = score_ ? h * inverse : 0.0f;
      const float by_value = score_ ? -by_slope * s : -h * uniform_ * inverse * inverse;
      at(kTurnedRe, i) = q_re;
      at(kTurnedIm, i) = q_im;
      at(kLocal, i) = counts ? by_slope * n.second + by_value * n.first : 0.0f;
      at(kByValue, i) = by_value;
      at(kBySlope, i) = by_slope;
    });
    sum(group_, sums, scratch_);
    const float radial = sums[0];
    strength_sum_ += c * direction_ * sums[1];
    if (grad_reference != nullptr && group_.rank() == 0) *grad_reference = radial / rms;
    scatter(lambda_, [&](int i, float distance) { return at(kByValue, i) + at(kBySlope, i) * distance; });

    // dL/du, and from it what an entry's own phase receives.
    float weighted[1] = {0};
    const float bins_per_radian = static_cast<float>(bins_) / kTwoPi;
    storage_.each([&](int i, std::int64_t d) {
      const float re = at(kRe, i), im = at(kIm, i);
      const float slope = counted(re, im) ? (at(kLocal, i) + density_at<1>(lambda_, i).first) * bins_per_radian : 0.0f;
      at(kLocal, i) = slope;
      if (kerr_ == nullptr) return;
      const float e = re * at(kTurnedIm, i) - im * at(kTurnedRe, i) + slope, intensity = intensity_of(re, im);
      weighted[0] += kerr_[d] * e * intensity;
      at(kKerrSum, i) += c * e * intensity;
    });
    if (kerr_ != nullptr) sum(group_, weighted, scratch_);
    const float mean = weighted[0] / width_;
    const float pull = reference_rms != nullptr ? radial / square_ : 0.0f;
    storage_.each([&](int i, std::int64_t d) {
      const float re = at(kRe, i), im = at(kIm, i), q_re = at(kTurnedRe, i), q_im = at(kTurnedIm, i);
      const float slope = at(kLocal, i);
      float turn_re = 0, turn_im = 0;
      if (counted(re, im)) {
        const float inverse = 1.0f / max(abs(re), abs(im));  // |p|^2 itself may underflow
        const float x = re * inverse, y = im * inverse;
        const float turn = slope / (x * x + y * y) * inverse;
        turn_re = turn * x;
        turn_im = turn * y;
      }
      float along = -pull;
      if (kerr_ != nullptr) along += 2.0f * (kerr_[d] * (re * q_im - im * q_re + slope) - mean) / (square_ / width_);
      store(grad_psi, d, {(q_re + along * re - turn_im) * back, (q_im + along * im + turn_re) * back});
    });
  }

  // Leaves the sums of the group's rows in partial[partial_columns].
  SEM_DEVICE void end_sums(float* partial) {
    std::int64_t last = 0;
    if (kerr_ != nullptr) {
      storage_.each([&](int i, std::int64_t d) { partial[d] = at(kKerrSum, i); });
      last = static_cast<std::int64_t>(width_);
    }
    if (group_.rank() == 0) partial[last] = strength_sum_;
  }

 private:
  SEM_DEVICE int padded_bins() const { return bins_ + 2 * kPitReach; }
  SEM_DEVICE float& at(Plane plane, int i) { return storage_.at(plane, i); }
  SEM_DEVICE int cell(int i) { return bits(at(kCell, i)); }
  static SEM_DEVICE bool counted(float re, float im) { return kPitSmallest < max(abs(re), abs(im)); }
  SEM_DEVICE float intensity_of(float re, float im) const { return (re * re + im * im) / (square_ / width_); }
  // The Kerr phase in turns, less whole ones. Of more turns than float32 has fractions for, only finiteness is kept.
  SEM_DEVICE float kerr_turns(int i, std::int64_t d) {
    if (kerr_ == nullptr) return 0.0f;
    constexpr float kMost = 0x1p21f;
    float turns = kerr_[d] * intensity_of(at(kRe, i), at(kIm, i)) * (1.0f / kTwoPi);
    turns = max(min(turns, kMost), -kMost);
    std::int32_t whole;
    turns = turns - round_to_int(turns, whole);
    return is_finite(kerr_[d]) ? turns : kNaN;
  }

  SEM_DEVICE float score(const PitDensity& n) const { return score_ ? n.first / n.value : uniform_ / n.value - 1.0f; }

  SEM_DEVICE void fill(float* row, float value) {
    storage_.each([&](int, std::int64_t d) { store(row, d, {value, value}); });
  }

  // Reads a row and scales it by the power of two that brings its largest component to [1, 2). False for a row of zeros
  // and for one that is not finite.
  SEM_DEVICE bool load_row(const float* psi) {
    std::int32_t largest = 0;
    storage_.each([&](int i, std::int64_t d) {
      const Complex z = load(psi, d);
      at(kRe, i) = z.re;
      at(kIm, i) = z.im;
      largest = max(largest, max(bits(abs(z.re)), bits(abs(z.im))));
    });
    largest = maximum(group_, largest, scratch_);
    const std::int32_t exponent = largest >> 23;
    finite_ = exponent < 255;
    if (!finite_ || largest == 0) return false;
    const std::int32_t clamped = max(1, min(253, exponent));
    factor_ = from_bits((254 - clamped) << 23);
    inverse_ = from_bits(clamped << 23);
    return true;
  }

  // The scaled entries, their distances from the nearest bin, and the density of their phases.
  SEM_DEVICE void locate() {
    float sums[2] = {0, 0};  // of squares, of entries counted
    storage_.each([&](int i, std::int64_t) {
      const float re = at(kRe, i) *= factor_, im = at(kIm, i) *= factor_;
      sums[0] += re * re + im * im;
      sums[1] += counted(re, im) ? 1.0f : 0.0f;
    });
    sum(group_, sums, scratch_);
    square_ = sums[0];
    const float bins = static_cast<float>(bins_);
    uniform_ = kTwoPi / bins * sums[1];
    storage_.each([&](int i, std::int64_t d) {
      const float re = at(kRe, i), im = at(kIm, i);
      const bool counts = counted(re, im);
      float octant, rest;
      octant_angle(counts ? re : 1.0f, counts ? im : 0.0f, octant, rest);
      octant *= bins * 0.125f;  // exact
      rest *= bins / kTwoPi;
      rest += kerr_turns(i, d) * bins;
      std::int32_t bin;
      const float nearest = round_to_int(octant + rest, bin);
      bin += bin < 0 ? bins_ : 0;
      bin -= bin >= bins_ ? bins_ : 0;
      if (bin < 0 || bin >= bins_) bin = 0;  // a phase that is NaN
      at(kOffset, i) = (octant - nearest) + rest;
      at(kCell, i) = from_bits(bin);
    });
    scatter(density_, [&](int i, float) { return counted(at(kRe, i), at(kIm, i)) ? 1.0f : 0.0f; });
  }

  // to[k] = sum over entries d of amount(d, distance) g(u_d - k): through the columns, then over them, in order.
  template <class Amount>
  SEM_DEVICE void scatter(float* to, Amount amount) {
    float* const all = group_.local();
    for (int k = group_.rank(); k < padded_bins() * columns_; k += group_.size()) all[k] = 0;
    group_.barrier();
    for (int turn = 0; turn < group_.size(); turn += columns_) {
      if (turn <= group_.rank() && group_.rank() < turn + columns_)
        storage_.each([&](int i, std::int64_t) {
          const PitTaps taps(at(kOffset, i));
          float* const from = column_ + cell(i) * columns_;
          float held[kPitTaps];
          SEM_UNROLL
          for (int j = 0; j < kPitTaps; ++j) held[j] = from[j * columns_];
          SEM_UNROLL
          for (int j = 0; j < kPitTaps; ++j)
            from[j * columns_] = held[j] + amount(i, taps.distance(j)) * taps.weight[j];
        });
      group_.barrier();
    }
    for (int k = group_.rank(); k < bins_; k += group_.size()) {
      float sum = 0;
      const int first = (k + kPitReach) % bins_;
      for (int j = first; j < padded_bins(); j += bins_)
        for (int i = 0; i < columns_; ++i) sum += all[j * columns_ + ((i + k) & (columns_ - 1))];  // no bank twice
      for (int j = first; j < padded_bins(); j += bins_) to[j] = sum;
    }
    group_.barrier();
  }

  // The sum over bins of value times kernel at entry i, with as many derivatives as asked for.
  template <int kDerivatives>
  SEM_DEVICE PitDensity density_at(const float* values, int i) {
    const PitTaps taps(at(kOffset, i));
    const float* const from = values + cell(i);
    PitDensity n{0, 0, 0};
    SEM_UNROLL
    for (int j = 0; j < kPitTaps; ++j) {
      const float term = taps.weight[j] * from[j], distance = taps.distance(j);
      n.value += term;
      n.first += distance * term;
      if constexpr (kDerivatives >= 2) n.second += (distance * distance - 1.0f) * term;
    }
    return n;
  }

  const Group& group_;
  Storage storage_;
  const float* kerr_;
  float width_;
  int bins_, columns_;
  bool score_;
  float direction_, strength_;
  float *column_, *density_, *lambda_, *scratch_;
  bool finite_ = true;
  float factor_ = 1, inverse_ = 1, square_ = 0, uniform_ = 0, strength_sum_ = 0;
};

// Groups: plan.groups of plan.group_size threads.
template <bool kInRegisters, class Group>
SEM_DEVICE void pit_forward(const Group& group, const PitForward<float>& args, const PitPlan& plan, float* workspace) {
  using Storage = std::conditional_t<kInRegisters, PitRegisters<kPitForwardPlanes>, PitMemory<kPitForwardPlanes>>;
  PitRows<Group, Storage> rows(group, plan, args.width, args.num_bins, args.rule, args.strength[0], args.kerr,
                               workspace);
  const std::int64_t end = min((group.id() + 1) * plan.rows_per_group, args.rows);
  for (std::int64_t row = group.id() * plan.rows_per_group; row < end; ++row)
    rows.forward(args.psi + 2 * row * args.width, args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                 args.out + 2 * row * args.width);
}

// Leaves the sums over each group's rows in the workspace, for column_sums with pit_column_sums.
template <bool kInRegisters, class Group>
SEM_DEVICE void pit_backward(const Group& group, const PitBackward<float>& args, const PitPlan& plan,
                             float* workspace) {
  using Storage = std::conditional_t<kInRegisters, PitRegisters<kPitBackwardPlanes>, PitMemory<kPitBackwardPlanes>>;
  PitRows<Group, Storage> rows(group, plan, args.width, args.num_bins, args.rule, args.strength[0], args.kerr,
                               workspace);
  rows.begin_sums();
  const std::int64_t end = min((group.id() + 1) * plan.rows_per_group, args.rows);
  for (std::int64_t row = group.id() * plan.rows_per_group; row < end; ++row)
    rows.backward(args.psi + 2 * row * args.width, args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                  args.grad_out + 2 * row * args.width, args.grad_psi + 2 * row * args.width,
                  args.grad_reference_rms == nullptr ? nullptr : args.grad_reference_rms + row);
  rows.end_sums(workspace + group.id() * plan.partial_columns);
}

inline ColumnSums pit_column_sums(const PitBackward<float>& args, const PitPlan& plan, const float* workspace) {
  return {plan.groups, plan.partial_columns, workspace, plan.partial_columns - 1, args.grad_kerr, args.grad_strength};
}

template <bool kInRegisters>
struct PitForwardKernel {
  static constexpr int kMostThreads = PitPlan::kMostThreads;
  PitForward<float> args;
  PitPlan plan;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    pit_forward<kInRegisters>(group, args, plan, workspace);
  }
};

inline PitPlan plan_of(const PitForward<float>& args) {
  return PitPlan(args.rows, args.width, args.num_bins, false, args.kerr != nullptr);
}
inline std::int64_t floats(const PitForward<float>& args, const Limits&) { return plan_of(args).workspace_floats; }

template <class Launcher>
void run(const PitForward<float>& args, float* workspace, Launcher& launch) {
  const PitPlan plan = plan_of(args);
  if (plan.in_registers)
    launch(PitForwardKernel<true>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
  else
    launch(PitForwardKernel<false>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
}

template <bool kInRegisters>
struct PitBackwardKernel {
  static constexpr int kMostThreads = PitPlan::kMostThreads;
  PitBackward<float> args;
  PitPlan plan;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    pit_backward<kInRegisters>(group, args, plan, workspace);
  }
};

inline PitPlan plan_of(const PitBackward<float>& args, const Limits& limits) {
  return PitPlan(args.rows, args.width, args.num_bins, true, args.kerr != nullptr, limits.summing_groups);
}
inline std::int64_t floats(const PitBackward<float>& args, const Limits& limits) {
  return plan_of(args, limits).workspace_floats;
}

template <class Launcher>
void run_pit_rows(const PitBackward<float>& args, const PitPlan& plan, float* workspace, Launcher& launch) {
  if (plan.in_registers)
    launch(PitBackwardKernel<true>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
  else
    launch(PitBackwardKernel<false>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
}

template <class Launcher>
void run(const PitBackward<float>& args, float* workspace, Launcher& launch) {
  const PitPlan plan = plan_of(args, launch.limits());
  run_pit_rows(args, plan, workspace, launch);
  run_column_sums(pit_column_sums(args, plan, workspace), launch);
}

}  // namespace sem::device
