// A propagator layer's step on a device back end: pit and cayley in shared launches.
#include <gtest/gtest.h>

#include <limits>

#include "device/operators.hpp"
#include "tests/backend.hpp"
#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::normal_array;
using testing::OwnedGraph;
using testing::relative_error;
using testing::uniform_array;

constexpr int kBins = 32;

template <class Real>
struct Step {
  OwnedGraph graph;
  int rows, width;
  std::vector<Real> psi, grad_out, kerr, weight;
  Real strength = Real(0.5), half_dt = Real(0.05), tol = Real(1e-6);

  std::vector<Real> turned, out, residual, grad_turned, grad_psi, grad_kerr, grad_weight;
  std::vector<std::int32_t> status, iterations;
  Real grad_strength = 0, grad_half_dt = 0;

  Step(int rows, int width)
      : graph(OwnedGraph::small_world(width, 2, width / 2, 5)),
        rows(rows),
        width(width),
        psi(normal_array<Real>(2 * static_cast<std::size_t>(rows) * width, 1)),
        grad_out(normal_array<Real>(psi.size(), 2)),
        kerr(uniform_array<Real>(width, -0.3, 0.3, 3)),
        weight(uniform_array<Real>(graph.view().edges, 0.2, 1.5, 4)) {
    for (std::size_t i = 0; i < psi.size(); i += 2) psi[i] += Real(0.7);  // bunch the phases
    allocate();
  }

  void allocate() {
    turned.resize(psi.size());
    out.resize(psi.size());
    grad_turned.resize(psi.size());
    grad_psi.resize(psi.size());
    grad_kerr.resize(kerr.size());
    grad_weight.resize(weight.size());
    residual.resize(rows);
    status.resize(rows);
    iterations.resize(rows);
  }

  PitForward<Real> turn() {
    return {.rows = rows,
            .width = width,
            .num_bins = kBins,
            .rule = PitRule::score,
            .psi = psi.data(),
            .reference_rms = nullptr,
            .strength = &strength,
            .out = turned.data(),
            .kerr = kerr.data()};
  }
  CayleyForward<Real> step() {
    return {graph.view(),  rows,       weight.data(),
            half_dt,       tol,        2000,
            turned.data(), out.data(), {status.data(), iterations.data(), residual.data()}};
  }
  CayleyBackward<Real> step_back() {
    CayleyBackward<Real> args;
    args.graph = graph.view();
    args.rows = rows;
    args.edge_weight = weight.data();
    args.half_dt = half_dt;
    args.tol = tol;
    args.max_iter = 2000;
    args.psi = turned.data();
    args.psi_out = out.data();
    args.grad_out = grad_out.data();
    args.grad_psi = grad_turned.data();
    args.grad_weight = grad_weight.data();
    args.grad_half_dt = &grad_half_dt;
    args.report.status = status.data();
    return args;
  }
  PitBackward<Real> pit_back() {
    return {.rows = rows,
            .width = width,
            .num_bins = kBins,
            .rule = PitRule::score,
            .psi = psi.data(),
            .reference_rms = nullptr,
            .strength = &strength,
            .grad_out = grad_turned.data(),
            .grad_psi = grad_psi.data(),
            .grad_reference = nullptr,
            .grad_strength = &grad_strength,
            .kerr = kerr.data(),
            .grad_kerr = grad_kerr.data()};
  }
};

Step<double> reference_of(const Step<float>& from) {
  Step<double> exact(from.rows, from.width);
  exact.psi = converted<double>(from.psi);
  exact.grad_out = converted<double>(from.grad_out);
  exact.kerr = converted<double>(from.kerr);
  exact.weight = converted<double>(from.weight);
  exact.strength = from.strength;
  exact.half_dt = from.half_dt;
  exact.tol = 1e-13;
  reference::pit_forward(exact.turn());
  reference::cayley_forward(exact.step());
  reference::cayley_backward(exact.step_back());
  reference::pit_backward(exact.pit_back());
  return exact;
}

class SolitonBackend : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(SolitonBackend, IsTheReferencesPitThenCayley) {
  Step<float> step(GetParam().first, GetParam().second);
  const Step<double> exact = reference_of(step);
  backend::soliton_forward(step.turn(), step.step());
  EXPECT_LE(relative_error(step.out, exact.out), 4e-6);
  for (const std::int32_t status : step.status) EXPECT_EQ(status, 0);

  const std::vector<float> turned = step.turned;
  step.turned.assign(turned.size(), std::numeric_limits<float>::quiet_NaN());
  backend::soliton_backward(step.turn(), step.step_back(), step.pit_back());
  EXPECT_EQ(step.turned, turned);
  EXPECT_LE(relative_error(step.grad_psi, exact.grad_psi), 2e-5);
  EXPECT_LE(relative_error(step.grad_kerr, exact.grad_kerr), 3e-5);
  EXPECT_LE(relative_error(step.grad_weight, exact.grad_weight), 3e-5);
  EXPECT_NEAR(step.grad_strength, exact.grad_strength, 1e-4 * std::abs(exact.grad_strength) + 1e-5);
  EXPECT_NEAR(step.grad_half_dt, exact.grad_half_dt, 1e-4 * std::abs(exact.grad_half_dt) + 1e-5);

  std::vector<float> alone(turned.size());
  PitForward<float> pit = step.turn();
  pit.out = alone.data();
  backend::pit_forward(pit, {});
  EXPECT_EQ(alone, turned);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SolitonBackend,
                         ::testing::Values(std::pair{1, 2}, std::pair{13, 33}, std::pair{3, 256}, std::pair{2, 515},
                                           std::pair{2, 2049}));

TEST(SolitonBackendRows, NoRowsGiveGradientsOfZero) {
  Step<float> step(0, 24);
  step.grad_kerr.assign(24, 7);
  step.grad_weight.assign(step.weight.size(), 7);
  backend::soliton_forward(step.turn(), step.step());
  backend::soliton_backward(step.turn(), step.step_back(), step.pit_back());
  EXPECT_EQ(step.grad_kerr, std::vector<float>(24, 0));
  EXPECT_EQ(step.grad_weight, std::vector<float>(step.weight.size(), 0));
  EXPECT_EQ(step.grad_strength, 0);
}

// Counts launches, runs nothing.
struct Counter {
  int launches = 0;
  device::Limits limits() const { return {99 * 1024, 1024, 32}; }
  template <class Kernel>
  void operator()(const Kernel&, std::int64_t groups, int group_size, std::int64_t local_floats) {
    if (groups == 0) return;
    ++launches;
    EXPECT_LE(group_size, Kernel::kMostThreads);
    EXPECT_LE(4 * local_floats, limits().local_bytes);
  }
};

TEST(SolitonBackendLaunches, AreTwoForwardAndFourBackwardAtEverySize) {
  for (const int width : {2, 256, 1024, 4096, 8192}) {
    Step<float> step(3, width);
    device::SolitonTask task;
    task.turn = step.turn();
    task.cayley.graph = step.graph.view();
    task.cayley.rows = step.rows;
    Counter forward, backward;
    device::run(task, forward);
    EXPECT_EQ(forward.launches, 2) << width;
    task.backward = task.cayley.adjoint = true;
    task.cayley.grad_weight = step.grad_weight.data();
    task.cayley.grad_half_dt = &step.grad_half_dt;
    task.pit = step.pit_back();
    device::run(task, backward);
    EXPECT_EQ(backward.launches, 4) << width;
  }
}

}  // namespace
}  // namespace sem
