#include "sem/transport_row.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::relative_error;
using testing::uniform_array;

template <class Real>
struct Problem {
  std::int64_t batch, rounds, columns;
  Real tol;
  std::vector<Real> kernel, seen, loads, lost;

  template <class To>
  Problem<To> as() const {
    return {batch,
            rounds,
            columns,
            static_cast<To>(tol),
            converted<To>(kernel),
            converted<To>(seen),
            converted<To>(loads),
            converted<To>(lost)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> plan, loads, lost;
};

Problem<float> random_problem(std::int64_t batch, std::int64_t rounds, std::int64_t columns, float tol) {
  return {batch,
          rounds,
          columns,
          tol,
          uniform_array<float>(batch * columns, 0.05, 1, 1),
          uniform_array<float>(batch, 20, 60, 2),
          uniform_array<float>(batch * rounds * columns, 0, 3, 3),
          uniform_array<float>(batch * rounds * columns, -1e-7, 1e-7, 4)};
}

template <class Real, class Run>
Result<Real> transported(const Problem<Real>& problem, Run run) {
  Result<Real> out{std::vector<Real>(problem.kernel.size()), std::vector<Real>(problem.loads.size()),
                   std::vector<Real>(problem.loads.size())};
  run(TransportRow<Real>{problem.batch, problem.rounds, problem.columns, Real(16), problem.tol, problem.kernel.data(),
                         problem.seen.data(), problem.loads.data(), problem.lost.data(), out.plan.data(),
                         out.loads.data(), out.lost.data()});
  return out;
}

Result<double> by_reference(const Problem<double>& problem) {
  return transported(problem, reference::run<TransportRow<double>>);
}

Result<float> by_cpu(const Problem<float>& problem, int threads) {
  return transported(problem, [&](const TransportRow<float>& args) { cpu::run(args, {nullptr, threads}); });
}

TEST(TransportRowReference, ARowByHand) {
  // two columns, one round: total 4, and w = kernel (20 / 2) / (8 + loads + kernel / 4)
  const Problem<double> problem{1, 1, 2, 1e-3, {1, 3}, {20}, {0, 1}, {0, 0}};
  const Result<double> out = by_reference(problem);
  const double first = 10 / 8.25, second = 30 / 9.75;
  EXPECT_LE(relative_error(out.plan, std::vector<double>{first / (first + second), second / (first + second)}), 1e-15);
  EXPECT_LE(relative_error(out.loads, std::vector<double>{0.25, 1.75}), 1e-15);
}

TEST(TransportRowReference, ASettledRowAddsTheSameInAllRoundsThatFollow) {
  Problem<double> problem = random_problem(1, 6, 4, 10).as<double>();  // settled at the second round
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

class TransportRowCpu : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

// A tolerance of zero keeps all rounds; one of 10 settles every row at its second, so that rounding decides nothing.
TEST_P(TransportRowCpu, MatchesReferenceForAnyNumberOfThreads) {
  const auto [batch, rounds, columns] = GetParam();
  for (const float tol : {0.0f, 10.0f}) {
    const Problem<float> problem = random_problem(batch, rounds, columns, tol);
    const Result<double> expected = by_reference(problem.as<double>());
    const Result<float> out = by_cpu(problem, 1);
    EXPECT_LE(relative_error(out.plan, expected.plan), 1e-6);
    for (std::size_t i = 0; i < out.loads.size(); ++i) {
      const double sum = static_cast<double>(out.loads[i]) + static_cast<double>(out.lost[i]);
      EXPECT_NEAR(sum, expected.loads[i] + expected.lost[i], 1e-6);
      EXPECT_LE(std::abs(out.lost[i]), 4e-7);
    }
    const Result<float> shared = by_cpu(problem, 3);
    EXPECT_EQ(out.plan, shared.plan);
    EXPECT_EQ(out.loads, shared.loads);
    EXPECT_EQ(out.lost, shared.lost);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TransportRowCpu,
                         ::testing::Values(std::tuple{0, 4, 5}, std::tuple{1, 1, 1}, std::tuple{1, 5, 16},
                                           std::tuple{3, 7, 17}, std::tuple{2, 50, 64}, std::tuple{5, 2, 130}));

TEST(TransportRowCpuRows, ASequenceWithNanLeavesTheOthersAlone) {
  Problem<float> problem = random_problem(3, 5, 20, 1e-3f);
  const Result<float> clean = by_cpu(problem, 1);
  problem.kernel[20 + 7] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = by_cpu(problem, 1);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(out.plan[i], clean.plan[i]);
    EXPECT_EQ(out.plan[40 + i], clean.plan[40 + i]);
    EXPECT_TRUE(std::isnan(out.plan[20 + i]));
  }
  for (int i = 0; i < 100; ++i) EXPECT_EQ(out.loads[200 + i], clean.loads[200 + i]);
}

}  // namespace
}  // namespace sem
