#include "sem/shift_ramp.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

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
Result<float> by_cpu(const Problem<float>& problem, int threads, bool onto = false) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const ShiftRampForward<float>& args) { cpu::run(args, queue); },
      [&](const ShiftRampBackward<float>& args) { cpu::run(args, queue); }, onto);
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

class ShiftRampCpu : public ::testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(ShiftRampCpu, MatchesReferenceForAnyNumberOfThreads) {
  const auto [patterns, modes, side] = GetParam();
  const Problem<float> problem = random_problem(patterns, modes, side);
  for (const bool onto : {false, true}) {
    const Result<double> expected = by_reference(problem.as<double>(), onto);
    const Result<float> out = by_cpu(problem, 1, onto), team = by_cpu(problem, 3, onto);
    EXPECT_LE(relative_error(out.out, expected.out), 3e-7);
    EXPECT_LE(relative_error(out.to_spectrum, expected.to_spectrum), 1e-6);
    EXPECT_LE(relative_error(out.to_shift, expected.to_shift), 1e-6);
    EXPECT_EQ(out.out, team.out);
    EXPECT_EQ(out.to_spectrum, team.to_spectrum);
    EXPECT_EQ(out.to_shift, team.to_shift);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ShiftRampCpu,
                         ::testing::Values(std::tuple{0, 1, 3}, std::tuple{1, 1, 1}, std::tuple{5, 2, 16},
                                           std::tuple{4, 3, 17}, std::tuple{7, 1, 64}));

}  // namespace
}  // namespace sem
