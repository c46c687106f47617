// far_residual of csrc/include/sem/far_residual.hpp on a device. Whether a pattern is finite is known once all of it
// has been looked at, and decides what is written. Frames of up to kRun pixels are looked at and written by one group,
// in one launch, larger ones in runs of so many pixels by several, in two; where the background's gradient is wanted,
// one more adds slopes up over patterns, in order.
#pragma once

#include <cstdint>

#include "device/complex.hpp"
#include "device/group.hpp"
#include "device/math.hpp"
#include "device/ordered_sums.hpp"
#include "device/plan.hpp"
#include "device/reduce.hpp"
#include "sem/far_residual.hpp"

namespace sem::device {

inline constexpr float kInfinity = __builtin_huge_valf();

struct FarResidualPlan {
  static constexpr int kGroupSize = 256;
  static constexpr std::int64_t kRun = 4096;
  static constexpr int kSums = 3;
  static constexpr int kNumbers = kSums + 1;  // of a run: its sums and flags
  static constexpr int kMostSubGroups = kGroupSize / 8;
  static constexpr std::int64_t kScratch = kSums * kMostSubGroups;
  static constexpr std::int64_t kWholeLocal = kScratch + kRun;

  explicit FarResidualPlan(const FarResidual<float>& task)
      : runs(task.frame > kRun ? (task.frame + kRun - 1) / kRun : 1),
        groups(task.patterns * runs),
        run_floats(runs > 1 ? groups * kNumbers : 0),
        slope_floats(task.to_background == nullptr ? 0 : task.patterns * task.frame) {}

  std::int64_t runs, groups;
  std::int64_t run_floats, slope_floats;  // of the workspace
};

// I - n + n log(n / I) = n (t - 1 - log t) with t = I / n, for normal t > 0. Near t = 1 the terms cancel: with u = t -
// 1 and v = u / (2 + u), log t = 2 (v + v^3 / 3 + ...) and u - 2 v = u v.
SEM_DEVICE float poisson_loss(float intensity, float n) {
  const float t = intensity / n, u = (intensity - n) / n;
  // t = m 2^e with m from sqrt(1/2) to sqrt(2)
  const std::int32_t e = (bits(t) - 0x3f3504f3) >> 23;
  const auto shift = static_cast<std::int32_t>(static_cast<std::uint32_t>(e) << 23);
  const float m1 = e == 0 ? u : from_bits(bits(t) - shift) - 1.0f;
  const float v = m1 / (m1 + 2.0f), v2 = v * v;
  float series = 1.0f / 11.0f;
  series = series * v2 + 1.0f / 9.0f;
  series = series * v2 + 1.0f / 7.0f;
  series = series * v2 + 1.0f / 5.0f;
  series = series * v2 + 1.0f / 3.0f;
  const float beyond = 2.0f * (v * v2) * series;  // log m - 2 v
  const float turns = static_cast<float>(e);
  return n * (e == 0 ? u * v - beyond : (u - turns * 0.693147180559945f) - (2.0f * v + beyond));
}

// One pixel of one pattern.
struct FarPixel {
  SEM_DEVICE FarPixel(const FarResidual<float>& task, std::int64_t j, std::int64_t i) : kind(kind_of(task)) {
    float intensity = task.background == nullptr ? 0.0f : task.background[i];
    const std::int64_t waves = j * task.modes * task.frame + i;
    for (std::int64_t m = 0; m < task.modes; ++m) intensity += squared_modulus(load(task.psi, waves + m * task.frame));
    const float* const weight =
        task.weight == nullptr ? nullptr : task.weight + (task.weights == 1 ? 0 : j) * task.frame;
    const float w = weight == nullptr ? 1.0f : weight[i];
    const float x = w == 0.0f ? 0.0f : task.data[j * task.frame + i];  // nobody looks at it, whatever it is
    lit = intensity >= 0x1p-126f;
    valid = w > 0.0f;
    finite = is_finite(intensity) && is_finite(x) && is_finite(w);
    const float a = lit ? sqrt(intensity) : 0.0f;
    lift = valid && lit ? x / a : 1.0f;
    if (!valid) return;
    off = w * abs(a - x);
    bright = w * x;
    measure(intensity, a, x, w, 1.0f / task.scale);
  }

  // What the waves are multiplied by.
  SEM_DEVICE float factor() const { return kind == ResidualKind::projection ? lift : 2.0f * slope; }

  ResidualKind kind;
  bool lit, valid, finite;
  float lift;  // X / A of a projection
  float loss = 0.0f, slope = 0.0f;
  float off = 0.0f, bright = 0.0f;  // terms of the misfit

 private:
  static SEM_DEVICE ResidualKind kind_of(const FarResidual<float>& task) {
    return static_cast<ResidualKind>(task.kind);
  }

  SEM_DEVICE void measure(float intensity, float a, float x, float w, float inverse_scale) {
    const float from = a - x;
    switch (kind) {
      case ResidualKind::amplitude:
      case ResidualKind::projection:
        loss = 0.5f * w * from * from;
        slope = lit ? 0.5f * w * from / a : 0.0f;
        return;
      case ResidualKind::poisson: {
        const float n = x * x;
        loss = w * (n == 0.0f ? intensity : lit ? poisson_loss(intensity, n) : kInfinity);
        slope = n == 0.0f ? w : lit ? w * (intensity - n) / intensity : 0.0f;
        return;
      }
      case ResidualKind::intensity: {
        const float excess = from * (a + x);
        loss = 0.5f * w * excess * excess;
        slope = w * excess;
        return;
      }
      case ResidualKind::amplitude_mae: {
        const float sign = from > 0.0f ? 1.0f : from < 0.0f ? -1.0f : 0.0f;
        loss = w * abs(from) * inverse_scale;
        slope = lit ? 0.5f * w * sign * inverse_scale / a : 0.0f;
        return;
      }
    }
  }
};

// Sums over pixels, of a thread, a run or a pattern.
struct FarSums {
  static constexpr std::int32_t kNonfinite = 1, kValid = 2, kCounted = 4;
  float loss = 0.0f, off = 0.0f, bright = 0.0f;
  std::int32_t flags = 0;

  SEM_DEVICE void add(const FarPixel& pixel) {
    loss += pixel.loss;
    off += pixel.off;
    bright += pixel.bright;
    flags |= (pixel.finite ? 0 : kNonfinite) | (pixel.valid ? kValid : 0) | (pixel.bright > 0.0f ? kCounted : 0);
  }
  // Those of all threads, to all threads.
  template <class Group>
  SEM_DEVICE void join(const Group& group) {
    float values[FarResidualPlan::kSums] = {loss, off, bright};
    sum(group, values, group.local());
    std::int32_t found[1] = {flags};
    reduce(group, found, reinterpret_cast<std::int32_t*>(group.local()), 1,
           [](std::int32_t a, std::int32_t b) { return a | b; });
    loss = values[0];
    off = values[1];
    bright = values[2];
    flags = found[0];
  }
  SEM_DEVICE bool finite() const { return (flags & kNonfinite) == 0; }
};

// What a group does of pattern j: pixels [begin, end).
struct FarRun {
  template <class Group>
  SEM_DEVICE FarRun(const Group& group, const FarResidual<float>& task, std::int64_t j, std::int64_t run)
      : task(task),
        j(j),
        begin(run * FarResidualPlan::kRun + group.rank()),
        end(min((run + 1) * FarResidualPlan::kRun, task.frame)) {}

  // use(number of the pixel in the run, pixel)
  template <class Use>
  SEM_DEVICE void each(int rank, Use use) const {
    int k = rank;
    for (std::int64_t i = begin; i < end; i += FarResidualPlan::kGroupSize, k += FarResidualPlan::kGroupSize) use(k, i);
  }

  // The run's sums, to all threads; keep(k, factor) for each pixel.
  template <class Group, class Keep>
  SEM_DEVICE FarSums measure(const Group& group, float* slopes, Keep keep) const {
    FarSums sums;
    each(group.rank(), [&](int k, std::int64_t i) {
      const FarPixel pixel(task, j, i);
      sums.add(pixel);
      if (slopes != nullptr) slopes[j * task.frame + i] = pixel.slope;
      keep(k, pixel.factor());
    });
    sums.join(group);
    return sums;
  }

  // Psi times factor(k, i); of a pattern that is not finite 0, or as it is. A thread writes where it has read.
  template <class Group, class Factor>
  SEM_DEVICE void multiply(const Group& group, bool finite, Factor factor) const {
    const bool stays = !finite && static_cast<ResidualKind>(task.kind) == ResidualKind::projection;
    each(group.rank(), [&](int k, std::int64_t i) {
      const float by = finite ? factor(k, i) : 0.0f;
      for (std::int64_t m = 0; m < task.modes; ++m) {
        const std::int64_t at = (j * task.modes + m) * task.frame + i;
        const Complex psi = load(task.psi, at);
        store(task.out, at, stays ? psi : finite ? by * psi : Complex{});
      }
    });
  }

  SEM_DEVICE void report(const FarSums& sums) const {
    const bool infinite = static_cast<ResidualKind>(task.kind) == ResidualKind::poisson && !(sums.loss < kInfinity);
    const bool valid = task.weight == nullptr || (sums.flags & FarSums::kValid) != 0;
    const PatternStatus status = !sums.finite()                          ? PatternStatus::nonfinite
                                 : !valid                                ? PatternStatus::masked
                                 : infinite                              ? PatternStatus::infinite
                                 : (sums.flags & FarSums::kCounted) == 0 ? PatternStatus::dark
                                                                         : PatternStatus::ok;
    task.status[j] = static_cast<std::int8_t>(status);
    task.loss[j] = !sums.finite() ? 0.0f : infinite ? kInfinity : sums.loss;
    task.misfit[j] = sums.finite() ? sums.off / sums.bright : kNaN;
  }

  const FarResidual<float>& task;
  std::int64_t j, begin, end;
};

// A whole pattern: its factors stay in local memory, each with the thread that needs it.
struct FarResidualWholeKernel {
  static constexpr int kMostThreads = FarResidualPlan::kGroupSize;
  FarResidual<float> args;
  float* slopes;  // [patterns, frame], or null
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    float* const factors = group.local() + FarResidualPlan::kScratch;
    const FarRun run(group, args, group.id(), 0);
    const FarSums sums = run.measure(group, slopes, [&](int k, float factor) { factors[k] = factor; });
    run.multiply(group, sums.finite(), [&](int k, std::int64_t) { return factors[k]; });
    if (group.rank() == 0) run.report(sums);
  }
};

struct FarResidualMeasureKernel {
  static constexpr int kMostThreads = FarResidualPlan::kGroupSize;
  FarResidual<float> args;
  std::int64_t runs;
  float* numbers;  // [patterns, runs, kNumbers]
  float* slopes;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const FarRun run(group, args, group.id() / runs, group.id() % runs);
    const FarSums sums = run.measure(group, slopes, [](int, float) {});
    if (group.rank() != 0) return;
    float* const to = numbers + group.id() * FarResidualPlan::kNumbers;
    to[0] = sums.loss;
    to[1] = sums.off;
    to[2] = sums.bright;
    to[3] = static_cast<float>(sums.flags);
  }
};

// Every group adds up the runs of its pattern; the first one reports. Factors are computed again: the waves may be
// overwritten by now, but for those of the thread's own pixels.
struct FarResidualMultiplyKernel {
  static constexpr int kMostThreads = FarResidualPlan::kGroupSize;
  FarResidual<float> args;
  std::int64_t runs;
  const float* numbers;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const FarRun run(group, args, group.id() / runs, group.id() % runs);
    FarSums sums;
    for (std::int64_t r = group.rank(); r < runs; r += FarResidualPlan::kGroupSize) {
      const float* const from = numbers + (run.j * runs + r) * FarResidualPlan::kNumbers;
      sums.loss += from[0];
      sums.off += from[1];
      sums.bright += from[2];
      sums.flags |= static_cast<std::int32_t>(from[3]);
    }
    sums.join(group);
    run.multiply(group, sums.finite(), [&](int, std::int64_t i) { return FarPixel(args, run.j, i).factor(); });
    if (group.rank() == 0 && group.id() % runs == 0) run.report(sums);
  }
};

// dL/db, from the slopes of the patterns that are finite.
struct BackgroundTerms {
  static constexpr int kWidth = 1;
  OrderedSum sum;
  const float* slopes;
  const std::int8_t* status;

  SEM_DEVICE auto at(std::int64_t column) const {
    return [this, column](std::int64_t j, float (&addend)[kWidth]) {
      const bool finite = status[j] != static_cast<std::int8_t>(PatternStatus::nonfinite);
      addend[0] = finite ? slopes[j * sum.columns + column] : 0.0f;
    };
  }
};

inline std::int64_t floats(const FarResidual<float>& args, const Limits&) {
  const FarResidualPlan plan(args);
  return plan.run_floats + plan.slope_floats;
}

// Memory traffic: the waves are read twice, and written once.
template <class Launcher>
void run(const FarResidual<float>& args, float* workspace, Launcher& launch) {
  const FarResidualPlan plan(args);
  float* const slopes = args.to_background == nullptr ? nullptr : workspace + plan.run_floats;
  constexpr int kSize = FarResidualPlan::kGroupSize;
  constexpr std::int64_t kScratch = FarResidualPlan::kScratch;
  if (plan.runs == 1) {
    launch(FarResidualWholeKernel{args, slopes}, plan.groups, kSize, FarResidualPlan::kWholeLocal);
  } else {
    launch(FarResidualMeasureKernel{args, plan.runs, workspace, slopes}, plan.groups, kSize, kScratch);
    launch(FarResidualMultiplyKernel{args, plan.runs, workspace}, plan.groups, kSize, kScratch);
  }
  if (args.to_background != nullptr)
    run_ordered_sums(BackgroundTerms{{args.patterns, args.frame, args.onto, args.to_background}, slopes, args.status},
                     launch);
}

}  // namespace sem::device
