#include "sem/encoder_step.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::normal_array;
using testing::relative_error;
using testing::uniform_array;

template <class Real>
struct Problem {
  std::int64_t batch, rounds, columns, dim;
  Real tol;
  std::int32_t sparsity;
  std::vector<Real> kernel, positions, loads, lost, lift, rates;

  template <class To>
  Problem<To> as() const {
    return {batch,
            rounds,
            columns,
            dim,
            static_cast<To>(tol),
            sparsity,
            converted<To>(kernel),
            converted<To>(positions),
            converted<To>(loads),
            converted<To>(lost),
            converted<To>(lift),
            converted<To>(rates)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> wave, loads, lost;
};

Problem<float> random_problem(std::int64_t batch, std::int64_t rounds, std::int64_t columns, std::int64_t dim,
                              float tol) {
  std::vector<float> positions;
  for (std::int64_t b = 0; b < batch; ++b) positions.push_back(static_cast<float>(3 + 40 * b));
  return {batch,
          rounds,
          columns,
          dim,
          tol,
          static_cast<std::int32_t>((columns + 1) / 2),
          uniform_array<float>(batch * columns, 0.05, 1, 1),
          positions,
          uniform_array<float>(batch * rounds * columns, 0, 3, 3),
          uniform_array<float>(batch * rounds * columns, -1e-7, 1e-7, 4),
          normal_array<float>(dim * 2 * columns, 5),
          uniform_array<float>(dim, 0, 1, 6)};
}

template <class Real, class Run>
Result<Real> stepped(const Problem<Real>& problem, Run run) {
  Result<Real> out{std::vector<Real>(static_cast<std::size_t>(problem.batch * problem.dim * 2)),
                   std::vector<Real>(problem.loads.size()), std::vector<Real>(problem.loads.size())};
  run(EncoderStep<Real>{problem.batch, problem.rounds, problem.columns, problem.dim, Real(16), problem.tol,
                        problem.sparsity, problem.kernel.data(), problem.positions.data(), problem.loads.data(),
                        problem.lost.data(), problem.lift.data(), problem.rates.data(), out.wave.data(),
                        out.loads.data(), out.lost.data()});
  return out;
}

Result<double> by_reference(const Problem<double>& problem) {
  return stepped(problem, reference::run<EncoderStep<double>>);
}

Result<float> by_cpu(const Problem<float>& problem, int threads) {
  return stepped(problem, [&](const EncoderStep<float>& args) { cpu::run(args, {nullptr, threads}); });
}

TEST(EncoderStepReference, ATokenByHand) {
  // two columns, one round: total 4, and w = kernel (20 / 2) / (8 + loads + kernel / 4); a quarter turn at position 3
  const double quarter = std::acos(-1.0) / 2;
  const Problem<double> problem{1, 1, 2, 1, 1e-3, 2, {1, 3}, {3}, {0, 1}, {0, 0}, {5, 2, 7, 11}, {quarter / 3}};
  const Result<double> out = by_reference(problem);
  const double first = 10 / 8.25, second = 30 / 9.75, excess = (second - first) / (first + second);
  EXPECT_LE(relative_error(out.wave, std::vector<double>{-11 * excess, 2 * excess}), 1e-14);
  EXPECT_LE(relative_error(out.loads, std::vector<double>{0.25, 1.75}), 1e-15);
}

TEST(EncoderStepReference, ASettledRowAddsTheSameInAllRoundsThatFollow) {
  Problem<double> problem = random_problem(1, 6, 4, 3, 10).as<double>();  // settled at the second round
  const Result<double> out = by_reference(problem);
  for (int round = 2; round < 6; ++round)
    for (int m = 0; m < 4; ++m) {
      const auto added = [&](int k) {
        return out.loads[4 * k + m] + out.lost[4 * k + m] - problem.loads[4 * k + m] - problem.lost[4 * k + m];
      };
      EXPECT_NEAR(added(round), added(1), 1e-15);
      EXPECT_GT(std::abs(added(0) - added(1)), 1e-6);
    }
}

class EncoderStepCpu : public ::testing::TestWithParam<std::tuple<int, int, int, int>> {};

// A tolerance of zero keeps all rounds; one of 10 settles every row at its second, so that rounding decides nothing.
TEST_P(EncoderStepCpu, MatchesReferenceForAnyNumberOfThreads) {
  const auto [batch, rounds, columns, dim] = GetParam();
  for (const float tol : {0.0f, 10.0f}) {
    const Problem<float> problem = random_problem(batch, rounds, columns, dim, tol);
    const Result<double> expected = by_reference(problem.as<double>());
    const Result<float> out = by_cpu(problem, 1);
    EXPECT_LE(relative_error(out.wave, expected.wave), 1e-5);  // the threshold takes most of an entry away
    for (std::size_t i = 0; i < out.loads.size(); ++i) {
      const double sum = static_cast<double>(out.loads[i]) + static_cast<double>(out.lost[i]);
      EXPECT_NEAR(sum, expected.loads[i] + expected.lost[i], 1e-6);
      EXPECT_LE(std::abs(out.lost[i]), 4e-7);
    }
    const Result<float> shared = by_cpu(problem, 3);
    EXPECT_EQ(out.wave, shared.wave);
    EXPECT_EQ(out.loads, shared.loads);
    EXPECT_EQ(out.lost, shared.lost);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, EncoderStepCpu,
                         ::testing::Values(std::tuple{0, 4, 5, 3}, std::tuple{1, 1, 1, 1}, std::tuple{1, 5, 16, 8},
                                           std::tuple{3, 7, 17, 5}, std::tuple{2, 50, 64, 128},
                                           std::tuple{5, 2, 130, 33}));

TEST(EncoderStepCpuRows, ASequenceWithNanLeavesTheOthersAlone) {
  Problem<float> problem = random_problem(3, 5, 20, 10, 1e-3f);
  const Result<float> clean = by_cpu(problem, 1);
  problem.kernel[20 + 7] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = by_cpu(problem, 1);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(out.wave[i], clean.wave[i]);
    EXPECT_EQ(out.wave[40 + i], clean.wave[40 + i]);
    EXPECT_TRUE(std::isnan(out.wave[20 + i]));
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(out.loads[200 + i], clean.loads[200 + i]);
}

}  // namespace
}  // namespace sem
