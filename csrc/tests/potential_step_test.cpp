#include "sem/potential_step.hpp"

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
using testing::uniform_array;

template <class Real>
struct Problem {
  std::int64_t rows, width;
  std::vector<Real> psi, potential, kerr, grad_out;

  template <class To>
  Problem<To> as() const {
    return {rows, width, converted<To>(psi), converted<To>(potential), converted<To>(kerr), converted<To>(grad_out)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_psi, grad_potential, grad_kerr;
};

Problem<float> random_problem(std::int64_t rows, std::int64_t width) {
  const std::size_t entries = static_cast<std::size_t>(rows * width);
  return {rows,
          width,
          normal_array<float>(2 * entries, 1),
          uniform_array<float>(entries, -4, 4, 2),
          uniform_array<float>(static_cast<std::size_t>(width), -1, 1, 3),
          normal_array<float>(2 * entries, 4)};
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{std::vector<Real>(problem.psi.size()), std::vector<Real>(problem.psi.size()),
                   std::vector<Real>(problem.potential.size()), std::vector<Real>(problem.kerr.size(), Real(9))};
  forward(PotentialStepForward<Real>{problem.rows, problem.width, problem.psi.data(), problem.potential.data(),
                                     problem.kerr.data(), out.out.data()});
  backward(PotentialStepBackward<Real>{problem.rows, problem.width, problem.psi.data(), problem.potential.data(),
                                       problem.kerr.data(), problem.grad_out.data(), out.grad_psi.data(),
                                       out.grad_potential.data(), out.grad_kerr.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<PotentialStepForward<double>>, reference::run<PotentialStepBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const PotentialStepForward<float>& args) { cpu::run(args, queue); },
      [&](const PotentialStepBackward<float>& args) { cpu::run(args, queue); });
}

TEST(PotentialStepReference, TurnsByThePotentialAndByTheShareOfTheIntensity) {
  // intensities 1/2 and 3/2 of the mean; the second row is zero
  const double quarter = std::acos(-1.0) / 2, root = std::sqrt(3.0);
  const Problem<double> problem{2,
                                2,
                                {1, 0, 0, root, 0, 0, 0, 0},
                                {quarter, -quarter, 1, 2},
                                {2 * quarter, 2 * quarter / 3},
                                std::vector<double>(8, 1.0)};
  const Result<double> out = run_reference(problem);
  EXPECT_LE(relative_error(out.out, std::vector<double>{-1, 0, 0, root, 0, 0, 0, 0}), 1e-15);
}

TEST(PotentialStepReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem(3, 5).as<double>();
  const Result<double> out = run_reference(problem);
  const auto objective = [&] { return dot(run_reference(problem).out, problem.grad_out); };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < input.size(); ++i)
      EXPECT_NEAR(gradient[i], central_difference(input[i], 1e-6, objective), 1e-7);
  };
  check(problem.psi, out.grad_psi);
  check(problem.potential, out.grad_potential);
  check(problem.kerr, out.grad_kerr);
}

class PotentialStepCpu : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(PotentialStepCpu, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam().first, GetParam().second);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 1e-6);
  EXPECT_LE(relative_error(out.grad_psi, expected.grad_psi), 2e-6);
  EXPECT_LE(relative_error(out.grad_potential, expected.grad_potential), 2e-6);
  EXPECT_LE(relative_error(out.grad_kerr, expected.grad_kerr), 2e-6);
  const Result<float> shared = run_cpu(problem, 3);
  EXPECT_EQ(out.out, shared.out);
  EXPECT_EQ(out.grad_psi, shared.grad_psi);
  EXPECT_EQ(out.grad_potential, shared.grad_potential);
  EXPECT_EQ(out.grad_kerr, shared.grad_kerr);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PotentialStepCpu,
                         ::testing::Values(std::pair{0, 8}, std::pair{1, 1}, std::pair{1, 15}, std::pair{1, 16},
                                           std::pair{1, 17}, std::pair{16, 3}, std::pair{1000, 7}, std::pair{64, 64},
                                           std::pair{200, 130}, std::pair{17, 512}));

// A phase of a thousand radians has an ulp of 6e-5.
TEST(PotentialStepCpuPhases, OfAThousandRadiansAreThoseOfTheFloats) {
  Problem<float> problem = random_problem(20, 40);
  problem.potential = uniform_array<float>(800, -1000, 1000, 5);
  problem.kerr = uniform_array<float>(40, -100, 100, 6);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 1e-4);
  problem.kerr.assign(40, 0.0f);
  EXPECT_LE(relative_error(run_cpu(problem, 1).out, run_reference(problem.as<double>()).out), 1e-6);
}

TEST(PotentialStepCpuPhases, OfAnySizeKeepTheModulus) {
  Problem<float> problem = random_problem(1, 8);
  problem.kerr.assign(8, 0.0f);
  problem.potential = {1e4f, -1e5f, 1e6f, -2e6f, 1e7f, -1e10f, 1e30f, 3e38f};
  const Result<float> out = run_cpu(problem, 1);
  for (std::size_t d = 0; d < 8; ++d)
    EXPECT_NEAR(std::hypot(out.out[2 * d], out.out[2 * d + 1]) / std::hypot(problem.psi[2 * d], problem.psi[2 * d + 1]),
                1, 1e-6);
}

TEST(PotentialStepCpuRows, OfZerosStayZeroWithTheTurnedGradient) {
  Problem<float> problem = random_problem(2, 21);
  std::fill_n(problem.psi.begin(), 42, 0.0f);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  for (std::size_t i = 0; i < 42; ++i) {
    EXPECT_EQ(out.out[i], 0.0f);
    EXPECT_NEAR(out.grad_psi[i], expected.grad_psi[i], 1e-6);
  }
  EXPECT_LE(relative_error(out.grad_psi, expected.grad_psi), 2e-6);
}

TEST(PotentialStepCpuRows, ARowDependsOnItselfAlone) {
  constexpr std::size_t kWidth = 19;
  Problem<float> problem = random_problem(37, kWidth);
  const Result<float> clean = run_cpu(problem, 1);
  problem.psi[5 * 2 * kWidth + 3] = std::numeric_limits<float>::quiet_NaN();
  problem.potential[7 * kWidth] = std::numeric_limits<float>::infinity();
  const Result<float> out = run_cpu(problem, 1);
  for (std::size_t row = 0; row < 37; ++row) {
    const auto part = [&](const std::vector<float>& all, std::size_t of) {
      return std::vector<float>(all.begin() + row * of, all.begin() + (row + 1) * of);
    };
    if (row == 5) {
      for (float value : part(out.out, 2 * kWidth)) EXPECT_TRUE(std::isnan(value));
      continue;
    }
    if (row == 7) {
      EXPECT_TRUE(std::isnan(out.out[row * 2 * kWidth]));
      continue;
    }
    EXPECT_EQ(part(clean.out, 2 * kWidth), part(out.out, 2 * kWidth));
    const Result<float> alone = run_cpu({1, kWidth, part(problem.psi, 2 * kWidth), part(problem.potential, kWidth),
                                         problem.kerr, part(problem.grad_out, 2 * kWidth)},
                                        1);
    EXPECT_EQ(alone.out, part(out.out, 2 * kWidth));
    EXPECT_EQ(alone.grad_psi, part(out.grad_psi, 2 * kWidth));
    EXPECT_EQ(alone.grad_potential, part(out.grad_potential, kWidth));
  }
}

}  // namespace
}  // namespace sem
