// Sums of several numbers over a sub-group at once.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

// Adds to sums[i] the sum of values[i] over the sub-group, for i < count; `values` is kCount of them, a power of two,
// and is overwritten. At every exchange a thread gives away the half of its numbers that it is not going to sum: one
// exchange for each number, and log2 of the sub-group's size less. Called by all threads of the group; sums[i] is read
// and written by one thread, the same one in every call with the same kCount.
template <int kCount, class Group>
SEM_DEVICE void fold(const Group& group, float (&values)[kCount], float* sums, int count, int mask, int first) {
  if constexpr (kCount > 1) {
    if (mask > 0) {
      constexpr int kHalf = kCount / 2;
      const bool upper = (group.rank() & mask) != 0;
      float kept[kHalf];
      SEM_UNROLL
      for (int i = 0; i < kHalf; ++i) {
        const float given = upper ? values[i] : values[i + kHalf], own = upper ? values[i + kHalf] : values[i];
        kept[i] = own + group.shuffle_xor(given, mask);
      }
      return fold(group, kept, sums, count, mask / 2, first + (upper ? kHalf : 0));
    }
  }
  for (int m = mask; m > 0; m /= 2) values[0] += group.shuffle_xor(values[0], m);
  if (mask > 0 && group.rank() % (2 * mask) != 0) return;
  SEM_UNROLL
  for (int i = 0; i < kCount; ++i)
    if (first + i < count) sums[first + i] += values[i];
}

template <int kCount, class Group>
SEM_DEVICE void fold(const Group& group, float (&values)[kCount], float* sums, int count) {
  fold(group, values, sums, count, group.sub_group_size() / 2, 0);
}

}  // namespace sem::device
