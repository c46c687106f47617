#include "sem/wave_gate.hpp"

#include <gtest/gtest.h>

#include <cmath>
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
  std::int64_t rows, width;
  std::vector<Real> psi, logits, grad_out;

  template <class To>
  Problem<To> as() const {
    return {rows, width, converted<To>(psi), converted<To>(logits), converted<To>(grad_out)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_psi, grad_logits;
};

// Logits between -10 and 10, so that gates are shut and open.
Problem<float> random_problem(std::int64_t rows, std::int64_t width) {
  const std::size_t entries = static_cast<std::size_t>(rows * width);
  return {rows, width, normal_array<float>(2 * entries, 1), testing::uniform_array<float>(entries, -10, 10, 2),
          normal_array<float>(2 * entries, 3)};
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{std::vector<Real>(problem.psi.size()), std::vector<Real>(problem.psi.size()),
                   std::vector<Real>(problem.logits.size())};
  forward(
      WaveGateForward<Real>{problem.rows, problem.width, problem.psi.data(), problem.logits.data(), out.out.data()});
  backward(WaveGateBackward<Real>{problem.rows, problem.width, problem.psi.data(), problem.logits.data(),
                                  problem.grad_out.data(), out.grad_psi.data(), out.grad_logits.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<WaveGateForward<double>>, reference::run<WaveGateBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const WaveGateForward<float>& args) { cpu::run(args, queue); },
      [&](const WaveGateBackward<float>& args) { cpu::run(args, queue); });
}

TEST(WaveGateReference, IsShutAtZeroAndTheLogitItselfFarAbove) {
  const Problem<double> problem{1, 3, {1, 2, 3, 4, 5, 6}, {0, std::log(3.0), 100}, {1, 0, 0, 1, 1, 0}};
  const double factor = 0.75 * std::log(3.0);
  const Result<double> out = run_reference(problem);
  EXPECT_LE(relative_error(out.out, std::vector<double>{0, 0, 3 * factor, 4 * factor, 500, 600}), 1e-15);
  EXPECT_LE(relative_error(out.grad_logits, std::vector<double>{0.5, 4 * (0.75 + 0.25 * factor), 5}), 1e-15);
}

TEST(WaveGateReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem(3, 5).as<double>();
  const Result<double> out = run_reference(problem);
  const auto objective = [&] { return dot(run_reference(problem).out, problem.grad_out); };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < input.size(); ++i)
      EXPECT_NEAR(gradient[i], central_difference(input[i], 1e-6, objective), 1e-7);
  };
  check(problem.psi, out.grad_psi);
  check(problem.logits, out.grad_logits);
}

class WaveGateCpu : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(WaveGateCpu, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam().first, GetParam().second);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 5e-7);
  EXPECT_LE(relative_error(out.grad_psi, expected.grad_psi), 5e-7);
  EXPECT_LE(relative_error(out.grad_logits, expected.grad_logits), 1e-6);
  const Result<float> shared = run_cpu(problem, 3);
  EXPECT_EQ(out.out, shared.out);
  EXPECT_EQ(out.grad_psi, shared.grad_psi);
  EXPECT_EQ(out.grad_logits, shared.grad_logits);
}

INSTANTIATE_TEST_SUITE_P(Shapes, WaveGateCpu,
                         ::testing::Values(std::pair{0, 8}, std::pair{1, 1}, std::pair{1, 15}, std::pair{1, 16},
                                           std::pair{1, 17}, std::pair{16, 3}, std::pair{1000, 7}, std::pair{64, 64},
                                           std::pair{70, 130}));

// Where exp(l) and exp(-l) leave the range of float32, and where l times a denormal sigmoid would not be small.
TEST(WaveGateCpuLogits, OfAnySizeGiveWhatTheReferenceDoes) {
  const std::vector<float> sizes{-1e30f, -1e5f, -100, -88, -80, -50, -20, 20, 50, 88, 100, 1e5f, 1e30f};
  Problem<float> problem = random_problem(1, static_cast<std::int64_t>(sizes.size()));
  problem.logits = sizes;
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  const auto check = [](const std::vector<float>& found, const std::vector<double>& truth) {
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(found[i], truth[i], 1e-6 * std::abs(truth[i]) + 1e-30) << i;
  };
  check(out.out, expected.out);
  check(out.grad_psi, expected.grad_psi);
  check(out.grad_logits, expected.grad_logits);
}

TEST(WaveGateCpuRows, ARowDependsOnItselfAlone) {
  constexpr std::size_t kWidth = 19;
  Problem<float> problem = random_problem(37, kWidth);
  const Result<float> clean = run_cpu(problem, 1);
  problem.psi[5 * 2 * kWidth] = problem.logits[7 * kWidth] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = run_cpu(problem, 1);
  for (std::size_t i = 0; i < out.out.size(); ++i) {
    const bool spoilt = i == 5 * 2 * kWidth || i / 2 == 7 * kWidth;
    EXPECT_EQ(std::isnan(out.out[i]), spoilt);
    if (!spoilt) {
      EXPECT_EQ(out.out[i], clean.out[i]);
    }
  }
  for (std::size_t row = 8; row < 37; ++row) {
    const auto part = [&](const std::vector<float>& all, std::size_t of) {
      return std::vector<float>(all.begin() + row * of, all.begin() + (row + 1) * of);
    };
    const Result<float> alone = run_cpu(
        {1, kWidth, part(problem.psi, 2 * kWidth), part(problem.logits, kWidth), part(problem.grad_out, 2 * kWidth)},
        1);
    EXPECT_EQ(alone.out, part(out.out, 2 * kWidth));
    EXPECT_EQ(alone.grad_psi, part(out.grad_psi, 2 * kWidth));
    EXPECT_EQ(alone.grad_logits, part(out.grad_logits, kWidth));
  }
}

}  // namespace
}  // namespace sem
