#include "sem/causal_conv.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::central_difference;
using testing::converted;
using testing::dot;
using testing::normal_array;
using testing::relative_error;

template <class Real>
struct Problem {
  ConvShape shape;
  std::vector<Real> x, history, taps, bias, theta, grad_out;  // theta may be empty: no gate

  template <class To>
  Problem<To> as() const {
    return {shape,
            converted<To>(x),
            converted<To>(history),
            converted<To>(taps),
            converted<To>(bias),
            converted<To>(theta),
            converted<To>(grad_out)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_x, grad_history, grad_taps, grad_bias, grad_theta;
};

Problem<float> random_problem(ConvShape shape, bool gated) {
  const std::size_t row = static_cast<std::size_t>(2 * shape.channels);
  const std::size_t inputs = row * static_cast<std::size_t>(shape.batch * shape.steps);
  std::vector<float> taps = normal_array<float>(row * static_cast<std::size_t>(shape.taps), 3);
  for (float& tap : taps) tap /= std::sqrt(static_cast<float>(2 * shape.taps));
  return {shape,
          normal_array<float>(inputs, 1),
          normal_array<float>(row * static_cast<std::size_t>(shape.batch * (shape.taps - 1)), 2),
          taps,
          normal_array<float>(row, 4),
          normal_array<float>(gated ? row / 2 : 0, 5),
          normal_array<float>(inputs, 6)};
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  const auto filled = [](const std::vector<Real>& like) { return std::vector<Real>(like.size(), Real(9)); };
  Result<Real> out{filled(problem.x),    filled(problem.x),    filled(problem.history),
                   filled(problem.taps), filled(problem.bias), filled(problem.theta)};
  const Real* theta = problem.theta.empty() ? nullptr : problem.theta.data();
  forward(CausalConvForward<Real>{problem.shape, problem.x.data(), problem.history.data(), problem.taps.data(),
                                  problem.bias.data(), theta, out.out.data()});
  backward(CausalConvBackward<Real>{problem.shape, problem.x.data(), problem.history.data(), problem.taps.data(),
                                    problem.bias.data(), theta, problem.grad_out.data(), out.grad_x.data(),
                                    out.grad_history.data(), out.grad_taps.data(), out.grad_bias.data(),
                                    theta == nullptr ? nullptr : out.grad_theta.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<CausalConvForward<double>>, reference::run<CausalConvBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const CausalConvForward<float>& args) { cpu::run(args, queue); },
      [&](const CausalConvBackward<float>& args) { cpu::run(args, queue); });
}

TEST(CausalConvReference, TwoTapsByHand) {
  // v_0 = i + 2 * 3 + 1 = 7 + i with 3 before the start, v_1 = i (1 + i) + 2 * 1 = 1 + i
  Problem<double> problem{{1, 2, 1, 2}, {1, 0, 1, 1}, {3, 0}, {2, 0, 0, 1}, {0, 0}, {}, {0, 0, 0, 0}};
  EXPECT_LE(relative_error(run_reference(problem).out, std::vector<double>{6, 1, 1, 1}), 1e-15);
  problem.theta = {std::log(2.0)};
  const double first = -std::expm1(-2 * 37.0), second = -std::expm1(-4.0);
  EXPECT_LE(relative_error(run_reference(problem).out, std::vector<double>{6 * first, first, second, second}), 1e-15);
}

TEST(CausalConvReference, GradientsMatchFiniteDifferences) {
  for (const bool gated : {false, true}) {
    Problem<double> problem = random_problem({2, 4, 2, 3}, gated).as<double>();
    const Result<double> out = run_reference(problem);
    const auto objective = [&] { return dot(run_reference(problem).out, problem.grad_out); };
    const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient) {
      for (std::size_t i = 0; i < input.size(); ++i)
        EXPECT_NEAR(gradient[i], central_difference(input[i], 1e-6, objective), 1e-7);
    };
    check(problem.x, out.grad_x);
    check(problem.history, out.grad_history);
    check(problem.taps, out.grad_taps);
    check(problem.bias, out.grad_bias);
    check(problem.theta, out.grad_theta);
  }
}

class CausalConvCpu : public ::testing::TestWithParam<ConvShape> {};

TEST_P(CausalConvCpu, MatchesReferenceForAnyNumberOfThreads) {
  for (const bool gated : {false, true}) {
    const Problem<float> problem = random_problem(GetParam(), gated);
    const Result<double> expected = run_reference(problem.as<double>());
    const Result<float> out = run_cpu(problem, 1);
    EXPECT_LE(relative_error(out.out, expected.out), 1e-6);
    EXPECT_LE(relative_error(out.grad_x, expected.grad_x), 2e-6);
    EXPECT_LE(relative_error(out.grad_history, expected.grad_history), 2e-6);
    EXPECT_LE(relative_error(out.grad_taps, expected.grad_taps), 2e-6);
    EXPECT_LE(relative_error(out.grad_bias, expected.grad_bias), 2e-6);
    EXPECT_LE(relative_error(out.grad_theta, expected.grad_theta), 2e-6);
    const Result<float> shared = run_cpu(problem, 3);
    EXPECT_EQ(out.out, shared.out);
    EXPECT_EQ(out.grad_x, shared.grad_x);
    EXPECT_EQ(out.grad_history, shared.grad_history);
    EXPECT_EQ(out.grad_taps, shared.grad_taps);
    EXPECT_EQ(out.grad_bias, shared.grad_bias);
    EXPECT_EQ(out.grad_theta, shared.grad_theta);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CausalConvCpu,
                         ::testing::Values(ConvShape{0, 4, 3, 4}, ConvShape{2, 0, 5, 3}, ConvShape{1, 1, 1, 1},
                                           ConvShape{2, 1, 17, 4}, ConvShape{3, 2, 16, 9}, ConvShape{1, 64, 33, 4},
                                           ConvShape{2, 65, 48, 2}, ConvShape{2, 130, 20, 4}, ConvShape{1, 70, 3, 1},
                                           ConvShape{1, 90, 5, 80}));

TEST(CausalConvCpuRows, ASmallWaveIsGatedToItsFullPrecision) {
  // 1 - exp(-|v|^2) of |v|^2 = 1e-8 would be 0 in float32 without care
  Problem<float> problem{{1, 1, 1, 1}, {1e-4f, 0}, {}, {1, 0}, {0, 0}, {0}, {0, 0}};
  EXPECT_NEAR(run_cpu(problem, 1).out[0] / 1e-12, 1, 1e-5);
}

TEST(CausalConvCpuRows, NanStaysInItsSequenceAndChannelAndTheNextPositions) {
  Problem<float> problem = random_problem({2, 20, 20, 4}, true);
  const Result<float> clean = run_cpu(problem, 1);
  problem.x[((0 * 20 + 9) * 20 + 18) * 2] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = run_cpu(problem, 1);
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < 20; ++t)
      for (int c = 0; c < 20; ++c) {
        const std::size_t at = static_cast<std::size_t>((b * 20 + t) * 20 + c) * 2;
        if (b == 0 && t >= 9 && t < 13 && c == 18)
          EXPECT_TRUE(std::isnan(out.out[at]));
        else
          EXPECT_EQ(out.out[at], clean.out[at]);
      }
}

}  // namespace
}  // namespace sem
