// Sixteen neighbouring channels of a [..., channels, 2] array, one per lane, real and imaginary parts apart. The last
// block of an array may hold fewer; its missing lanes read zeros and are not written.
#pragma once

#include "cpu/complex.hpp"
#include "cpu/tile.hpp"
#include "sem/scan.hpp"

namespace sem::cpu::SEM_ISA {

class ChannelBlock {
 public:
  ChannelBlock() = default;
  ChannelBlock(const ScanShape& shape, std::int64_t index)
      : index_(index), first_(index * kLanes), count_(rows_in_tile(shape.channels, index)) {
    const std::int64_t per_group = shape.channels / shape.groups;
    first_group_ = first_ / per_group;
    const std::int64_t last_group = (first_ + count_ - 1) / per_group;
    groups_ = static_cast<int>(last_group - first_group_) + 1;
    for (int s = 1; s < groups_; ++s) start_[s] = static_cast<std::int32_t>((first_group_ + s) * per_group - first_);
    start_[groups_] = count_;
  }

  // The groups that have channels here: group s of the block holds the lanes from start(s) to start(s + 1).
  int groups() const { return groups_; }
  int start(int s) const { return start_[s]; }
  std::int64_t slot(int s) const { return index_ + first_group_ + s; }

  // One value per group, given to the group's lanes.
  SEM_INLINE vfloat spread(const float* groups) const {
    static constexpr float kNumber[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vfloat lane = load(kNumber);
    vfloat out = broadcast(groups[first_group_]);
    for (int s = 1; s < groups_; ++s) {
      const vint before = lane < static_cast<float>(start_[s]);
      out = select(before, out, broadcast(groups[first_group_ + s]));
    }
    return out;
  }

  vfloat load_real(const float* channels) const {
    float padded[kLanes] = {};
    for (int l = 0; l < count_; ++l) padded[l] = channels[first_ + l];
    return load(padded);
  }

  SEM_INLINE Complex load_complex(const float* channels) const {
    if (count_ == kLanes) return separate(channels + 2 * first_);
    float padded[2 * kLanes] = {};
    for (int n = 0; n < 2 * count_; ++n) padded[n] = channels[2 * first_ + n];
    return separate(padded);
  }

  // The hardware does not foresee strides of a page. Nothing is read, so the address may lie outside the array.
  SEM_INLINE void prefetch(const float* channels) const {
    __builtin_prefetch(channels + 2 * first_);
    __builtin_prefetch(channels + 2 * first_ + kLanes);
  }

  SEM_INLINE void store_complex(float* channels, Complex z) const {
    if (count_ == kLanes) return merge(channels + 2 * first_, z);
    float padded[2 * kLanes];
    merge(padded, z);
    for (int n = 0; n < 2 * count_; ++n) channels[2 * first_ + n] = padded[n];
  }

 private:
  std::int64_t index_ = 0, first_ = 0, first_group_ = 0;
  int count_ = 0, groups_ = 0;
  std::int32_t start_[kLanes + 1] = {};
};

}  // namespace sem::cpu::SEM_ISA
