#include "sem/far_residual.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/backend.hpp"
#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::central_difference;
using testing::converted;
using testing::normal_array;
using testing::relative_error;
using testing::uniform_array;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class Real>
struct Problem {
  std::int64_t patterns, modes, frame, weights;
  std::vector<Real> psi, data, weight, background;

  template <class To>
  Problem<To> as() const {
    return {patterns,
            modes,
            frame,
            weights,
            converted<To>(psi),
            converted<To>(data),
            converted<To>(weight),
            converted<To>(background)};
  }
};

Problem<float> random_problem(std::int64_t patterns, std::int64_t modes, std::int64_t frame, std::int64_t weights,
                              bool background) {
  Problem<float> problem{patterns,
                         modes,
                         frame,
                         weights,
                         normal_array<float>(2 * patterns * modes * frame, 1),
                         uniform_array<float>(patterns * frame, 0, 3, 2),
                         uniform_array<float>(weights * frame, 0.1, 1, 3),
                         background ? uniform_array<float>(frame, 0, 1, 4) : std::vector<float>()};
  for (std::size_t i = 3; i < problem.data.size(); i += 7) problem.data[i] = 0;
  for (std::size_t i = 2; i < problem.weight.size(); i += 5) problem.weight[i] = 0;
  return problem;
}

template <class Real>
struct Result {
  std::vector<Real> out, loss, misfit, to_background;
  std::vector<std::int8_t> status;
};

template <class Real, class Run>
Result<Real> residual(const Problem<Real>& problem, ResidualKind kind, Run run, bool in_place = false) {
  const auto patterns = static_cast<std::size_t>(problem.patterns);
  Result<Real> result{in_place ? problem.psi : std::vector<Real>(problem.psi.size()), std::vector<Real>(patterns),
                      std::vector<Real>(patterns), std::vector<Real>(problem.frame, Real(9)),
                      std::vector<std::int8_t>(patterns)};
  run(FarResidual<Real>{problem.patterns, problem.modes, problem.frame, problem.weights,
                        static_cast<std::int32_t>(kind), false, Real(2.5),
                        in_place ? result.out.data() : problem.psi.data(), problem.data.data(),
                        problem.weights == 0 ? nullptr : problem.weight.data(),
                        problem.background.empty() ? nullptr : problem.background.data(), result.out.data(),
                        result.loss.data(), result.misfit.data(), result.status.data(), result.to_background.data()});
  return result;
}

Result<double> by_reference(const Problem<double>& problem, ResidualKind kind) {
  return residual(problem, kind, reference::run<FarResidual<double>>);
}
Result<float> by_backend(const Problem<float>& problem, ResidualKind kind, int threads, bool in_place = false) {
  return residual(
      problem, kind, [&](const FarResidual<float>& args) { backend::run(args, {nullptr, threads}); }, in_place);
}

constexpr ResidualKind kKinds[] = {ResidualKind::amplitude, ResidualKind::poisson, ResidualKind::intensity,
                                   ResidualKind::amplitude_mae, ResidualKind::projection};

TEST(FarResidualReference, OnePixelByHand) {
  const Problem<double> problem{1, 1, 1, 0, {3, 4}, {4}, {}, {}};  // A = 5, X = 4
  const double n = 16, i = 25;
  const double loss[] = {0.5, i - n + n * std::log(n / i), 40.5, 1 / 2.5, 0.5};
  const double slope[] = {0.1, 1 - n / i, 9, 0.1 / 2.5};
  for (const ResidualKind kind : kKinds) {
    const auto k = static_cast<int>(kind);
    const Result<double> out = by_reference(problem, kind);
    EXPECT_NEAR(out.loss[0], loss[k], 1e-14);
    EXPECT_NEAR(out.misfit[0], 0.25, 1e-15);
    EXPECT_EQ(out.status[0], 0);
    const double factor = kind == ResidualKind::projection ? 0.8 : 2 * slope[k];
    EXPECT_NEAR(out.out[0], 3 * factor, 1e-14);
    EXPECT_NEAR(out.out[1], 4 * factor, 1e-14);
  }
}

TEST(FarResidualReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem(2, 2, 5, 1, true).as<double>();
  for (const ResidualKind kind : {kKinds[0], kKinds[1], kKinds[2], kKinds[3]}) {
    const Result<double> out = by_reference(problem, kind);
    const auto objective = [&] {
      const Result<double> found = by_reference(problem, kind);
      return found.loss[0] + found.loss[1];
    };
    for (std::size_t i = 0; i < problem.psi.size(); ++i)
      EXPECT_NEAR(out.out[i], central_difference(problem.psi[i], 1e-6, objective), 1e-7);
    for (std::size_t i = 0; i < problem.background.size(); ++i)
      EXPECT_NEAR(out.to_background[i], central_difference(problem.background[i], 1e-6, objective), 1e-7);
  }
}

class FarResidualBackend : public ::testing::TestWithParam<std::tuple<int, int, int, int, bool>> {};

TEST_P(FarResidualBackend, MatchesReferenceForAnyNumberOfThreads) {
  const auto [patterns, modes, frame, weights, background] = GetParam();
  const Problem<float> problem = random_problem(patterns, modes, frame, weights, background);
  for (const ResidualKind kind : kKinds) {
    const Result<double> expected = by_reference(problem.as<double>(), kind);
    const Result<float> out = by_backend(problem, kind, 1);
    EXPECT_LE(relative_error(out.out, expected.out), 2e-6);
    EXPECT_LE(relative_error(out.loss, expected.loss), 1e-6);
    EXPECT_LE(relative_error(out.misfit, expected.misfit), 1e-6);
    EXPECT_LE(relative_error(out.to_background, expected.to_background), 2e-6);
    EXPECT_EQ(out.status, expected.status);
    for (const Result<float>& other : {by_backend(problem, kind, 3), by_backend(problem, kind, 1, true)}) {
      EXPECT_EQ(out.out, other.out);
      EXPECT_EQ(out.loss, other.loss);
      EXPECT_EQ(out.misfit, other.misfit);
      EXPECT_EQ(out.to_background, other.to_background);
      EXPECT_EQ(out.status, other.status);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, FarResidualBackend,
                         ::testing::Values(std::tuple{0, 1, 9, 0, false}, std::tuple{1, 1, 1, 0, false},
                                           std::tuple{3, 2, 16, 1, true}, std::tuple{4, 1, 49, 4, false},
                                           std::tuple{5, 3, 289, 0, true}, std::tuple{9, 1, 4096, 1, true},
                                           std::tuple{2, 2, 4225, 2, true}));

// The terms of a Poisson loss cancel where it fits; what is left is of the size of the misfit squared.
TEST(FarResidualBackendPoisson, IsExactNearAPerfectFit) {
  for (const double off : {1e-6, 1e-4, 1e-2, 0.25, 0.45, 3.0, -0.3, -0.9}) {
    Problem<float> problem{1, 1, 1, 0, {100, 0}, {static_cast<float>(100 * std::sqrt(1 + off))}, {}, {}};
    const double expected = by_reference(problem.as<double>(), ResidualKind::poisson).loss[0];
    const float n = problem.data[0] * problem.data[0];
    const double rounding = 1e4 * std::pow(static_cast<double>(n) * 6e-8 / 1e4, 2);
    EXPECT_NEAR(by_backend(problem, ResidualKind::poisson, 1).loss[0], expected,
                4 * std::abs(off) * 1e4 * 1.2e-7 + rounding)
        << off;
  }
}

TEST(FarResidualBackendStatus, SaysWhatIsWrongAndLeavesTheOthersAlone) {
  const Problem<float> clean = random_problem(6, 2, 20, 6, false);
  Problem<float> problem = clean;
  problem.psi[(1 * 2 + 1) * 40 + 6] = kNan;
  problem.data[2 * 20 + 4] = kNan;  // where the weight is positive
  problem.weight[2 * 20 + 4] = 0.5f;
  for (int i = 0; i < 20; ++i) problem.data[3 * 20 + i] = 0;
  for (int i = 0; i < 20; ++i) problem.weight[4 * 20 + i] = 0;
  problem.data[4 * 20] = kNan;  // nobody looks
  for (int i = 0; i < 80; ++i) problem.psi[5 * 80 + i] = 0;
  problem.data[5 * 20 + 1] = 2;
  problem.weight[5 * 20 + 1] = 1;
  for (const ResidualKind kind : kKinds) {
    const Result<float> out = by_backend(problem, kind, 1), before = by_backend(clean, kind, 1);
    const int poisson = kind == ResidualKind::poisson ? 4 : 0;
    const std::vector<std::int8_t> expected{0, 1, 1, 2, 3, static_cast<std::int8_t>(poisson)};
    EXPECT_EQ(out.status, expected);
    EXPECT_EQ(out.loss[0], before.loss[0]);
    for (int i = 0; i < 80; ++i) EXPECT_EQ(out.out[i], before.out[i]);
    EXPECT_EQ(out.loss[1], 0);
    EXPECT_TRUE(std::isnan(out.misfit[1]));
    for (int i = 80; i < 240 && kind != ResidualKind::projection; ++i) EXPECT_EQ(out.out[i], 0);
    for (int i = 400; i < 480; ++i) EXPECT_EQ(out.out[i], 0);  // no gradient where A = 0
    EXPECT_EQ(std::isinf(out.loss[5]), poisson != 0);
    EXPECT_EQ(out.status, by_reference(problem.as<double>(), kind).status);
  }
}

// One number, in the last pixel of a frame of any size, in place or not, and in what is said of it alone.
TEST(FarResidualBackendStatus, NanAnywhereTakesOutItsPatternAlone) {
  for (const std::int64_t frame : {1, 4100}) {
    Problem<float> problem = random_problem(3, 2, frame, 1, true);
    problem.weight[frame - 1] = 1;
    Problem<float> spoilt = problem;
    spoilt.psi[2 * (2 * 2 * frame) - 1] = kNan;  // of the second pattern's last mode
    const std::size_t wave = 2 * 2 * frame;
    for (const ResidualKind kind : {ResidualKind::poisson, ResidualKind::projection}) {
      const Result<float> good = by_backend(problem, kind, 1);
      for (const bool in_place : {false, true}) {
        const Result<float> bad = by_backend(spoilt, kind, 1, in_place);
        EXPECT_EQ(bad.status[1], 1);
        EXPECT_EQ(bad.loss[1], 0);
        EXPECT_TRUE(std::isnan(bad.misfit[1]));
        for (const int j : {0, 2}) {
          EXPECT_EQ(bad.status[j], good.status[j]);
          EXPECT_EQ(bad.loss[j], good.loss[j]);
          EXPECT_EQ(bad.misfit[j], good.misfit[j]);
        }
        for (std::size_t i = 0; i < 3 * wave; ++i) {
          const bool inside = i / wave == 1;
          if (inside && kind == ResidualKind::projection && std::isnan(spoilt.psi[i])) {
            EXPECT_TRUE(std::isnan(bad.out[i]));
            continue;
          }
          EXPECT_EQ(bad.out[i], !inside ? good.out[i] : kind == ResidualKind::projection ? spoilt.psi[i] : 0) << i;
        }
        const Result<double> expected = by_reference(spoilt.as<double>(), kind);
        EXPECT_LE(relative_error(bad.to_background, expected.to_background), 2e-6);
      }
    }
  }
}

// Patterns in two calls, the second onto the sums of the first, give the bits of one call.
TEST(FarResidualBackendBlocks, BitsDoNotDependOnWhereBlocksEnd) {
  const Problem<float> problem = random_problem(7, 1, 300, 1, true);
  const Result<float> whole = by_backend(problem, ResidualKind::poisson, 1);
  Result<float> parts = whole;
  for (const auto& [from, to] : {std::pair{0, 2}, std::pair{2, 7}})
    backend::run(
        FarResidual<float>{to - from, 1, 300, 1, static_cast<std::int32_t>(ResidualKind::poisson), from > 0, 2.5f,
                           problem.psi.data() + from * 600, problem.data.data() + from * 300, problem.weight.data(),
                           problem.background.data(), parts.out.data() + from * 600, parts.loss.data() + from,
                           parts.misfit.data() + from, parts.status.data() + from, parts.to_background.data()},
        {nullptr, 1});
  EXPECT_EQ(whole.out, parts.out);
  EXPECT_EQ(whole.loss, parts.loss);
  EXPECT_EQ(whole.misfit, parts.misfit);
  EXPECT_EQ(whole.to_background, parts.to_background);
}

}  // namespace
}  // namespace sem
