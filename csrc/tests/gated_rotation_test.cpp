#include "sem/gated_rotation.hpp"

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

template <class Real>
struct Problem {
  RotationShape shape;
  std::vector<Real> x, logits, blocks, grad_out;

  template <class To>
  Problem<To> as() const {
    return {shape, converted<To>(x), converted<To>(logits), converted<To>(blocks), converted<To>(grad_out)};
  }
};

template <class Real>
struct Result {
  std::vector<Real> out, grad_x, grad_logits, grad_blocks;
};

Problem<float> random_problem(RotationShape shape) {
  const std::size_t entries = static_cast<std::size_t>(shape.rows * shape.groups * shape.size);
  return {shape, normal_array<float>(2 * entries, 1), normal_array<float>(entries, 2),
          normal_array<float>(static_cast<std::size_t>(2 * shape.groups * shape.size * shape.size), 3),
          normal_array<float>(2 * entries, 4)};
}

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{std::vector<Real>(problem.x.size()), std::vector<Real>(problem.x.size()),
                   std::vector<Real>(problem.logits.size()), std::vector<Real>(problem.blocks.size(), Real(9))};
  forward(GatedRotationForward<Real>{problem.shape, problem.x.data(), problem.logits.data(), problem.blocks.data(),
                                     out.out.data()});
  backward(GatedRotationBackward<Real>{problem.shape, problem.x.data(), problem.logits.data(), problem.blocks.data(),
                                       problem.grad_out.data(), out.grad_x.data(), out.grad_logits.data(),
                                       out.grad_blocks.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<GatedRotationForward<double>>, reference::run<GatedRotationBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const GatedRotationForward<float>& args) { cpu::run(args, queue); },
      [&](const GatedRotationBackward<float>& args) { cpu::run(args, queue); });
}

TEST(GatedRotationReference, AnOpenGateTurnsAndAHalfOpenOneGoesHalfTheWay) {
  // U swaps the two entries and turns the first by a quarter
  const Problem<double> problem{
      {2, 1, 2}, {1, 2, 3, 0, 1, 2, 3, 0}, {100, 100, 0, 0}, {0, 0, 0, 1, 1, 0, 0, 0}, std::vector<double>(8, 0.0)};
  const Result<double> out = run_reference(problem);
  EXPECT_LE(relative_error(out.out, std::vector<double>{0, 3, 1, 2, 0.5, 2.5, 2, 1}), 1e-15);
}

TEST(GatedRotationReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem({2, 3, 2}).as<double>();
  const Result<double> out = run_reference(problem);
  const auto objective = [&] { return dot(run_reference(problem).out, problem.grad_out); };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < input.size(); ++i)
      EXPECT_NEAR(gradient[i], central_difference(input[i], 1e-6, objective), 1e-7);
  };
  check(problem.x, out.grad_x);
  check(problem.logits, out.grad_logits);
  check(problem.blocks, out.grad_blocks);
}

class GatedRotationCpu : public ::testing::TestWithParam<RotationShape> {};

TEST_P(GatedRotationCpu, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam());
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 1e-6);
  EXPECT_LE(relative_error(out.grad_x, expected.grad_x), 1e-6);
  EXPECT_LE(relative_error(out.grad_logits, expected.grad_logits), 2e-6);
  EXPECT_LE(relative_error(out.grad_blocks, expected.grad_blocks), 2e-6);
  const Result<float> shared = run_cpu(problem, 3);
  EXPECT_EQ(out.out, shared.out);
  EXPECT_EQ(out.grad_x, shared.grad_x);
  EXPECT_EQ(out.grad_logits, shared.grad_logits);
  EXPECT_EQ(out.grad_blocks, shared.grad_blocks);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatedRotationCpu,
                         ::testing::Values(RotationShape{0, 2, 8}, RotationShape{1, 1, 1}, RotationShape{1, 16, 8},
                                           RotationShape{3, 5, 3}, RotationShape{17, 4, 4}, RotationShape{40, 7, 5},
                                           RotationShape{65, 2, 8}, RotationShape{200, 3, 8}, RotationShape{33, 2, 11},
                                           RotationShape{70, 1, 32}, RotationShape{20, 37, 1}));

TEST(GatedRotationCpuRows, ARowDependsOnItselfAlone) {
  Problem<float> problem = random_problem({37, 3, 8});
  const Result<float> clean = run_cpu(problem, 1);
  const std::size_t floats = 48, bad = 5;
  problem.x[bad * floats + 3] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = run_cpu(problem, 1);
  for (std::size_t row = 0; row < 37; ++row) {
    Problem<float> alone = problem;
    alone.shape.rows = 1;
    alone.x.assign(problem.x.begin() + row * floats, problem.x.begin() + (row + 1) * floats);
    alone.logits.assign(problem.logits.begin() + row * 24, problem.logits.begin() + (row + 1) * 24);
    alone.grad_out.assign(problem.grad_out.begin() + row * floats, problem.grad_out.begin() + (row + 1) * floats);
    const Result<float> single = run_cpu(alone, 1);
    for (std::size_t i = 0; i < floats; ++i) {
      if (row == bad) {
        EXPECT_EQ(std::isnan(out.out[row * floats + i]), i < 16);
        continue;
      }
      EXPECT_EQ(out.out[row * floats + i], single.out[i]);
      EXPECT_EQ(out.out[row * floats + i], clean.out[row * floats + i]);
      EXPECT_EQ(out.grad_x[row * floats + i], single.grad_x[i]);
    }
  }
}

}  // namespace
}  // namespace sem
