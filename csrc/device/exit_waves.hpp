// exit_waves of csrc/include/sem/exit_waves.hpp on a device, one launch, and overlap_add, one each for the object's
// sums (with the illumination), the probe's and the exposure.
//
// The object's sums gather: a group owns a tile of the object, goes through the corners of all patterns, notes those
// that cover a part of it, in order, and adds them up in registers, a pixel for a thread. So nothing is added to memory
// that others add to, a pixel's sum takes patterns and modes in order, and how tiles are cut changes no bit.
#pragma once

#include <cstdint>

#include "device/complex.hpp"
#include "device/frames.hpp"
#include "device/group.hpp"
#include "device/ordered_sums.hpp"
#include "device/plan.hpp"
#include "device/reduce.hpp"
#include "sem/exit_waves.hpp"

namespace sem::device {

// The first pixel of pattern j's patch in the object, of its probe and of its waves.
SEM_DEVICE std::int64_t patch_begin(const PatchShape& shape, const std::int32_t* corner, std::int64_t j) {
  return corner[2 * j] * shape.width + corner[2 * j + 1];
}
SEM_DEVICE std::int64_t probe_begin(const PatchShape& shape, std::int64_t j) {
  return shape.probes == 1 ? 0 : j * shape.modes * shape.side * shape.side;
}
SEM_DEVICE std::int64_t waves_begin(const PatchShape& shape, std::int64_t j) {
  return j * shape.modes * shape.side * shape.side;
}

inline FramePlan exit_waves_plan(const PatchShape& shape) { return {shape.patterns, shape.side, 4}; }

// Memory traffic: the waves are written once; object and probe stay in cache.
struct ExitWavesForwardKernel {
  static constexpr int kMostThreads = FramePlan::kGroupSize;
  ExitWavesForward<float> args;
  FramePlan plan;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const PatchShape& shape = args.shape;
    const std::int64_t j = plan.pattern(group), frame = shape.side * shape.side;
    const std::int64_t patch = patch_begin(shape, args.corner, j);
    const std::int64_t probe = probe_begin(shape, j), waves = waves_begin(shape, j);
    plan.each(group, [&](std::int64_t pixel, std::int64_t y, std::int64_t x) {
      const Complex object = load(args.object, patch + y * shape.width + x);
      for (std::int64_t m = 0; m < shape.modes; ++m)
        store(args.waves, waves + m * frame + pixel, load(args.probe, probe + m * frame + pixel) * object);
    });
  }
};

inline std::int64_t floats(const ExitWavesForward<float>&, const Limits&) { return 0; }

template <class Launcher>
void run(const ExitWavesForward<float>& args, float*, Launcher& launch) {
  const FramePlan plan = exit_waves_plan(args.shape);
  launch(ExitWavesForwardKernel{args, plan}, plan.groups, FramePlan::kGroupSize, 0);
}

// Tiles of 32 columns and 8 rows, or 32 rows: where there are more tiles than a device has room for at a time, fewer
// groups go through the corners.
struct OverlapPlan {
  static constexpr int kColumns = 32, kRows = 8;
  static constexpr int kGroupSize = kColumns * kRows;
  static constexpr std::int64_t kManyTiles = 1024;
  static constexpr int kCorners = 4;                     // that a thread looks at, at a time
  static constexpr int kRound = kCorners * kGroupSize;   // patterns of a group, at a time
  static constexpr int kMostSubGroups = kGroupSize / 8;  // numbers of sum_before
  static constexpr std::int64_t kLocalFloats = 3 * kRound + kMostSubGroups;

  OverlapPlan(const PatchShape& shape, const Limits& limits) : across((shape.width + kColumns - 1) / kColumns) {
    const std::int64_t most = limits.summing_groups > 0 ? limits.summing_groups : kManyTiles;
    many = tiles(shape, kRows) > most;
    groups = tiles(shape, many ? 4 * kRows : kRows);
  }

  std::int64_t across, groups = 0;
  bool many = false;

 private:
  std::int64_t tiles(const PatchShape& shape, std::int64_t rows) const {
    return across * ((shape.height + rows - 1) / rows);
  }
};

// kHigh: a thread's pixels, every eighth row of the tile.
template <int kHigh>
struct OverlapObjectKernel {
  static constexpr int kMostThreads = OverlapPlan::kGroupSize;
  OverlapAdd<float> args;
  std::int64_t across;  // tiles

  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const PatchShape& shape = args.shape;
    const Place place{group.id() / across * (kHigh * OverlapPlan::kRows), group.id() % across * OverlapPlan::kColumns,
                      group.rank() / OverlapPlan::kColumns, group.rank() % OverlapPlan::kColumns};
    auto* const list = reinterpret_cast<std::int32_t*>(group.local());
    Sums sums;
    bool begun = !args.onto;  // with nothing; else with what is held, once a pattern is found
    for (std::int64_t first = 0; first < shape.patterns; first += OverlapPlan::kRound) {
      const std::int32_t found = note(group, place, first, list);
      if (found == 0) continue;
      if (!begun) sums.each(args, place, [&](int r, std::int64_t at) { read(sums, r, at); });
      begun = true;
      add(place, first, list, found, sums);
    }
    if (begun) sums.each(args, place, [&](int r, std::int64_t at) { write(sums, r, at); });
  }

 private:
  // Top and left of the tile, and where the thread's first pixel is in it.
  struct Place {
    std::int64_t top, left;
    int row, column;
  };
  struct Sums {
    Complex object[kHigh];
    float light[kHigh] = {};

    // use(r, pixel of the object) for this thread's pixels
    template <class Use>
    SEM_DEVICE void each(const OverlapAdd<float>& args, const Place& place, Use use) const {
      const std::int64_t x = place.left + place.column;
      SEM_UNROLL
      for (int r = 0; r < kHigh; ++r) {
        const std::int64_t y = place.top + place.row + r * OverlapPlan::kRows;
        if (y < args.shape.height && x < args.shape.width) use(r, y * args.shape.width + x);
      }
    }
  };

  SEM_DEVICE void read(Sums& sums, int r, std::int64_t at) const {
    if (args.to_object != nullptr) sums.object[r] = load(args.to_object, at);
    if (args.illumination != nullptr) sums.light[r] = args.illumination[at];
  }
  SEM_DEVICE void write(const Sums& sums, int r, std::int64_t at) const {
    if (args.to_object != nullptr) store(args.to_object, at, sums.object[r]);
    if (args.illumination != nullptr) args.illumination[at] = sums.light[r];
  }

  // Lists, in order, which of the patterns from `first` on cover a part of the tile: their numbers, counted from
  // `first`, and the rows and columns of their corners, counted from the tile's.
  template <class Group>
  SEM_DEVICE std::int32_t note(const Group& group, const Place& place, std::int64_t first, std::int32_t* list) const {
    constexpr int kCorners = OverlapPlan::kCorners, kRound = OverlapPlan::kRound;
    const PatchShape& shape = args.shape;
    std::int64_t down[kCorners], right[kCorners];
    bool covers[kCorners];
    std::int32_t count = 0;
    SEM_UNROLL
    for (int k = 0; k < kCorners; ++k) {
      const std::int64_t j = first + group.rank() * kCorners + k;
      const bool there = j < shape.patterns;
      down[k] = (there ? args.corner[2 * j] : 0) - place.top;
      right[k] = (there ? args.corner[2 * j + 1] : 0) - place.left;
      covers[k] = there && down[k] > -shape.side && down[k] < kHigh * OverlapPlan::kRows && right[k] > -shape.side &&
                  right[k] < OverlapPlan::kColumns;
      count += covers[k] ? 1 : 0;
    }
    std::int32_t all;
    std::int32_t at = sum_before(group, count, list + 3 * kRound, all);  // and the list before is no longer read
    if (all == 0) return 0;
    SEM_UNROLL
    for (int k = 0; k < kCorners; ++k) {
      if (!covers[k]) continue;
      list[at] = group.rank() * kCorners + k;
      list[kRound + at] = static_cast<std::int32_t>(down[k]);
      list[2 * kRound + at] = static_cast<std::int32_t>(right[k]);
      ++at;
    }
    group.barrier();
    return all;
  }

  // The patterns listed, and their modes, several loads ahead of the additions.
  SEM_DEVICE void add(const Place& place, std::int64_t first, const std::int32_t* list, std::int32_t found,
                      Sums& sums) const {
    constexpr int kAhead = 8 / kHigh, kRound = OverlapPlan::kRound;
    const PatchShape& shape = args.shape;
    const std::int64_t pairs = found * shape.modes, frame = shape.side * shape.side;
    std::int32_t at = 0;
    std::int64_t mode = 0;
    for (std::int64_t pair = 0; pair < pairs; pair += kAhead) {
      Complex probe[kAhead][kHigh], chi[kAhead][kHigh];
      bool inside[kAhead][kHigh];
      SEM_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        const bool there = pair + a < pairs;
        const std::int64_t j = there ? first + list[at] : 0;
        const int y = place.row - (there ? list[kRound + at] : 0),
                  x = place.column - (there ? list[2 * kRound + at] : 0);
        const std::int64_t waves = waves_begin(shape, j) + mode * frame + y * shape.side + x;
        const std::int64_t begin = probe_begin(shape, j) + mode * frame + y * shape.side + x;
        SEM_UNROLL
        for (int r = 0; r < kHigh; ++r) {
          const int row = y + r * OverlapPlan::kRows;
          const std::int64_t below = r * OverlapPlan::kRows * shape.side;
          inside[a][r] = there && 0 <= row && row < shape.side && 0 <= x && x < shape.side;
          if (inside[a][r]) probe[a][r] = load(args.probe, begin + below);
          if (inside[a][r] && args.to_object != nullptr) chi[a][r] = load(args.waves, waves + below);
        }
        if (there && ++mode == shape.modes) {
          mode = 0;
          ++at;
        }
      }
      SEM_UNROLL
      for (int a = 0; a < kAhead; ++a) {
        SEM_UNROLL
        for (int r = 0; r < kHigh; ++r) {
          const Complex term = conjugate_times(probe[a][r], chi[a][r]);
          sums.object[r] = inside[a][r] ? sums.object[r] + term : sums.object[r];
          sums.light[r] = inside[a][r] ? sums.light[r] + squared_modulus(probe[a][r]) : sums.light[r];
        }
      }
    }
  }
};

// Each pattern's own probe.
struct OverlapOwnProbesKernel {
  static constexpr int kMostThreads = FramePlan::kGroupSize;
  OverlapAdd<float> args;
  FramePlan plan;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const PatchShape& shape = args.shape;
    const std::int64_t j = plan.pattern(group), frame = shape.side * shape.side;
    const std::int64_t patch = patch_begin(shape, args.corner, j), waves = waves_begin(shape, j);
    plan.each(group, [&](std::int64_t pixel, std::int64_t y, std::int64_t x) {
      const Complex object = load(args.object, patch + y * shape.width + x);
      for (std::int64_t at = waves + pixel; at < waves + shape.modes * frame; at += frame) {
        const Complex term = conjugate_times(object, load(args.waves, at));
        store(args.to_probe, at, args.onto ? load(args.to_probe, at) + term : Complex{} + term);
      }
    });
  }
};

// The probe that the patterns share: a column is a pixel of a mode.
struct ProbeTerms {
  static constexpr int kWidth = 2;
  OrderedSum sum;
  OverlapAdd<float> args;

  SEM_DEVICE auto at(std::int64_t column) const {
    const std::int64_t side = args.shape.side, pixel = column % (side * side);
    const std::int64_t from = pixel / side * args.shape.width + pixel % side;
    return [this, column, from](std::int64_t j, float (&addend)[kWidth]) {
      const Complex object = load(args.object, patch_begin(args.shape, args.corner, j) + from);
      const Complex term = conjugate_times(object, load(args.waves, waves_begin(args.shape, j) + column));
      addend[0] = term.re;
      addend[1] = term.im;
    };
  }
};

struct ExposureTerms {
  static constexpr int kWidth = 1;
  OrderedSum sum;
  OverlapAdd<float> args;

  SEM_DEVICE auto at(std::int64_t column) const {
    const std::int64_t from = column / args.shape.side * args.shape.width + column % args.shape.side;
    return [this, from](std::int64_t j, float (&addend)[kWidth]) {
      addend[0] = squared_modulus(load(args.object, patch_begin(args.shape, args.corner, j) + from));
    };
  }
};

inline std::int64_t floats(const OverlapAdd<float>&, const Limits&) { return 0; }

// Memory traffic: the waves are read twice, once if only one of object and probe is wanted.
template <class Launcher>
void run(const OverlapAdd<float>& args, float*, Launcher& launch) {
  const PatchShape& shape = args.shape;
  if (args.to_object != nullptr || args.illumination != nullptr) {
    const OverlapPlan plan(shape, launch.limits());
    if (plan.many)
      launch(OverlapObjectKernel<4>{args, plan.across}, plan.groups, OverlapPlan::kGroupSize,
             OverlapPlan::kLocalFloats);
    else
      launch(OverlapObjectKernel<1>{args, plan.across}, plan.groups, OverlapPlan::kGroupSize,
             OverlapPlan::kLocalFloats);
  }
  if (args.to_probe != nullptr) {
    if (shape.probes == 1) {
      run_ordered_sums(ProbeTerms{{shape.patterns, shape.modes * shape.frame(), args.onto, args.to_probe}, args},
                       launch);
    } else {
      const FramePlan plan = exit_waves_plan(shape);
      launch(OverlapOwnProbesKernel{args, plan}, plan.groups, FramePlan::kGroupSize, 0);
    }
  }
  if (args.exposure != nullptr)
    run_ordered_sums(ExposureTerms{{shape.patterns, shape.frame(), args.onto, args.exposure}, args}, launch);
}

}  // namespace sem::device
