#include "sem/state_space.hpp"

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
  StateSpaceShape shape;
  std::vector<Real> x, dt_mag, dt_phase, into, out_of, decay, frequency, initial, grad_y, grad_final;

  template <class To>
  Problem<To> as() const {
    return {shape,
            converted<To>(x),
            converted<To>(dt_mag),
            converted<To>(dt_phase),
            converted<To>(into),
            converted<To>(out_of),
            converted<To>(decay),
            converted<To>(frequency),
            converted<To>(initial),
            converted<To>(grad_y),
            converted<To>(grad_final)};
  }
};

Problem<float> random_problem(StateSpaceShape shape, unsigned seed) {
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
  const std::size_t dt = size(shape.batch * shape.steps * shape.groups), wave = 2 * dt * size(shape.width);
  const std::size_t channels = size(shape.groups * shape.states), matrix = 2 * channels * size(shape.width);
  const std::size_t row = 2 * size(shape.batch) * channels;
  Problem<float> problem{shape,
                         normal_array<float>(wave, seed),
                         uniform_array<float>(dt, std::log(1e-3), std::log(0.3), seed + 1),
                         uniform_array<float>(dt, std::log(1e-3), std::log(0.3), seed + 2),
                         normal_array<float>(matrix, seed + 3),
                         normal_array<float>(matrix, seed + 4),
                         uniform_array<float>(channels, 0.1, 8, seed + 5),
                         uniform_array<float>(channels, -3.14159, 3.14159, seed + 6),
                         normal_array<float>(row, seed + 7),
                         normal_array<float>(wave, seed + 8),
                         normal_array<float>(row, seed + 9)};
  for (float& value : problem.dt_mag) value = std::exp(value);
  for (float& value : problem.dt_phase) value = std::exp(value);
  return problem;
}

template <class Real>
struct Result {
  std::vector<Real> y, final_state, grad_x, grad_dt_mag, grad_dt_phase, grad_into, grad_out_of, grad_decay,
      grad_frequency, grad_initial;
};

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  const StateSpaceShape& shape = problem.shape;
  Result<Real> out{problem.x,    problem.initial, problem.x,     problem.dt_mag,    problem.dt_phase,
                   problem.into, problem.out_of,  problem.decay, problem.frequency, problem.initial};
  std::vector<Real> checkpoints(
      static_cast<std::size_t>(2 * shape.batch * shape.checkpoints() * shape.groups * shape.states));
  forward(StateSpaceForward<Real>{shape, problem.x.data(), problem.dt_mag.data(), problem.dt_phase.data(),
                                  problem.into.data(), problem.out_of.data(), problem.decay.data(),
                                  problem.frequency.data(), problem.initial.data(), out.y.data(),
                                  out.final_state.data(), checkpoints.data()});
  backward(StateSpaceBackward<Real>{shape,
                                    problem.x.data(),
                                    problem.dt_mag.data(),
                                    problem.dt_phase.data(),
                                    problem.into.data(),
                                    problem.out_of.data(),
                                    problem.decay.data(),
                                    problem.frequency.data(),
                                    problem.initial.data(),
                                    checkpoints.data(),
                                    problem.grad_y.data(),
                                    problem.grad_final.data(),
                                    out.grad_x.data(),
                                    out.grad_dt_mag.data(),
                                    out.grad_dt_phase.data(),
                                    out.grad_into.data(),
                                    out.grad_out_of.data(),
                                    out.grad_decay.data(),
                                    out.grad_frequency.data(),
                                    out.grad_initial.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<StateSpaceForward<double>>, reference::run<StateSpaceBackward<double>>);
}

Result<float> run_cpu(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const StateSpaceForward<float>& args) { cpu::run(args, queue); },
      [&](const StateSpaceBackward<float>& args) { cpu::run(args, queue); });
}

TEST(StateSpaceReference, TwoStepsByHand) {
  // A = i / 2 as in the scan's case by hand; B = 2, C = i, so h_1 = 2i + 2 x_1 and y = i h.
  Problem<double> problem{{1, 2, 1, 1, 1}, {1, 0, 0, 1},     {1, 1}, {1, 1},       {2, 0}, {0, 1},
                          {std::log(2.0)}, {std::acos(0.0)}, {4, 0}, {0, 0, 0, 1}, {0, 0}};
  const Result<double> out = run_reference(problem);
  // h_1 = 2 + 2i, h_2 = (2 + 2i) i / 2 + 2i = -1 + 3i
  EXPECT_LE(relative_error(out.y, std::vector<double>{-2, 2, -3, -1}), 1e-15);
  EXPECT_LE(relative_error(out.final_state, std::vector<double>{-1, 3}), 1e-15);
  // l_2 = conj(C) i = 1, l_1 = conj(A) = -i / 2; the gradient to x is 2 l, that to h_0 conj(A) l_1
  EXPECT_LE(relative_error(out.grad_x, std::vector<double>{0, -1, 2, 0}), 1e-15);
  EXPECT_LE(relative_error(out.grad_initial, std::vector<double>{-0.25, 0}), 1e-15);
  // sum l conj(x) = -i / 2 * 1 + 1 * (-i); sum g conj(h) = i (-1 - 3i)
  EXPECT_LE(relative_error(out.grad_into, std::vector<double>{0, -1.5}), 1e-15);
  EXPECT_LE(relative_error(out.grad_out_of, std::vector<double>{3, -1}), 1e-15);
}

TEST(StateSpaceReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem({2, 5, 2, 3, 2}, 7).as<double>();
  const Result<double> out = run_reference(problem);
  const auto objective = [&] {
    const Result<double> moved = run_reference(problem);
    return dot(moved.y, problem.grad_y) + dot(moved.final_state, problem.grad_final);
  };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient, const char* name) {
    std::vector<double> measured(input.size());
    for (std::size_t i = 0; i < input.size(); ++i) measured[i] = central_difference(input[i], 1e-5, objective);
    EXPECT_LE(relative_error(measured, gradient), 1e-7) << name;
  };
  check(problem.x, out.grad_x, "x");
  check(problem.dt_mag, out.grad_dt_mag, "dt_mag");
  check(problem.dt_phase, out.grad_dt_phase, "dt_phase");
  check(problem.into, out.grad_into, "into");
  check(problem.out_of, out.grad_out_of, "out_of");
  check(problem.decay, out.grad_decay, "decay");
  check(problem.frequency, out.grad_frequency, "frequency");
  check(problem.initial, out.grad_initial, "initial_state");
}

class StateSpaceCpu : public ::testing::TestWithParam<StateSpaceShape> {};

TEST_P(StateSpaceCpu, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam(), 1);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_cpu(problem, 1);
  EXPECT_LE(relative_error(out.y, expected.y), 2e-6);
  EXPECT_LE(relative_error(out.final_state, expected.final_state), 2e-6);
  EXPECT_LE(relative_error(out.grad_x, expected.grad_x), 1e-5);
  EXPECT_LE(relative_error(out.grad_dt_mag, expected.grad_dt_mag), 1e-5);
  EXPECT_LE(relative_error(out.grad_dt_phase, expected.grad_dt_phase), 1e-5);
  EXPECT_LE(relative_error(out.grad_into, expected.grad_into), 1e-5);
  EXPECT_LE(relative_error(out.grad_out_of, expected.grad_out_of), 1e-5);
  EXPECT_LE(relative_error(out.grad_decay, expected.grad_decay), 1e-5);
  EXPECT_LE(relative_error(out.grad_frequency, expected.grad_frequency), 1e-5);
  EXPECT_LE(relative_error(out.grad_initial, expected.grad_initial), 1e-5);

  const Result<float> shared = run_cpu(problem, 3);
  EXPECT_EQ(out.y, shared.y);
  EXPECT_EQ(out.final_state, shared.final_state);
  EXPECT_EQ(out.grad_x, shared.grad_x);
  EXPECT_EQ(out.grad_dt_mag, shared.grad_dt_mag);
  EXPECT_EQ(out.grad_dt_phase, shared.grad_dt_phase);
  EXPECT_EQ(out.grad_into, shared.grad_into);
  EXPECT_EQ(out.grad_out_of, shared.grad_out_of);
  EXPECT_EQ(out.grad_decay, shared.grad_decay);
  EXPECT_EQ(out.grad_frequency, shared.grad_frequency);
  EXPECT_EQ(out.grad_initial, shared.grad_initial);
}

// batch, steps, groups, states, width
INSTANTIATE_TEST_SUITE_P(Shapes, StateSpaceCpu,
                         ::testing::Values(StateSpaceShape{0, 4, 2, 3, 2}, StateSpaceShape{2, 0, 2, 17, 3},
                                           StateSpaceShape{1, 1, 1, 1, 1}, StateSpaceShape{3, 2, 3, 3, 5},
                                           StateSpaceShape{2, 17, 2, 16, 8}, StateSpaceShape{2, 64, 2, 16, 16},
                                           StateSpaceShape{1, 65, 3, 17, 9}, StateSpaceShape{2, 129, 2, 33, 17},
                                           StateSpaceShape{5, 31, 1, 128, 8}, StateSpaceShape{1, 200, 5, 7, 1},
                                           StateSpaceShape{37, 3, 2, 5, 4}, StateSpaceShape{1, 257, 2, 130, 33}));

TEST(StateSpaceCpuProperties, NoCheckpointsAreWrittenWhereNoneAreWanted) {
  const Problem<float> problem = random_problem({1, 130, 2, 5, 3}, 2);
  const Result<float> expected = run_cpu(problem, 1);
  std::vector<float> y(problem.x.size()), final_state(problem.initial.size());
  cpu::run(
      StateSpaceForward<float>{problem.shape, problem.x.data(), problem.dt_mag.data(), problem.dt_phase.data(),
                               problem.into.data(), problem.out_of.data(), problem.decay.data(),
                               problem.frequency.data(), problem.initial.data(), y.data(), final_state.data(), nullptr},
      {nullptr, 1});
  EXPECT_EQ(y, expected.y);
  EXPECT_EQ(final_state, expected.final_state);
}

TEST(StateSpaceCpuProperties, ARowsBitsDependOnThatRowAlone) {
  const StateSpaceShape shape{19, 70, 2, 9, 5};
  const Problem<float> problem = random_problem(shape, 3);
  const Result<float> all = run_cpu(problem, 2);
  Problem<float> one = problem;
  one.shape.batch = 1;
  const auto row = [](const std::vector<float>& array) {
    const std::size_t size = array.size() / 19;
    return std::vector<float>(array.begin() + 11 * static_cast<std::ptrdiff_t>(size),
                              array.begin() + 12 * static_cast<std::ptrdiff_t>(size));
  };
  for (std::vector<float>* array : {&one.x, &one.dt_mag, &one.dt_phase, &one.initial, &one.grad_y, &one.grad_final})
    *array = row(*array);
  const Result<float> alone = run_cpu(one, 1);
  EXPECT_EQ(alone.y, row(all.y));
  EXPECT_EQ(alone.final_state, row(all.final_state));
  EXPECT_EQ(alone.grad_x, row(all.grad_x));
  EXPECT_EQ(alone.grad_dt_mag, row(all.grad_dt_mag));
  EXPECT_EQ(alone.grad_dt_phase, row(all.grad_dt_phase));
  EXPECT_EQ(alone.grad_initial, row(all.grad_initial));
}

TEST(StateSpaceCpuProperties, NanStaysInItsRowAndGroupAndAfterItsTime) {
  const std::int64_t steps = 70, groups = 3, width = 5;
  Problem<float> problem = random_problem({2, steps, groups, 9, width}, 4);
  const Result<float> clean = run_cpu(problem, 1);
  problem.x[(((0 * steps + 66) * groups + 1) * width + 2) * 2] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = run_cpu(problem, 1);
  std::size_t at = 0;
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < steps; ++t)
      for (int g = 0; g < groups; ++g) {
        const bool touched = b == 0 && t >= 66 && g == 1;
        const std::size_t step = (b * steps + t) * groups + g;
        if (touched)
          EXPECT_TRUE(std::isnan(out.grad_dt_mag[step]));
        else
          EXPECT_EQ(out.grad_dt_mag[step], clean.grad_dt_mag[step]);
        for (int k = 0; k < 2 * width; ++k, ++at) {
          if (touched)
            EXPECT_TRUE(std::isnan(out.y[at]));
          else
            EXPECT_EQ(out.y[at], clean.y[at]);
          EXPECT_EQ(out.grad_x[at], clean.grad_x[at]);
        }
      }
}

}  // namespace
}  // namespace sem
