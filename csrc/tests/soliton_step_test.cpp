// A propagator layer's step: pit and cayley in one.
#include <gtest/gtest.h>

#include <limits>

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

  std::vector<Real> out, residual, grad_psi, grad_kerr, grad_weight;
  std::vector<std::int32_t> status, iterations;
  Real grad_strength = 0, grad_half_dt = 0;

  Step(int rows, int width)
      : graph(OwnedGraph::small_world(width, 2, width / 2, 5)),
        rows(rows),
        width(width),
        psi(normal_array<Real>(2 * static_cast<std::size_t>(rows) * width, 1)),
        grad_out(normal_array<Real>(psi.size(), 2)),
        kerr(uniform_array<Real>(width, -0.3, 0.3, 3)),
        weight(uniform_array<Real>(graph.view().edges, 0.2, 1.5, 4)),
        out(psi.size()),
        residual(rows),
        grad_psi(psi.size()),
        grad_kerr(kerr.size()),
        grad_weight(weight.size()),
        status(rows),
        iterations(rows) {
    for (std::size_t i = 0; i < psi.size(); i += 2) psi[i] += Real(0.7);  // bunch the phases
  }

  SolitonStepForward<Real> forward() {
    return {.graph = graph.view(),
            .rows = rows,
            .num_bins = kBins,
            .psi = psi.data(),
            .kerr = kerr.data(),
            .strength = &strength,
            .edge_weight = weight.data(),
            .settings = {&half_dt, tol, 2000},
            .psi_out = out.data(),
            .report = {status.data(), iterations.data(), residual.data()}};
  }
  SolitonStepBackward<Real> backward() {
    return {.graph = graph.view(),
            .rows = rows,
            .num_bins = kBins,
            .psi = psi.data(),
            .kerr = kerr.data(),
            .strength = &strength,
            .edge_weight = weight.data(),
            .settings = {&half_dt, tol, 2000},
            .psi_out = out.data(),
            .grad_out = grad_out.data(),
            .grad_psi = grad_psi.data(),
            .grad_kerr = grad_kerr.data(),
            .grad_strength = &grad_strength,
            .grad_weight = grad_weight.data(),
            .grad_half_dt = &grad_half_dt,
            .report = {status.data(), nullptr, nullptr}};
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
  reference::run(exact.forward());
  reference::run(exact.backward());
  return exact;
}

class SolitonBackend : public ::testing::TestWithParam<std::pair<int, int>> {};

TEST_P(SolitonBackend, IsTheReferencesPitThenCayley) {
  Step<float> step(GetParam().first, GetParam().second);
  const Step<double> exact = reference_of(step);
  backend::run(step.forward(), {});
  EXPECT_LE(relative_error(step.out, exact.out), 4e-6);
  for (const std::int32_t status : step.status) EXPECT_EQ(status, 0);

  backend::run(step.backward(), {});
  EXPECT_LE(relative_error(step.grad_psi, exact.grad_psi), 2e-5);
  EXPECT_LE(relative_error(step.grad_kerr, exact.grad_kerr), 3e-5);
  EXPECT_LE(relative_error(step.grad_weight, exact.grad_weight), 3e-5);
  EXPECT_NEAR(step.grad_strength, exact.grad_strength, 1e-4 * std::abs(exact.grad_strength) + 1e-5);
  EXPECT_NEAR(step.grad_half_dt, exact.grad_half_dt, 1e-4 * std::abs(exact.grad_half_dt) + 1e-5);
}

// On the CPU to the bit, which python_tests/ops/test_soliton_step.py holds it to; devices prepare both solves in groups
// of other sizes.
TEST_P(SolitonBackend, AgreesWithItsPartsInTurn) {
  Step<float> step(GetParam().first, GetParam().second), parts(GetParam().first, GetParam().second);
  std::vector<float> turned(step.psi.size()), grad_turned(step.psi.size());
  backend::run(step.forward(), {});
  backend::run(parts.forward().turn(turned.data()), {});
  backend::run(parts.forward().step(turned.data()), {});
  EXPECT_LE(relative_error(step.out, converted<double>(parts.out)), 1e-6);
  EXPECT_EQ(step.iterations, parts.iterations);

  backend::run(step.backward(), {});
  backend::run(parts.backward().step(turned.data(), grad_turned.data()), {});
  backend::run(parts.backward().turn_back(grad_turned.data()), {});
  EXPECT_LE(relative_error(step.grad_psi, converted<double>(parts.grad_psi)), 1e-6);
  EXPECT_LE(relative_error(step.grad_kerr, converted<double>(parts.grad_kerr)), 1e-6);
  EXPECT_LE(relative_error(step.grad_weight, converted<double>(parts.grad_weight)), 1e-6);
  EXPECT_NEAR(step.grad_strength, parts.grad_strength, 1e-5 * std::abs(parts.grad_strength));
  EXPECT_NEAR(step.grad_half_dt, parts.grad_half_dt, 1e-5 * std::abs(parts.grad_half_dt));
}

INSTANTIATE_TEST_SUITE_P(Sizes, SolitonBackend,
                         ::testing::Values(std::pair{1, 2}, std::pair{13, 33}, std::pair{3, 256}, std::pair{2, 515},
                                           std::pair{2, 2049}));

TEST(SolitonBackendRows, NoRowsGiveGradientsOfZero) {
  Step<float> step(0, 24);
  step.grad_kerr.assign(24, 7);
  step.grad_weight.assign(step.weight.size(), 7);
  backend::run(step.forward(), {});
  backend::run(step.backward(), {});
  EXPECT_EQ(step.grad_kerr, std::vector<float>(24, 0));
  EXPECT_EQ(step.grad_weight, std::vector<float>(step.weight.size(), 0));
  EXPECT_EQ(step.grad_strength, 0);
}

}  // namespace
}  // namespace sem
