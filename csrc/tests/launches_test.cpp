// What the host does on a device: how many launches an operator takes.
#include <gtest/gtest.h>

#include "device/operators.hpp"
#include "tests/problems.hpp"

namespace sem {
namespace {

// Counts launches, runs nothing.
struct Counter {
  int launches = 0;
  device::Limits limits() const { return {99 * 1024, 1024, 32}; }
  template <class Kernel>
  void operator()(const Kernel&, std::int64_t groups, int group_size, std::int64_t local_floats) {
    if (groups == 0) return;
    ++launches;
    EXPECT_LE(group_size, Kernel::kMostThreads);
    EXPECT_LE(4 * local_floats, limits().local_bytes);
  }
};

TEST(SolitonBackendLaunches, AreTwoForwardAndFourBackwardAtEverySize) {
  for (const int width : {2, 256, 1024, 4096, 8192}) {
    const testing::OwnedGraph graph = testing::OwnedGraph::small_world(width, 2, width / 2, 5);
    const float number = 0.1f;
    const std::vector<float> kerr(width);
    std::vector<float> wave(6 * width), grad(6 * width);
    SolitonStepForward<float> forward;
    forward.graph = graph.view();
    forward.rows = 3;
    forward.num_bins = 32;
    forward.psi = wave.data();
    forward.kerr = kerr.data();
    forward.strength = forward.settings.half_dt = &number;
    Counter ahead;
    device::run(forward, nullptr, ahead);
    EXPECT_EQ(ahead.launches, 2) << width;
    SolitonStepBackward<float> backward;
    backward.graph = graph.view();
    backward.rows = 3;
    backward.num_bins = 32;
    backward.psi = wave.data();
    backward.kerr = kerr.data();
    backward.strength = backward.settings.half_dt = &number;
    Counter back;
    device::run(backward, nullptr, back);
    EXPECT_EQ(back.launches, 4) << width;
  }
}

template <class Args>
int launches(const Args& args) {
  Counter counter;
  device::run(args, nullptr, counter);
  return counter.launches;
}

TEST(PtychographyBackendLaunches, FollowWhatIsWanted) {
  std::vector<float> out(1);
  float* const wanted = out.data();
  for (const std::int64_t side : {1, 16, 64, 65, 512}) {
    for (const std::int64_t patterns : {1, 100}) {
      const bool one_run = side <= 64;
      const PatchShape shape{patterns, 1, 2, side, 1000, 2000};
      EXPECT_EQ(launches(ExitWavesForward<float>{shape}), 1);
      OverlapAdd<float> sums{shape};
      EXPECT_EQ(launches(sums), 0);
      sums.to_object = sums.illumination = wanted;
      EXPECT_EQ(launches(sums), 1);
      sums.to_probe = sums.exposure = wanted;
      EXPECT_EQ(launches(sums), 3);
      sums.shape.probes = patterns;
      EXPECT_EQ(launches(sums), 3);
      FarResidual<float> residual;
      residual.patterns = patterns;
      residual.frame = side * side;
      EXPECT_EQ(launches(residual), one_run ? 1 : 2);
      residual.to_background = wanted;
      EXPECT_EQ(launches(residual), one_run ? 2 : 3);
      EXPECT_EQ(launches(ShiftRampForward<float>{{patterns, 2, side}}), 2);
      EXPECT_EQ(launches(ShiftRampBackward<float>{{patterns, 2, side}}), one_run ? 3 : 4);
    }
  }
}

}  // namespace
}  // namespace sem
