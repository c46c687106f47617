#include "sem/shift_ramp.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "tests/backend.hpp"
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
  RampShape shape;
  std::vector<Real> spectrum, shift, grad_out;

  template <class To>
  Problem<To> as() const {
    return {shape, converted<To>(spectrum), converted<To>(shift), converted<To>(grad_out)};
  }
};

Problem<float> random_problem(std::int64_t patterns, std::int64_t modes, std::int64_t side) {
  const RampShape shape{patterns, modes, side};
  return {shape, normal_array<float>(shape.spectrum(), 1), uniform_array<float>(2 * patterns, -0.5, 0.5, 2),
          normal_array<float>(patterns * shape.spectrum(), 3)};
}

template <class Real>
struct Result {
  std::vector<Real> out, to_spectrum, to_shift;
};

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward, bool onto) {
  Result<Real> result{
      std::vector<Real>(problem.grad_out.size()),
      onto ? normal_array<Real>(problem.spectrum.size(), 9) : std::vector<Real>(problem.spectrum.size()),
      std::vector<Real>(problem.shift.size(), Real(9))};
  forward(ShiftRampForward<Real>{problem.shape, problem.spectrum.data(), problem.shift.data(), result.out.data()});
  backward(ShiftRampBackward<Real>{problem.shape, onto, problem.spectrum.data(), problem.shift.data(),
                                   problem.grad_out.data(), result.to_spectrum.data(), result.to_shift.data()});
  return result;
}

Result<double> by_reference(const Problem<double>& problem, bool onto = false) {
  return run(problem, reference::run<ShiftRampForward<double>>, reference::run<ShiftRampBackward<double>>, onto);
}
Result<float> by_backend(const Problem<float>& problem, int threads, bool onto = false) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const ShiftRampForward<float>& args) { backend::run(args, queue); },
      [&](const ShiftRampBackward<float>& args) { backend::run(args, queue); }, onto);
}

TEST(ShiftRampReference, HalfAPixelTurnsNyquistByAQuarter) {
  // side 2: q = 0, -1/2; a shift of 1/2 along x turns column 1 by e^(i pi / 2)
  const Problem<double> problem{{1, 1, 2}, {1, 0, 1, 0, 1, 0, 1, 0}, {0, 0.5}, std::vector<double>(8)};
  EXPECT_LE(relative_error(by_reference(problem).out, std::vector<double>{1, 0, 0, 1, 1, 0, 0, 1}), 1e-15);
}

TEST(ShiftRampReference, GradientsMatchFiniteDifferences) {
  for (const int side : {4, 5}) {
    Problem<double> problem = random_problem(3, 2, side).as<double>();
    const Result<double> out = by_reference(problem);
    const auto objective = [&] { return dot(by_reference(problem).out, problem.grad_out); };
    for (std::size_t i = 0; i < problem.spectrum.size(); i += 3)
      EXPECT_NEAR(out.to_spectrum[i], central_difference(problem.spectrum[i], 1e-5, objective), 1e-8);
    for (std::size_t i = 0; i < problem.shift.size(); ++i)
      EXPECT_NEAR(out.to_shift[i], central_difference(problem.shift[i], 1e-6, objective), 1e-7);
  }
}

class ShiftRampBackend : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(ShiftRampBackend, MatchesReferenceForAnyNumberOfThreads) {
  const auto [patterns, modes, side] = GetParam();
  const Problem<float> problem = random_problem(patterns, modes, side);
  for (const bool onto : {false, true}) {
    const Result<double> expected = by_reference(problem.as<double>(), onto);
    const Result<float> out = by_backend(problem, 1, onto), team = by_backend(problem, 3, onto);
    EXPECT_LE(relative_error(out.out, expected.out), 3e-7);
    EXPECT_LE(relative_error(out.to_spectrum, expected.to_spectrum), 1e-6);
    EXPECT_LE(relative_error(out.to_shift, expected.to_shift), 1e-6);
    EXPECT_EQ(out.out, team.out);
    EXPECT_EQ(out.to_spectrum, team.to_spectrum);
    EXPECT_EQ(out.to_shift, team.to_shift);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ShiftRampBackend,
                         ::testing::Values(std::tuple{0, 1, 3}, std::tuple{1, 1, 1}, std::tuple{5, 2, 16},
                                           std::tuple{4, 3, 17}, std::tuple{7, 1, 64}, std::tuple{3, 2, 65},
                                           std::tuple{1, 1, 2}));

TEST(ShiftRampBackendShifts, OfManyPixelsAreAsExact) {
  Problem<float> problem = random_problem(12, 1, 21);
  const float shifts[] = {1, -20.75f, 1234.5f, -98765.4375f, 4194305, -7654321, 12345679, 60000008};
  for (std::size_t i = 0; i < problem.shift.size(); ++i)
    problem.shift[i] = shifts[i % 8] * (i < 8 ? 1.0f : 0.37f) + (i > 16 ? 0.25f : 0.0f);
  EXPECT_LE(relative_error(by_backend(problem, 1).out, by_reference(problem.as<double>()).out), 5e-7);
}

TEST(ShiftRampBackendShifts, NanStaysWithItsPattern) {
  Problem<float> problem = random_problem(3, 2, 5);
  const Result<float> clean = by_backend(problem, 1);
  problem.shift[2] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = by_backend(problem, 1);
  for (std::size_t i = 0; i < out.out.size(); ++i) {
    if (i / 100 == 1)
      EXPECT_TRUE(std::isnan(out.out[i]));
    else
      EXPECT_EQ(out.out[i], clean.out[i]);
  }
  for (const int i : {0, 1, 4, 5}) EXPECT_EQ(out.to_shift[i], clean.to_shift[i]);
}

// Patterns in two calls, the second onto the sums of the first, give the bits of one call.
TEST(ShiftRampBackendBlocks, BitsDoNotDependOnWhereBlocksEnd) {
  const Problem<float> problem = random_problem(9, 2, 17);
  const Result<float> whole = by_backend(problem, 1);
  Result<float> parts = whole;
  for (const auto& [from, to] : {std::pair{0, 3}, std::pair{3, 9}}) {
    const RampShape shape{to - from, 2, 17};
    backend::run(ShiftRampBackward<float>{shape, from > 0, problem.spectrum.data(), problem.shift.data() + 2 * from,
                                          problem.grad_out.data() + from * shape.spectrum(), parts.to_spectrum.data(),
                                          parts.to_shift.data() + 2 * from},
                 {nullptr, 1});
  }
  EXPECT_EQ(whole.to_spectrum, parts.to_spectrum);
  EXPECT_EQ(whole.to_shift, parts.to_shift);
}

}  // namespace
}  // namespace sem
