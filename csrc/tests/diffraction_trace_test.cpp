// The trace of the CPU's kernel, which no other back end has.
#include <gtest/gtest.h>

#include "tests/diffraction_problem.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::Experiment;
using testing::Problem;

class DiffractionTraces : public ::testing::TestWithParam<std::pair<std::string, Experiment>> {};

TEST_P(DiffractionTraces, TracesEndWithThePixelAndAgree) {
  Problem problem(GetParam().second);
  const auto image = problem.forward<float>([](const auto& args) { cpu::run(args, {nullptr, 1}); });
  const auto exact = problem.forward<double>([](const auto& args) { reference::run(args); });
  const auto table = converted<float>(problem.value.table);
  // Between a ball's rings sine and cosine cancel.
  const double limit = problem.experiment.shape == DomainShape::round ? 4e-6 : 1e-6;
  for (std::size_t pixel = 0; pixel < problem.pixels(); pixel += 23) {
    const auto slow = static_cast<std::int32_t>(pixel / problem.experiment.fast);
    const auto fast = static_cast<std::int32_t>(pixel % problem.experiment.fast);
    std::vector<TracedValue> trace, truth;
    cpu::run(DiffractionTrace<float>{problem.view<float>(table), slow, fast, &trace}, {nullptr, 1});
    reference::run(DiffractionTrace<double>{problem.view<double>(problem.value.table), slow, fast, &truth});
    ASSERT_EQ(trace.size(), truth.size());
    if (trace.empty()) continue;
    EXPECT_EQ(std::string(trace.back().name), "I_pixel_final");
    EXPECT_EQ(static_cast<float>(trace.back().value[0]), image[pixel]);
    EXPECT_EQ(truth.back().value[0], exact[pixel]);
    for (std::size_t k = 0; k < trace.size(); ++k) {
      const TracedValue &a = trace[k], &b = truth[k];
      ASSERT_EQ(std::string(a.name), b.name);
      EXPECT_TRUE(a.layer == b.layer && a.subpixel == b.subpixel && a.source == b.source && a.position == b.position &&
                  a.mosaic == b.mosaic)
          << a.name;
      ASSERT_EQ(a.count, b.count) << a.name;
      double size = 1e-30;
      for (int i = 0; i < b.count; ++i) size = std::max(size, std::abs(b.value[i]));
      for (int i = 0; i < b.count; ++i) EXPECT_NEAR(a.value[i], b.value[i], limit * size) << a.name << " of " << pixel;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Experiments, DiffractionTraces, ::testing::ValuesIn(testing::experiments()),
                         [](const auto& info) { return info.param.first; });

}  // namespace
}  // namespace sem
