#include "sem/born_step.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::normal_array;

template <class Real>
struct Problem {
  std::int64_t batch, vocab, dim;
  std::vector<Real> psi, matrix, bias;

  template <class To>
  Problem<To> as() const {
    return {batch, vocab, dim, converted<To>(psi), converted<To>(matrix), converted<To>(bias)};
  }
};

Problem<float> random_problem(std::int64_t batch, std::int64_t vocab, std::int64_t dim) {
  return {batch,
          vocab,
          dim,
          normal_array<float>(batch * dim * 2, 1),
          normal_array<float>(vocab * dim * 2, 2),
          normal_array<float>(vocab, 3)};
}

template <class Real, class Run>
std::vector<Real> log_probabilities(const Problem<Real>& problem, Run run) {
  std::vector<Real> out(static_cast<std::size_t>(problem.batch * problem.vocab));
  run(BornStep<Real>{problem.batch, problem.vocab, problem.dim, Real(1e-6), problem.psi.data(), problem.matrix.data(),
                     problem.bias.data(), out.data()});
  return out;
}

std::vector<double> by_reference(const Problem<double>& problem) {
  return log_probabilities(problem, reference::run<BornStep<double>>);
}
std::vector<float> by_cpu(const Problem<float>& problem, int threads) {
  return log_probabilities(problem, [&](const BornStep<float>& args) { cpu::run(args, {nullptr, threads}); });
}

TEST(BornStepReference, TwoWordsByHand) {
  // amplitudes 2i and 1: q = 4, 1, whose floor is 2.5e-6; the second word's bias is log 2
  const Problem<double> problem{1, 2, 1, {0, 1}, {2, 0, 0, -1}, {0, std::log(2.0)}};
  const std::vector<double> out = by_reference(problem);
  const double first = 4 + 2.5e-6, second = 2 * (1 + 2.5e-6);
  EXPECT_NEAR(out[0], std::log(first / (first + second)), 1e-15);
  EXPECT_NEAR(out[1], std::log(second / (first + second)), 1e-15);
}

class BornStepCpu : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

// Near a zero of an amplitude the logarithm magnifies its rounding: probabilities are compared.
TEST_P(BornStepCpu, MatchesReferenceForAnyNumberOfThreads) {
  const auto [batch, vocab, dim] = GetParam();
  const Problem<float> problem = random_problem(batch, vocab, dim);
  const std::vector<double> expected = by_reference(problem.as<double>());
  const std::vector<float> out = by_cpu(problem, 1);
  for (std::size_t i = 0; i < out.size(); ++i)
    EXPECT_NEAR(std::exp(static_cast<double>(out[i])), std::exp(expected[i]), 2e-6);
  EXPECT_EQ(out, by_cpu(problem, 3));
}

INSTANTIATE_TEST_SUITE_P(Sizes, BornStepCpu,
                         ::testing::Values(std::tuple{0, 4, 3}, std::tuple{1, 1, 1}, std::tuple{3, 17, 9},
                                           std::tuple{2, 260, 128}, std::tuple{3, 5000, 40}));

TEST(BornStepCpuRows, RowsKnowNothingOfEachOther) {
  Problem<float> problem = random_problem(3, 20, 10);
  const std::vector<float> clean = by_cpu(problem, 1);
  problem.psi[20 + 5] = std::numeric_limits<float>::quiet_NaN();
  for (int i = 40; i < 60; ++i) problem.psi[i] = 0;  // no word is more likely than its bias says
  const std::vector<float> out = by_cpu(problem, 1);
  double sum = 0;
  for (int v = 0; v < 20; ++v) {
    EXPECT_EQ(out[v], clean[v]);
    EXPECT_TRUE(std::isnan(out[20 + v]));
    EXPECT_NEAR(out[40 + v] - out[40], problem.bias[v] - problem.bias[0], 2e-5);
    sum += std::exp(out[40 + v]);
  }
  EXPECT_NEAR(sum, 1, 1e-5);
}

}  // namespace
}  // namespace sem
