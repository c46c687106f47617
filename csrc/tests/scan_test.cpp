#include "sem/scan.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <limits>

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
  ScanShape shape;
  std::vector<Real> x, dt_mag, dt_phase, decay, frequency, initial, grad_states, grad_final;

  template <class To>
  Problem<To> as() const {
    return {shape,
            converted<To>(x),
            converted<To>(dt_mag),
            converted<To>(dt_phase),
            converted<To>(decay),
            converted<To>(frequency),
            converted<To>(initial),
            converted<To>(grad_states),
            converted<To>(grad_final)};
  }
};

Problem<float> random_problem(ScanShape shape, unsigned seed) {
  const std::size_t states = static_cast<std::size_t>(shape.batch * shape.steps * shape.channels * 2);
  const std::size_t row = static_cast<std::size_t>(shape.batch * shape.channels * 2);
  const std::size_t dt = static_cast<std::size_t>(shape.batch * shape.steps * shape.groups);
  const std::size_t channels = static_cast<std::size_t>(shape.channels);
  Problem<float> problem{shape,
                         normal_array<float>(states, seed),
                         uniform_array<float>(dt, std::log(1e-3), std::log(0.3), seed + 1),
                         uniform_array<float>(dt, std::log(1e-3), std::log(0.3), seed + 2),
                         uniform_array<float>(channels, 0.1, 8, seed + 3),
                         uniform_array<float>(channels, -3.14159, 3.14159, seed + 4),
                         normal_array<float>(row, seed + 5),
                         normal_array<float>(states, seed + 6),
                         normal_array<float>(row, seed + 7)};
  for (float& value : problem.dt_mag) value = std::exp(value);
  for (float& value : problem.dt_phase) value = std::exp(value);
  return problem;
}

template <class Real>
struct Result {
  std::vector<Real> states, final_state, grad_x, grad_dt_mag, grad_dt_phase, grad_decay, grad_frequency, grad_initial;
};

template <class Real, class Forward, class Backward>
Result<Real> run(const Problem<Real>& problem, Forward forward, Backward backward) {
  Result<Real> out{problem.x,        problem.initial, problem.x,     problem.dt_mag,
                   problem.dt_phase, problem.decay,   problem.decay, problem.initial};
  forward(ScanForward<Real>{problem.shape, problem.x.data(), problem.dt_mag.data(), problem.dt_phase.data(),
                            problem.decay.data(), problem.frequency.data(), problem.initial.data(), out.states.data(),
                            out.final_state.data()});
  backward(ScanBackward<Real>{problem.shape, problem.x.data(), problem.dt_mag.data(), problem.dt_phase.data(),
                              problem.decay.data(), problem.frequency.data(), problem.initial.data(), out.states.data(),
                              problem.grad_states.data(), problem.grad_final.data(), out.grad_x.data(),
                              out.grad_dt_mag.data(), out.grad_dt_phase.data(), out.grad_decay.data(),
                              out.grad_frequency.data(), out.grad_initial.data()});
  return out;
}

Result<double> run_reference(const Problem<double>& problem) {
  return run(problem, reference::run<ScanForward<double>>, reference::run<ScanBackward<double>>);
}

Result<float> run_backend(const Problem<float>& problem, int threads) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const ScanForward<float>& args) { backend::run(args, queue); },
      [&](const ScanBackward<float>& args) { backend::run(args, queue); });
}

TEST(ScanReference, TwoStepsByHand) {
  // decay = ln 2 and m = 1 halve the modulus; frequency = pi / 2 and p = 1 turn by a quarter: A = i / 2.
  Problem<double> problem{{1, 2, 1, 1},     {1, 0, 0, 1}, {1, 1},       {1, 1}, {std::log(2.0)},
                          {std::acos(0.0)}, {4, 0},       {0, 0, 0, 0}, {1, 0}};
  const Result<double> out = run_reference(problem);
  // h_1 = 2i + 1, h_2 = (2i + 1) i / 2 + i = -1 + 1.5i
  const std::vector<double> states{1, 2, -1, 1.5};
  EXPECT_LE(relative_error(out.states, states), 1e-15);
  EXPECT_LE(relative_error(out.final_state, std::vector<double>{-1, 1.5}), 1e-15);
  // l_2 = 1, l_1 = conj(A) = -i / 2; conj(A_1) l_1 = -1 / 4
  EXPECT_LE(relative_error(out.grad_x, std::vector<double>{0, -0.5, 1, 0}), 1e-15);
  EXPECT_LE(relative_error(out.grad_initial, std::vector<double>{-0.25, 0}), 1e-15);
}

TEST(ScanReference, GradientsMatchFiniteDifferences) {
  Problem<double> problem = random_problem({2, 5, 6, 2}, 7).as<double>();
  const Result<double> out = run_reference(problem);
  const auto objective = [&] {
    const Result<double> moved = run_reference(problem);
    return dot(moved.states, problem.grad_states) + dot(moved.final_state, problem.grad_final);
  };
  const auto check = [&](std::vector<double>& input, const std::vector<double>& gradient, const char* name) {
    std::vector<double> measured(input.size());
    for (std::size_t i = 0; i < input.size(); ++i) measured[i] = central_difference(input[i], 1e-5, objective);
    EXPECT_LE(relative_error(measured, gradient), 1e-7) << name;
  };
  check(problem.x, out.grad_x, "x");
  check(problem.dt_mag, out.grad_dt_mag, "dt_mag");
  check(problem.dt_phase, out.grad_dt_phase, "dt_phase");
  check(problem.decay, out.grad_decay, "decay");
  check(problem.frequency, out.grad_frequency, "frequency");
  check(problem.initial, out.grad_initial, "initial_state");
}

class ScanBackend : public ::testing::TestWithParam<ScanShape> {};

TEST_P(ScanBackend, MatchesReferenceForAnyNumberOfThreads) {
  const Problem<float> problem = random_problem(GetParam(), 1);
  const Result<double> expected = run_reference(problem.as<double>());
  const Result<float> out = run_backend(problem, 1);
  EXPECT_LE(relative_error(out.states, expected.states), 2e-6);
  EXPECT_LE(relative_error(out.final_state, expected.final_state), 2e-6);
  EXPECT_LE(relative_error(out.grad_x, expected.grad_x), 1e-5);
  EXPECT_LE(relative_error(out.grad_dt_mag, expected.grad_dt_mag), 1e-5);
  EXPECT_LE(relative_error(out.grad_dt_phase, expected.grad_dt_phase), 1e-5);
  EXPECT_LE(relative_error(out.grad_decay, expected.grad_decay), 1e-5);
  EXPECT_LE(relative_error(out.grad_frequency, expected.grad_frequency), 1e-5);
  EXPECT_LE(relative_error(out.grad_initial, expected.grad_initial), 1e-5);

  const Result<float> shared = run_backend(problem, 3);
  EXPECT_EQ(out.states, shared.states);
  EXPECT_EQ(out.grad_x, shared.grad_x);
  EXPECT_EQ(out.grad_dt_mag, shared.grad_dt_mag);
  EXPECT_EQ(out.grad_dt_phase, shared.grad_dt_phase);
  EXPECT_EQ(out.grad_decay, shared.grad_decay);
  EXPECT_EQ(out.grad_frequency, shared.grad_frequency);
  EXPECT_EQ(out.grad_initial, shared.grad_initial);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ScanBackend,
                         ::testing::Values(ScanShape{0, 4, 3, 1}, ScanShape{2, 0, 17, 1}, ScanShape{1, 1, 1, 1},
                                           ScanShape{3, 2, 3, 3}, ScanShape{2, 17, 16, 2}, ScanShape{1, 33, 17, 17},
                                           ScanShape{2, 16, 130, 13}, ScanShape{5, 31, 130, 1},
                                           ScanShape{1, 257, 64, 4}, ScanShape{2, 257, 300, 12},
                                           ScanShape{1, 1000, 16, 8}));

TEST(ScanBackendProperties, ModulusOfATransitionIsAtMostOne) {
  // No input and almost no decay: rounding of A must not let the state grow over many equal steps.
  constexpr int kSteps = 20000, kChannels = 64;
  Problem<float> problem{{1, kSteps, kChannels, 1},
                         std::vector<float>(kSteps * kChannels * 2, 0.0f),
                         std::vector<float>(kSteps, 1e-4f),
                         std::vector<float>(kSteps, 1.0f),
                         std::vector<float>(kChannels, 1e-6f),
                         uniform_array<float>(kChannels, -3, 3, 5),
                         std::vector<float>(kChannels * 2, 1.0f),
                         {},
                         {}};
  std::vector<float> states(problem.x.size()), final_state(problem.initial.size());
  backend::run(ScanForward<float>{problem.shape, problem.x.data(), problem.dt_mag.data(), problem.dt_phase.data(),
                                  problem.decay.data(), problem.frequency.data(), problem.initial.data(), states.data(),
                                  final_state.data()},
               {nullptr, 1});
  for (int c = 0; c < kChannels; ++c) {
    const double modulus = std::hypot(final_state[2 * c], final_state[2 * c + 1]) / std::sqrt(2.0);
    EXPECT_LE(modulus, 1 + 1e-5) << c;
    EXPECT_GE(modulus, 0.985) << c;
  }
}

TEST(ScanBackendProperties, ZeroStepKeepsTheStateBitForBit) {
  Problem<float> problem = random_problem({1, 40, 20, 4}, 3);
  problem.dt_mag.assign(problem.dt_mag.size(), 0.0f);
  problem.dt_phase.assign(problem.dt_phase.size(), 0.0f);
  const std::vector<float> initial = problem.initial;
  problem.grad_states.resize(problem.x.size());
  EXPECT_EQ(run_backend(problem, 1).final_state, initial);
}

TEST(ScanBackendProperties, NanStaysInItsChannelAndAfterItsTime) {
  Problem<float> problem = random_problem({2, 20, 20, 5}, 4);
  const Result<float> clean = run_backend(problem, 1);
  problem.x[((0 * 20 + 9) * 20 + 18) * 2] = std::numeric_limits<float>::quiet_NaN();
  const Result<float> out = run_backend(problem, 1);
  for (int b = 0; b < 2; ++b)
    for (int t = 0; t < 20; ++t)
      for (int c = 0; c < 20; ++c) {
        const std::size_t at = ((b * 20 + t) * 20 + c) * 2;
        if (b == 0 && t >= 9 && c == 18)
          EXPECT_TRUE(std::isnan(out.states[at]));
        else
          EXPECT_EQ(out.states[at], clean.states[at]);
        EXPECT_EQ(out.grad_x[at], clean.grad_x[at]);
      }
}

}  // namespace
}  // namespace sem
