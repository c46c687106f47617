#include "sem/pit.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <limits>
#include <utility>

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

constexpr double kPi = 3.14159265358979323846;

struct Size {
  int rows, width, bins;
};

// What is given besides psi and the strength.
struct With {
  bool reference, kerr;
};
constexpr With kNothing{false, false};
constexpr With kEveryWith[] = {kNothing, {true, false}, {false, true}, {true, true}};

template <class Real>
struct Problem {
  Problem(Size size, PitRule rule, With with, double scale = 1, unsigned seed = 1)
      : size(size),
        rule(rule),
        psi(normal_array<Real>(2 * static_cast<std::size_t>(size.rows) * size.width, seed)),
        grad_out(normal_array<Real>(psi.size(), seed + 1)),
        reference(with.reference ? uniform_array<Real>(size.rows, 0.5, 2, seed + 2) : std::vector<Real>()),
        kerr(with.kerr ? normal_array<Real>(size.width, seed + 3) : std::vector<Real>()) {
    for (std::size_t i = 0; i < psi.size(); i += 2) psi[i] += Real(0.7);  // bunch the phases
    for (Real& value : psi) value = static_cast<Real>(static_cast<float>(value * scale));
  }

  template <class To>
  Problem<To> as() const {
    Problem<To> other(Size{0, size.width, size.bins}, rule, kNothing);
    other.size = size;
    other.psi = converted<To>(psi);
    other.grad_out = converted<To>(grad_out);
    other.reference = converted<To>(reference);
    other.kerr = converted<To>(kerr);
    other.strength = strength;
    return other;
  }

  template <class Vector>
  static auto data_or_null(Vector& values) {
    return values.empty() ? nullptr : values.data();
  }

  template <class Kernel>
  std::vector<Real> forward(Kernel kernel) const {
    std::vector<Real> out(psi.size());
    kernel(PitForward<Real>{.rows = size.rows,
                            .width = size.width,
                            .num_bins = size.bins,
                            .rule = rule,
                            .psi = psi.data(),
                            .reference_rms = data_or_null(reference),
                            .strength = &strength,
                            .out = out.data(),
                            .kerr = data_or_null(kerr)});
    return out;
  }

  struct Gradients {
    std::vector<Real> psi, reference, kerr;
    Real strength;
  };

  template <class Kernel>
  Gradients backward(Kernel kernel) const {
    Gradients grad{std::vector<Real>(psi.size()), std::vector<Real>(reference.size()), std::vector<Real>(kerr.size()),
                   Real(0)};
    kernel(PitBackward<Real>{.rows = size.rows,
                             .width = size.width,
                             .num_bins = size.bins,
                             .rule = rule,
                             .psi = psi.data(),
                             .reference_rms = data_or_null(reference),
                             .strength = &strength,
                             .grad_out = grad_out.data(),
                             .grad_psi = grad.psi.data(),
                             .grad_reference_rms = data_or_null(grad.reference),
                             .grad_strength = &grad.strength,
                             .kerr = data_or_null(kerr),
                             .grad_kerr = data_or_null(grad.kerr)});
    return grad;
  }

  Size size;
  PitRule rule;
  std::vector<Real> psi, grad_out, reference, kerr;
  Real strength = Real(0.5);
};

template <class Real>
void run_reference(const PitForward<Real>& args) {
  reference::run(args);
}
template <class Real>
void run_reference_backward(const PitBackward<Real>& args) {
  reference::run(args);
}
void run_backend(const PitForward<float>& args) { backend::run(args, {nullptr, 2}); }
void run_backend_backward(const PitBackward<float>& args) { backend::run(args, {nullptr, 2}); }

// Two equal waves one bin apart. The density kernel is close to exp(-x^2 / 4), so each sees the slope
// s = -+ (1/2) e^(-1/4) / (1 + e^(-1/4)) and moves away from the other by sigma s / sqrt(1 + s^2).
TEST(PitReference, TwoPhasesRepelByHand) {
  const double sigma = 2 * kPi / 32;
  Problem<double> problem({1, 2, 32}, PitRule::score, kNothing);
  problem.strength = 1;
  problem.psi = {1, 0, std::cos(sigma), std::sin(sigma)};
  const auto out = problem.forward(run_reference<double>);
  const double near = std::exp(-0.25), s = 0.5 * near / (1 + near), shift = sigma * s / std::sqrt(1 + s * s);
  EXPECT_NEAR(std::atan2(out[1], out[0]), -shift, 1e-4);
  EXPECT_NEAR(std::atan2(out[3], out[2]), sigma + shift, 1e-4);
}

TEST(PitReference, AnEvenSpreadStaysAndTakesTheReferenceRms) {
  Problem<double> problem({1, 64, 32}, PitRule::density_ratio, {true, false});
  problem.reference = {3};
  for (int d = 0; d < 64; ++d) {
    problem.psi[2 * d] = std::cos(2 * kPi * d / 64);
    problem.psi[2 * d + 1] = std::sin(2 * kPi * d / 64);
  }
  const auto out = problem.forward(run_reference<double>);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], 3 * problem.psi[i], 1e-4);
}

// Intensities 1 and 9 over their mean 5; with strength 0 nothing else turns.
TEST(PitReference, KerrRotationByHand) {
  Problem<double> problem({1, 2, 32}, PitRule::score, kNothing);
  problem.strength = 0;
  problem.psi = {1, 0, 0, 3};
  problem.kerr = {0.5, 1};
  const auto out = problem.forward(run_reference<double>);
  EXPECT_NEAR(out[0], std::cos(0.1), 1e-15);
  EXPECT_NEAR(out[1], std::sin(0.1), 1e-15);
  EXPECT_NEAR(out[2], 3 * std::cos(kPi / 2 + 1.8), 1e-15);
  EXPECT_NEAR(out[3], 3 * std::sin(kPi / 2 + 1.8), 1e-15);
}

// The density is that of the turned phases.
TEST(PitReference, KerrComesFirst) {
  for (const PitRule rule : {PitRule::score, PitRule::density_ratio}) {
    Problem<double> problem({3, 20, 32}, rule, {true, true});
    const auto out = problem.forward(run_reference<double>);
    const double strength = std::exchange(problem.strength, 0);
    const auto reference = std::exchange(problem.reference, {});
    problem.psi = problem.forward(run_reference<double>);
    problem.strength = strength;
    problem.reference = reference;
    problem.kerr.clear();
    const auto in_turn = problem.forward(run_reference<double>);
    EXPECT_LE(relative_error(out, in_turn), 1e-14);
  }
}

TEST(PitReference, GradientsMatchFiniteDifferences) {
  for (const PitRule rule : {PitRule::score, PitRule::density_ratio})
    for (const With with : kEveryWith)
      for (const int bins : {5, 32}) {
        Problem<double> problem({2, 7, bins}, rule, with);
        const auto grad = problem.backward(run_reference_backward<double>);
        const auto loss = [&] { return dot(problem.forward(run_reference<double>), problem.grad_out); };
        const auto loss_slope = [&](double& parameter) { return central_difference(parameter, 1e-6, loss); };
        for (std::size_t i = 0; i < problem.psi.size(); ++i) EXPECT_NEAR(grad.psi[i], loss_slope(problem.psi[i]), 1e-7);
        for (std::size_t i = 0; i < problem.reference.size(); ++i)
          EXPECT_NEAR(grad.reference[i], loss_slope(problem.reference[i]), 1e-7);
        for (std::size_t i = 0; i < problem.kerr.size(); ++i)
          EXPECT_NEAR(grad.kerr[i], loss_slope(problem.kerr[i]), 1e-7);
        EXPECT_NEAR(grad.strength, loss_slope(problem.strength), 1e-7);
      }
}

template <class Real>
double norm(const std::vector<Real>& values) {
  return relative_error(values, std::vector<Real>(values.size(), Real(0)));
}

class PitBackend : public ::testing::TestWithParam<Size> {};

TEST_P(PitBackend, MatchesReference) {
  for (const PitRule rule : {PitRule::score, PitRule::density_ratio})
    for (const With with : kEveryWith)
      for (const double scale : {1.0, 1e-20, 1e18}) {
        const Problem<float> problem(GetParam(), rule, with, scale);
        const auto exact = problem.as<double>();
        EXPECT_LE(relative_error(problem.forward(run_backend), exact.forward(run_reference<double>)), 2e-6);
        const auto grad = problem.backward(run_backend_backward);
        const auto expected = exact.backward(run_reference_backward<double>);
        EXPECT_LE(relative_error(grad.psi, expected.psi), 1e-5) << "scale " << scale;
        EXPECT_LE(relative_error(grad.reference, expected.reference), 1e-5);
        EXPECT_LE(relative_error(grad.kerr, expected.kerr), 1e-5);
        // The terms of the strength gradient cancel; their size is bounded by sigma |grad_out| |out|.
        const double bound = 2 * kPi / problem.size.bins * norm(problem.grad_out) * norm(problem.forward(run_backend));
        EXPECT_NEAR(grad.strength, expected.strength, 1e-5 * std::abs(expected.strength) + 1e-7 * bound);
      }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PitBackend,
                         ::testing::Values(Size{0, 5, 32}, Size{8, 1, 32}, Size{3, 2, 32}, Size{15, 3, 32},
                                           Size{16, 16, 16}, Size{17, 17, 33}, Size{40, 64, 32}, Size{5, 256, 64},
                                           Size{4, 1000, 32}, Size{9, 30, 2}, Size{9, 31, 7}));

TEST(PitBackendRows, BadRowsAreContained) {
  Problem<float> problem({4, 20, 32}, PitRule::score, kNothing);
  const auto clean = problem.forward(run_backend);
  const auto clean_grad = problem.backward(run_backend_backward);
  problem.psi[40 + 7] = std::numeric_limits<float>::infinity();
  problem.psi[2 * 40 + 1] = std::numeric_limits<float>::quiet_NaN();
  for (int i = 0; i < 40; ++i) problem.psi[3 * 40 + i] = 0;
  const auto out = problem.forward(run_backend);
  const auto grad = problem.backward(run_backend_backward);
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(out[i], clean[i]);
    EXPECT_EQ(grad.psi[i], clean_grad.psi[i]);
    EXPECT_TRUE(std::isnan(out[40 + i]) && std::isnan(out[80 + i]));
    EXPECT_TRUE(std::isnan(grad.psi[40 + i]) && std::isnan(grad.psi[80 + i]));
    EXPECT_EQ(out[120 + i], 0);
    EXPECT_EQ(grad.psi[120 + i], problem.grad_out[120 + i]);
  }
  EXPECT_TRUE(std::isnan(grad.strength));
}

TEST(PitBackendRows, BadKerrSpoilsAllRowsButThoseOfZeros) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    Problem<float> problem({2, 20, 32}, PitRule::score, {false, true});
    problem.kerr[11] = bad;
    for (int i = 0; i < 40; ++i) problem.psi[40 + i] = 0;
    for (const auto& out : {problem.forward(run_backend), problem.forward(run_reference<float>)})
      for (int i = 0; i < 40; ++i) EXPECT_TRUE(std::isnan(out[i]) && out[40 + i] == 0);
    for (const auto& grad : {problem.backward(run_backend_backward), problem.backward(run_reference_backward<float>)}) {
      EXPECT_TRUE(std::isnan(grad.strength));
      for (int i = 0; i < 40; ++i) EXPECT_TRUE(std::isnan(grad.psi[i]) && !std::isnan(grad.psi[40 + i]));
      for (const float value : grad.kerr) EXPECT_TRUE(std::isnan(value));
    }
  }
}

// Far beyond what float32 can tell as a phase: nothing may be read or written out of bounds.
TEST(PitBackendRows, AnyFiniteKerrKeepsModuli) {
  for (const float large : {1e4f, 1e9f, 5e37f, -5e37f}) {
    Problem<float> problem({3, 37, 32}, PitRule::score, {false, true});
    for (float& value : problem.kerr) value *= large;
    const auto out = problem.forward(run_backend);
    for (std::size_t i = 0; i < out.size(); i += 2)
      EXPECT_NEAR(std::hypot(out[i], out[i + 1]) / std::hypot(problem.psi[i], problem.psi[i + 1]), 1, 1e-6);
    const auto grad = problem.backward(run_backend_backward);
    const bool overflows = std::abs(large) > 1e9f;  // in the terms of the gradient
    for (const float value : grad.psi) EXPECT_TRUE(overflows || std::isfinite(value));
  }
}

TEST(PitBackendRows, ZeroAndTinyEntriesHaveNoPhase) {
  Problem<float> problem({1, 19, 32}, PitRule::score, kNothing);
  problem.psi[0] = problem.psi[1] = 0;
  problem.psi[2] = 0;
  problem.psi[3] = 1e-36f;
  const auto out = problem.forward(run_backend);
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(out[1], 0);
  EXPECT_NEAR(out[3] / 1e-36, 1, 1e-6);
  const auto exact = problem.as<double>();
  EXPECT_LE(relative_error(out, exact.forward(run_reference<double>)), 2e-6);
  EXPECT_LE(
      relative_error(problem.backward(run_backend_backward).psi, exact.backward(run_reference_backward<double>).psi),
      1e-5);
}

}  // namespace
}  // namespace sem
