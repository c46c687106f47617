#include "sem/complex_rms_norm.hpp"

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
using testing::uniform_array;

template <class Real>
struct Problem {
  std::int64_t rows, width;
  std::vector<Real> z, gamma, grad_out;
  Real eps = Real(1e-6);

  template <class To>
  Problem<To> as() const {
    return {rows, width, converted<To>(z), converted<To>(gamma), converted<To>(grad_out), static_cast<To>(eps)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_z, grad_gamma;
};

// Every seventh entry is zero and so not active.
Problem<float> random_problem(std::int64_t rows, std::int64_t width, double scale = 1) {
  Problem<float> problem{rows, width, normal_array<float>(2 * rows * width, 1), uniform_array<float>(width, 0.5, 2, 2),
                         normal_array<float>(2 * rows * width, 3)};
  for (float& value : problem.z) value = static_cast<float>(value * scale);
  for (std::size_t i = 12; i + 1 < problem.z.size(); i += 14) problem.z[i] = problem.z[i + 1] = 0;
  return problem;
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{std::vector<Real>(problem.z.size()), std::vector<Real>(problem.z.size()),
                   std::vector<Real>(problem.gamma.size(), Real(9))};
  forward(ComplexRmsNormForward<Real>{problem.rows, problem.width, problem.eps, problem.z.data(), problem.gamma.data(),
                                      out.out.data()});
  backward(ComplexRmsNormBackward<Real>{problem.rows, problem.width, problem.eps, problem.z.data(),
                                        problem.gamma.data(), problem.grad_out.data(), out.grad_z.data(),
                                        out.grad_gamma.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<ComplexRmsNormForward<double>>, reference::run<ComplexRmsNormBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const ComplexRmsNormForward<float>& args) { cpu::run(args, queue); },
      [&](const ComplexRmsNormBackward<float>& args) { cpu::run(args, queue); });
}

TEST(RmsNormReference, ARowByHand) {
  // |z|^2 = 25, 0, 25: two active entries, rms 5
  const Problem<double> problem{1, 3, {3, 4, 0, 0, 0, -5}, {1, 1, 2}, {1, 0, 0, 0, 0, 0}, 0};
  const Result<double> out = run_reference(problem);
  EXPECT_LE(relative_error(out.out, std::vector<double>{0.6, 0.8, 0, 0, 0, -2}), 1e-15);
  // d out_0 = dz_0 / 5 - z_0 sum_e Re(conj(z_e) dz_e) / (2 * 5^3), read backwards
  const double pull = 3.0 / 250;
  EXPECT_LE(relative_error(out.grad_z, std::vector<double>{0.2 - 3 * pull, -4 * pull, 0, 0, 0, 5 * pull}), 1e-15);
  EXPECT_LE(relative_error(out.grad_gamma, std::vector<double>{0.6, 0, 0}), 1e-15);
}

TEST(RmsNormReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem(2, 5).as<double>();
  for (double& value : problem.z)
    if (value == 0) value = 1e-4;
  const Result<double> out = run_reference(problem);
  const auto objective = [&] { return dot(run_reference(problem).out, problem.grad_out); };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < input.size(); ++i)
      EXPECT_NEAR(gradient[i], central_difference(input[i], 1e-6, objective), 1e-7);
  };
  check(problem.z, out.grad_z);
  check(problem.gamma, out.grad_gamma);
}

class RmsNormCpu : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(RmsNormCpu, MatchesReferenceForAnyNumberOfThreads) {
  for (const double scale : {1.0, 1e-4, 1e8}) {
    const Problem<float> problem = random_problem(GetParam().first, GetParam().second, scale);
    const Result<double> expected = run_reference(problem.as<double>());
    const Result<float> out = run_cpu(problem, 1);
    EXPECT_LE(relative_error(out.out, expected.out), 1e-6);
    EXPECT_LE(relative_error(out.grad_z, expected.grad_z), 1e-6);
    EXPECT_LE(relative_error(out.grad_gamma, expected.grad_gamma), 1e-6);
    const Result<float> shared = run_cpu(problem, 3);
    EXPECT_EQ(out.out, shared.out);
    EXPECT_EQ(out.grad_z, shared.grad_z);
    EXPECT_EQ(out.grad_gamma, shared.grad_gamma);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, RmsNormCpu,
                         ::testing::Values(std::pair{0, 5}, std::pair{1, 1}, std::pair{1, 16}, std::pair{3, 17},
                                           std::pair{63, 31}, std::pair{64, 32}, std::pair{65, 130},
                                           std::pair{200, 1000}));

TEST(RmsNormCpuRows, BadRowsAreContained) {
  Problem<float> problem = random_problem(4, 20);
  const Result<float> clean = run_cpu(problem, 1);
  problem.z[40 + 7] = std::numeric_limits<float>::quiet_NaN();
  for (int i = 80; i < 120; ++i) problem.z[i] = 0;
  const Result<float> out = run_cpu(problem, 1);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(out.out[i], clean.out[i]);
    EXPECT_EQ(out.out[120 + i], clean.out[120 + i]);
    EXPECT_EQ(out.grad_z[120 + i], clean.grad_z[120 + i]);
    EXPECT_TRUE(std::isnan(out.out[40 + i]) && std::isnan(out.grad_z[40 + i]));
    EXPECT_EQ(out.out[80 + i], 0);
    EXPECT_TRUE(std::isfinite(out.grad_z[80 + i]));
  }
  EXPECT_TRUE(std::isnan(out.grad_gamma[0]));
}

}  // namespace
}  // namespace sem
