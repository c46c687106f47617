// How phase transport is laid out on a device, and where a thread keeps its entries of a row.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

inline constexpr int kPitReach = 6;  // bins further from a phase see less than 7e-10 of the kernel's peak
inline constexpr int kPitTaps = 2 * kPitReach + 1;
inline constexpr int kPitEntries = 8;        // of a row that one thread holds in registers
inline constexpr int kPitForwardPlanes = 4;  // values held for an entry
inline constexpr int kPitBackwardPlanes = 10;
inline constexpr float kPitSmallest = 0x1p-100f;  // of the row's largest component: below it, no phase

// How a launch is laid out; from the sizes alone, so that bits do not depend on the device.
struct PitPlan {
  static constexpr int kMostThreads = 256;

  int group_size = 0;
  int columns = 0;  // private copies of the density
  bool in_registers = true;
  std::int64_t rows_per_group = 1;
  std::int64_t groups = 0;
  std::int64_t local_floats = 0;
  std::int64_t workspace_floats = 0;  // partial sums first, then the planes of rows that do not fit in registers
  std::int64_t partial_columns = 0;   // gradient to kerr, then to strength
  std::int64_t padded_width = 0;

  PitPlan() = default;
  PitPlan(std::int64_t rows, std::int64_t width, std::int32_t bins, bool backward, bool kerr,
          std::int64_t summing_groups = 0) {
    constexpr std::int64_t kColumnFloats = 8192, kMostGroups = 4096, kMostLongGroups = 512;
    group_size = 32;
    while (group_size < kMostThreads && group_size * kPitEntries < width) group_size *= 2;
    in_registers = group_size * kPitEntries >= width;
    const std::int64_t padded_bins = bins + 2 * kPitReach;
    columns = 32;
    while (columns > 1 && columns * padded_bins > kColumnFloats) columns /= 2;
    std::int64_t most = in_registers ? kMostGroups : kMostLongGroups;
    if (backward && summing_groups > 0 && summing_groups < most) most = summing_groups;
    // The forward leaves no sums behind: there, a group per row keeps the device fullest.
    rows_per_group = in_registers && !backward ? 1 : (rows + most - 1) / most;
    groups = rows == 0 ? 0 : (rows + rows_per_group - 1) / rows_per_group;
    local_floats = padded_bins * (columns + (backward ? 2 : 1)) + 2 * group_size;
    padded_width = (width + group_size - 1) / group_size * group_size;
    partial_columns = backward ? (kerr ? width + 1 : 1) : 0;
    const std::int64_t planes = backward ? kPitBackwardPlanes : kPitForwardPlanes;
    workspace_floats = groups * (partial_columns + (in_registers ? 0 : planes * padded_width));
  }
};

// The values that a thread holds for its entries of a row: entry i is number i * size + rank of the row.
template <int kPlanes>
class PitRegisters {
 public:
  template <class Group>
  SEM_DEVICE PitRegisters(const Group& group, const PitPlan&, std::int64_t width, float*)
      : rank_(group.rank()), size_(group.size()), width_(static_cast<int>(width)) {}
  SEM_DEVICE float& at(int plane, int i) { return values_[plane][i]; }
  template <class Body>
  SEM_DEVICE void each(Body body) const {
    SEM_UNROLL
    for (int i = 0; i < kPitEntries; ++i)
      if (i * size_ + rank_ < width_) body(i, static_cast<std::int64_t>(i * size_ + rank_));
  }

 private:
  int rank_, size_, width_;
  float values_[kPlanes][kPitEntries];
};

// The same in global memory, for rows of any width.
template <int kPlanes>
class PitMemory {
 public:
  template <class Group>
  SEM_DEVICE PitMemory(const Group& group, const PitPlan& plan, std::int64_t width, float* workspace)
      : rank_(group.rank()),
        size_(group.size()),
        width_(width),
        padded_(plan.padded_width),
        values_(workspace + plan.groups * plan.partial_columns + group.id() * kPlanes * plan.padded_width + rank_) {}
  SEM_DEVICE float& at(int plane, int i) { return values_[plane * padded_ + static_cast<std::int64_t>(i) * size_]; }
  template <class Body>
  SEM_DEVICE void each(Body body) const {
    int i = 0;
    for (std::int64_t d = rank_; d < width_; d += size_) body(i++, d);
  }

 private:
  int rank_, size_;
  std::int64_t width_, padded_;
  float* values_;
};

}  // namespace sem::device
