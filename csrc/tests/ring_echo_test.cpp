#include "sem/ring_echo.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
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
  std::vector<Real> psi, potential, kerr, edge_weight, half_dt, grad_out;

  template <class To>
  Problem<To> as() const {
    return {rows,
            width,
            converted<To>(psi),
            converted<To>(potential),
            converted<To>(kerr),
            converted<To>(edge_weight),
            converted<To>(half_dt),
            converted<To>(grad_out)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_psi, grad_potential, grad_kerr, grad_edge_weight, grad_half_dt;
};

Problem<float> random_problem(std::int64_t rows, std::int64_t width) {
  const std::size_t entries = static_cast<std::size_t>(rows * width), nodes = static_cast<std::size_t>(width);
  return {rows,
          width,
          normal_array<float>(2 * entries, 1),
          uniform_array<float>(entries, -4, 4, 2),
          uniform_array<float>(nodes, -1, 1, 3),
          uniform_array<float>(nodes, 0, 2, 5),
          {0.7f},
          normal_array<float>(2 * entries, 4)};
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{std::vector<Real>(problem.psi.size()),           std::vector<Real>(problem.psi.size()),
                   std::vector<Real>(problem.potential.size()),     std::vector<Real>(problem.kerr.size(), Real(9)),
                   std::vector<Real>(problem.kerr.size(), Real(9)), {Real(9)}};
  forward(RingEchoForward<Real>{problem.rows, problem.width, problem.psi.data(), problem.potential.data(),
                                problem.kerr.data(), problem.edge_weight.data(), problem.half_dt.data(),
                                out.out.data()});
  backward(RingEchoBackward<Real>{
      problem.rows, problem.width, problem.psi.data(), problem.potential.data(), problem.kerr.data(),
      problem.edge_weight.data(), problem.half_dt.data(), out.out.data(), problem.grad_out.data(), out.grad_psi.data(),
      out.grad_potential.data(), out.grad_kerr.data(), out.grad_edge_weight.data(), out.grad_half_dt.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<RingEchoForward<double>>, reference::run<RingEchoBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const RingEchoForward<float>& args) { cpu::run(args, queue); },
      [&](const RingEchoBackward<float>& args) { cpu::run(args, queue); });
}

double norm_of_row(const std::vector<float>& rows, std::int64_t row, std::int64_t width) {
  double sum = 0;
  for (std::int64_t i = row * 2 * width; i < (row + 1) * 2 * width; ++i) sum += static_cast<double>(rows[i]) * rows[i];
  return std::sqrt(sum);
}

TEST(RingEchoReference, TurnsAWaveThatIsTheSameEverywhereAndLeavesOthersWithoutPhases) {
  // a wave that is the same everywhere does not move, and all of it is turned alike: by V + k with intensities of 1
  const double quarter = std::acos(-1.0) / 2;
  Problem<double> problem{
      2, 3, {2, 0, 2, 0, 2, 0, 1, 0, 0, 2, 3, 1}, {}, {}, {1, 2, 3}, {0.5}, std::vector<double>(12)};
  problem.potential = {quarter, quarter, quarter, 0, 0, 0};
  problem.kerr = {0, 0, 0};
  EXPECT_LE(relative_error(run_reference(problem).out, std::vector<double>{0, 2, 0, 2, 0, 2, 1, 0, 0, 2, 3, 1}), 1e-15);
  problem.kerr = {quarter, quarter, quarter};
  const std::vector<double> out = run_reference(problem).out;
  EXPECT_LE(relative_error(std::vector<double>(out.begin(), out.begin() + 6), std::vector<double>{-2, 0, -2, 0, -2, 0}),
            1e-15);
}

TEST(RingEchoReference, MovesAndTurnsByHand) {
  // on a ring of three equal edges of weight 1/3, H = I - J/3: with a = 1 all but the mean is multiplied by
  // (1 - i) / (1 + i) = -i, so that U = J/3 - i (I - J/3)
  const std::complex<double> i(0, 1), half_turn = -1.0, u0 = 1.0 / 3 - 2.0 / 3 * i, u1 = (1.0 + i) / 3.0;
  // psi = (1, 0, 0), the first entry turned by pi between: U^-1 (u0 e^{i pi}, u1, u1)
  const std::complex<double> w0 = half_turn * u0, mean = (w0 + 2.0 * u1) / 3.0;
  const std::complex<double> out0 = mean + i * (w0 - mean), out1 = mean + i * (u1 - mean);
  const Problem<double> problem{1,
                                3,
                                {1, 0, 0, 0, 0, 0},
                                {std::acos(-1.0), 0, 0},
                                {0, 0, 0},
                                {1.0 / 3, 1.0 / 3, 1.0 / 3},
                                {1},
                                std::vector<double>(6)};
  EXPECT_LE(relative_error(run_reference(problem).out, std::vector<double>{out0.real(), out0.imag(), out1.real(),
                                                                           out1.imag(), out1.real(), out1.imag()}),
            1e-15);
}

TEST(RingEchoReference, GradientsMatchFiniteDifferences) {
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
  check(problem.edge_weight, out.grad_edge_weight);
  check(problem.half_dt, out.grad_half_dt);
}

class RingEchoCpu : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(RingEchoCpu, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam().first, GetParam().second);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 1e-6);
  EXPECT_LE(relative_error(out.grad_psi, expected.grad_psi), 2e-6);
  EXPECT_LE(relative_error(out.grad_potential, expected.grad_potential), 2e-6);
  EXPECT_LE(relative_error(out.grad_kerr, expected.grad_kerr), 4e-6);
  EXPECT_LE(relative_error(out.grad_edge_weight, expected.grad_edge_weight), 4e-6);
  EXPECT_NEAR(out.grad_half_dt[0], expected.grad_half_dt[0], 1e-5 * std::sqrt(1.0 + problem.rows * problem.width));
  for (std::int64_t row = 0; row < problem.rows; ++row)
    EXPECT_NEAR(norm_of_row(out.out, row, problem.width) / norm_of_row(problem.psi, row, problem.width), 1, 3e-7);
  const Result<float> shared = run_cpu(problem, 3);
  EXPECT_EQ(out.out, shared.out);
  EXPECT_EQ(out.grad_psi, shared.grad_psi);
  EXPECT_EQ(out.grad_potential, shared.grad_potential);
  EXPECT_EQ(out.grad_kerr, shared.grad_kerr);
  EXPECT_EQ(out.grad_edge_weight, shared.grad_edge_weight);
  EXPECT_EQ(out.grad_half_dt, shared.grad_half_dt);
}

INSTANTIATE_TEST_SUITE_P(Shapes, RingEchoCpu,
                         ::testing::Values(std::pair{0, 8}, std::pair{1, 3}, std::pair{1, 15}, std::pair{1, 16},
                                           std::pair{1, 17}, std::pair{16, 3}, std::pair{1000, 7}, std::pair{64, 64},
                                           std::pair{200, 130}, std::pair{17, 512}));

// (I - iaH) / (I + iaH) is nearly -1 on most waves for a large step, and the identity where there is none.
TEST(RingEchoCpuSteps, OfAnyLengthKeepNormsAndMatch) {
  for (const float half_dt : {-30.0f, -0.7f, 0.0f, 1e-3f, 30.0f}) {
    Problem<float> problem = random_problem(20, 40);
    problem.half_dt = {half_dt};
    const Result<double> expected = run_reference(problem.as<double>());
    const Result<float> out = run_cpu(problem, 1);
    const double tolerance = 2e-6 * (1 + std::abs(half_dt));
    EXPECT_LE(relative_error(out.out, expected.out), tolerance);
    EXPECT_LE(relative_error(out.grad_psi, expected.grad_psi), tolerance);
    EXPECT_LE(relative_error(out.grad_potential, expected.grad_potential), tolerance);
    for (std::int64_t row = 0; row < 20; ++row)
      EXPECT_NEAR(norm_of_row(out.out, row, 40) / norm_of_row(problem.psi, row, 40), 1, 3e-7);
  }
}

// Squares would overflow or vanish; Kerr phases are of shares, which do not know the size. Gradients of phases do.
TEST(RingEchoCpuRows, OfAnySizeAreTurnedAlike) {
  const Problem<float> problem = random_problem(5, 24);
  const Result<float> plain = run_cpu(problem, 1);
  for (const float size : {0x1p-60f, 0x1p-40f, 0x1p40f, 0x1p100f}) {
    Problem<float> scaled = problem;
    for (float& value : scaled.psi) value *= size;
    Result<float> out = run_cpu(scaled, 1);
    for (float& value : out.out) value /= size;
    for (float& value : out.grad_potential) value /= size;
    for (float& value : out.grad_edge_weight) value /= size;
    EXPECT_LE(relative_error(out.out, converted<double>(plain.out)), 1e-6);
    EXPECT_LE(relative_error(out.grad_psi, converted<double>(plain.grad_psi)), 1e-6);
    EXPECT_LE(relative_error(out.grad_potential, converted<double>(plain.grad_potential)), 1e-6);
    EXPECT_LE(relative_error(out.grad_edge_weight, converted<double>(plain.grad_edge_weight)), 1e-6);
  }
}

TEST(RingEchoCpuRows, OfZerosStayZeroWithTheTurnedGradient) {
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

TEST(RingEchoCpuRows, ARowDependsOnItselfAlone) {
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
      for (float value : part(out.out, 2 * kWidth)) EXPECT_TRUE(std::isnan(value));
      continue;
    }
    EXPECT_EQ(part(clean.out, 2 * kWidth), part(out.out, 2 * kWidth));
    const Result<float> alone =
        run_cpu({1, kWidth, part(problem.psi, 2 * kWidth), part(problem.potential, kWidth), problem.kerr,
                 problem.edge_weight, problem.half_dt, part(problem.grad_out, 2 * kWidth)},
                1);
    EXPECT_EQ(alone.out, part(out.out, 2 * kWidth));
    EXPECT_EQ(alone.grad_psi, part(out.grad_psi, 2 * kWidth));
    EXPECT_EQ(alone.grad_potential, part(out.grad_potential, kWidth));
  }
}

}  // namespace
}  // namespace sem
