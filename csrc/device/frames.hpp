// Square frames [patterns, side, side], shared out over groups: a group takes a run of one frame's pixels, a thread
// every kGroupSize-th of them, so that threads that follow each other touch memory that does. How many patterns there
// are decides how many groups there are and nothing else.
#pragma once

#include <cstdint>

#include "device/group.hpp"
#include "device/math.hpp"

namespace sem::device {

struct FramePlan {
  static constexpr int kGroupSize = 256;

  // `pixels` of a thread, at most.
  FramePlan(std::int64_t patterns, std::int64_t side, std::int64_t pixels)
      : side(side), run(pixels * kGroupSize), runs(side * side > run ? (side * side + run - 1) / run : 1) {
    groups = patterns * runs;
    down = side > 0 ? kGroupSize / side : 0;
    along = side > 0 ? kGroupSize % side : 0;
  }

  template <class Group>
  SEM_DEVICE std::int64_t pattern(const Group& group) const {
    return group.id() / runs;
  }
  // use(pixel, y, x) for every pixel of this thread.
  template <class Group, class Use>
  SEM_DEVICE void each(const Group& group, Use use) const {
    const std::int64_t begin = group.id() % runs * run, end = min(begin + run, side * side);
    std::int64_t pixel = begin + group.rank();
    if (pixel >= end) return;
    std::int64_t y = pixel / side, x = pixel % side;
    for (; pixel < end; pixel += kGroupSize) {
      use(pixel, y, x);
      y += down;
      x += along;
      if (x >= side) {
        x -= side;
        ++y;
      }
    }
  }

  std::int64_t side, run, runs, groups = 0;
  std::int64_t down = 0, along = 0;  // from a thread's pixel to its next
};

}  // namespace sem::device
