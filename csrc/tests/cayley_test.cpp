#include "sem/cayley.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <limits>

#include "reference/graph.hpp"
#include "tests/backend.hpp"
#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::normal_array;
using testing::OwnedGraph;
using testing::relative_error;
using testing::uniform_array;

template <class Real>
struct Solved {
  std::vector<Real> out, residual;
  std::vector<std::int32_t> status, iterations;
  Solved(std::size_t size, std::size_t rows) : out(size), residual(rows), status(rows), iterations(rows) {}
};

template <class Real>
CayleyForward<Real> forward_args(const OwnedGraph& graph, int rows, const std::vector<Real>& weight,
                                 const Real& half_dt, Real tol, int max_iter, const std::vector<Real>& psi,
                                 Solved<Real>& solved) {
  return {graph.view(),
          rows,
          weight.data(),
          {&half_dt, tol, max_iter},
          psi.data(),
          solved.out.data(),
          {solved.status.data(), solved.iterations.data(), solved.residual.data()}};
}

Solved<double> reference_step(const OwnedGraph& graph, int rows, const std::vector<double>& weight, double half_dt,
                              const std::vector<double>& psi) {
  Solved<double> solved(psi.size(), rows);
  reference::run(forward_args<double>(graph, rows, weight, half_dt, 1e-13, 20000, psi, solved));
  return solved;
}

Solved<float> backend_step(const OwnedGraph& graph, int rows, const std::vector<float>& weight, float half_dt,
                           float tol, int max_iter, const std::vector<float>& psi, int threads = 2) {
  Solved<float> solved(psi.size(), rows);
  backend::run(forward_args<float>(graph, rows, weight, half_dt, tol, max_iter, psi, solved), {nullptr, threads});
  return solved;
}

TEST(CayleyReference, TwoNodesByHand) {
  // H has eigenvalues 0 (sum) and 2w (difference), so the difference is multiplied by (1 - 2iaw) / (1 + 2iaw).
  const OwnedGraph graph(2, {{0, 1}});
  const double w = 1.5, a = 0.4;
  const Solved<double> solved = reference_step(graph, 1, {w}, a, {1, 0, 0, 0});
  const std::complex<double> turn =
      (1.0 - std::complex<double>(0, 2 * a * w)) / (1.0 + std::complex<double>(0, 2 * a * w));
  EXPECT_NEAR(solved.out[0], (1.0 + turn.real()) / 2, 1e-12);
  EXPECT_NEAR(solved.out[1], turn.imag() / 2, 1e-12);
  EXPECT_NEAR(solved.out[2], (1.0 - turn.real()) / 2, 1e-12);
  EXPECT_NEAR(solved.out[3], -turn.imag() / 2, 1e-12);
}

TEST(CayleyReference, GradientsByDifferences) {
  const OwnedGraph graph = OwnedGraph::small_world(6, 1, 4, 1);
  const auto weight = uniform_array<double>(graph.edges(), 0.2, 1, 2);
  const auto psi = normal_array<double>(12, 3), g = normal_array<double>(12, 4);
  const double a = 0.3;
  const auto loss = [&](const std::vector<double>& w, double half_dt) {
    const auto out = reference_step(graph, 1, w, half_dt, psi).out;
    double sum = 0;
    for (int n = 0; n < 12; ++n) sum += g[n] * out[n];
    return sum;
  };
  const auto out = reference_step(graph, 1, weight, a, psi).out;
  std::vector<double> grad_psi(12), grad_weight(graph.edges());
  double grad_a = 0;
  reference::run(CayleyBackward<double>{graph.view(),
                                        1,
                                        weight.data(),
                                        {&a, 1e-13, 1000},
                                        psi.data(),
                                        out.data(),
                                        g.data(),
                                        grad_psi.data(),
                                        grad_weight.data(),
                                        &grad_a,
                                        {}});
  const double h = 1e-6;
  EXPECT_NEAR(grad_a, (loss(weight, a + h) - loss(weight, a - h)) / (2 * h), 1e-7);
  for (std::size_t e = 0; e < graph.edges(); ++e) {
    auto up = weight, down = weight;
    up[e] += h;
    down[e] -= h;
    EXPECT_NEAR(grad_weight[e], (loss(up, a) - loss(down, a)) / (2 * h), 1e-7);
  }
}

struct Case {
  int rows, nodes;
  float dt, tol;
  bool ring = false;
};

class CayleyBackend : public ::testing::TestWithParam<Case> {};

TEST_P(CayleyBackend, MatchesReference) {
  const auto [rows, nodes, dt, tol, ring] = GetParam();
  const OwnedGraph graph =
      ring ? OwnedGraph::small_world(nodes, 1, 0, 1) : OwnedGraph::small_world(nodes, 4, 3 * nodes, 1);
  const std::size_t size = static_cast<std::size_t>(rows) * nodes * 2;
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  const auto psi = normal_array<float>(size, 3), g = normal_array<float>(size, 4);
  const auto solved = backend_step(graph, rows, weight, dt / 2, tol, 400, psi);
  const auto truth = reference_step(graph, rows, converted<double>(weight), dt / 2, converted<double>(psi));
  for (int row = 0; row < rows; ++row) {
    ASSERT_EQ(solved.status[row], 0);
    EXPECT_LE(solved.residual[row], tol);
  }
  EXPECT_LE(relative_error(solved.out, truth.out), 2 * tol + 2e-6);

  std::vector<float> grad_psi(size), grad_weight(graph.edges());
  const float half_dt = dt / 2;
  float grad_a = 0;
  backend::run(CayleyBackward<float>{graph.view(),
                                     rows,
                                     weight.data(),
                                     {&half_dt, tol, 400},
                                     psi.data(),
                                     solved.out.data(),
                                     g.data(),
                                     grad_psi.data(),
                                     grad_weight.data(),
                                     &grad_a,
                                     {}},
               {nullptr, 2});
  std::vector<double> true_grad_psi(size), true_grad_weight(graph.edges());
  const double half_dt64 = half_dt;
  double true_grad_a = 0;
  const auto weight64 = converted<double>(weight), psi64 = converted<double>(psi), g64 = converted<double>(g);
  reference::run(CayleyBackward<double>{graph.view(),
                                        rows,
                                        weight64.data(),
                                        {&half_dt64, 1e-13, 20000},
                                        psi64.data(),
                                        truth.out.data(),
                                        g64.data(),
                                        true_grad_psi.data(),
                                        true_grad_weight.data(),
                                        &true_grad_a,
                                        {}});
  EXPECT_LE(relative_error(grad_psi, true_grad_psi), 5 * tol + 1e-5);
  EXPECT_LE(relative_error(grad_weight, true_grad_weight), 5 * tol + 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Cases, CayleyBackend,
                         ::testing::Values(Case{0, 5, 0.1f, 1e-5f}, Case{1, 2, 0.1f, 1e-5f}, Case{15, 3, 1.0f, 1e-5f},
                                           Case{16, 17, 0.01f, 1e-6f}, Case{17, 64, 0.1f, 1e-6f},
                                           Case{33, 64, 1.0f, 1e-5f}, Case{600, 17, 0.1f, 1e-4f},
                                           Case{1, 3, 0.1f, 1e-6f, true}, Case{17, 4, 1.0f, 1e-6f, true},
                                           Case{33, 65, 1.5f, 1e-6f, true}, Case{600, 128, 20.0f, 1e-5f, true}));

// Of what is returned, psi - (I + iaH) (psi_out + psi) / 2 over psi, in double, where rounding in float32 is of the
// tolerance's size.
TEST(CayleyBackend, ConvergedIsCertain) {
  const int nodes = 48, rows = 20;
  std::set<std::pair<int, int>> star;
  for (int i = 1; i < nodes; ++i) star.insert({0, i});
  int converged = 0, given_up = 0;
  for (const OwnedGraph& graph : {OwnedGraph(nodes, star), OwnedGraph::small_world(nodes, 3, nodes, 1)})
    for (const float half_dt : {0.02f, -0.3f, 2.0f, 30.0f, 1000.0f})
      for (const float tol : {1e-3f, 1e-5f, 1e-6f}) {
        const auto weight = uniform_array<float>(graph.edges(), 0.5, 1.5, 2);
        const auto psi = normal_array<float>(rows * nodes * 2, 3);
        const auto solved = backend_step(graph, rows, weight, half_dt, tol, 400, psi);
        const auto weight64 = converted<double>(weight), psi64 = converted<double>(psi);
        std::vector<double> y = converted<double>(solved.out), hy(nodes * 2);
        for (std::size_t n = 0; n < y.size(); ++n) y[n] = (y[n] + psi64[n]) / 2;
        for (int row = 0; row < rows; ++row) {
          const std::size_t at = static_cast<std::size_t>(row) * nodes * 2;
          reference::apply_laplacian(graph.view(), weight64.data(), 2, y.data() + at, hy.data());
          double left = 0, size = 0;
          for (int n = 0; n < nodes * 2; ++n) {
            const double turned = n % 2 == 0 ? half_dt * hy[n + 1] : -half_dt * hy[n - 1];
            const double rest = psi64[at + n] - y[at + n] + turned;
            left += rest * rest;
            size += psi64[at + n] * psi64[at + n];
          }
          const double residual = std::sqrt(left / size);
          solved.status[row] == 0 ? ++converged : ++given_up;
          if (solved.status[row] != 0) continue;
          EXPECT_LE(residual, 1.001 * tol) << half_dt;
          EXPECT_GE(solved.residual[row], 0.99 * residual - 0.25 * tol) << half_dt;
        }
      }
  EXPECT_GT(converged, 200);
  EXPECT_GT(given_up, 20);
}

TEST(CayleyBackend, BadRowsAreContained) {
  const int nodes = 17, rows = 20;
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 2, nodes, 1);
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  auto psi = normal_array<float>(rows * nodes * 2, 3);
  const auto clean = backend_step(graph, rows, weight, 0.05f, 1e-6f, 50, psi);
  psi[3 * nodes * 2 + 5] = std::numeric_limits<float>::quiet_NaN();
  psi[18 * nodes * 2] = std::numeric_limits<float>::infinity();
  for (int n = 0; n < nodes * 2; ++n) psi[7 * nodes * 2 + n] = 0;
  const auto solved = backend_step(graph, rows, weight, 0.05f, 1e-6f, 50, psi);
  for (int row = 0; row < rows; ++row)
    for (int n = 0; n < nodes * 2; ++n) {
      const float value = solved.out[row * nodes * 2 + n];
      if (row == 3 || row == 18) {
        EXPECT_TRUE(std::isnan(value));
      } else if (row == 7) {
        EXPECT_EQ(value, 0);
      } else {
        EXPECT_EQ(value, clean.out[row * nodes * 2 + n]);
      }
    }
  EXPECT_EQ(solved.status[3], static_cast<int>(Status::nonfinite));
  EXPECT_EQ(solved.status[18], static_cast<int>(Status::nonfinite));
  EXPECT_EQ(solved.status[7], 0);
  EXPECT_EQ(solved.iterations[7], 0);
}

TEST(CayleyBackend, RowsKeepTheirBits) {
  const int nodes = 33, rows = 50;
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 3, nodes, 1);
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  const auto psi = normal_array<float>(rows * nodes * 2, 3);
  const auto all = backend_step(graph, rows, weight, 0.5f, 1e-5f, 50, psi, 2);
  for (int row : {0, 15, 16, 37, 49}) {
    const std::vector<float> one(psi.begin() + row * nodes * 2, psi.begin() + (row + 1) * nodes * 2);
    const auto alone = backend_step(graph, 1, weight, 0.5f, 1e-5f, 50, one, 1);
    EXPECT_EQ(alone.iterations[0], all.iterations[row]);
    EXPECT_EQ(alone.residual[0], all.residual[row]);
    for (int n = 0; n < nodes * 2; ++n) EXPECT_EQ(alone.out[n], all.out[row * nodes * 2 + n]);
  }
}

// What is made of weights and settings may be kept from call to call; a row among many is solved without.
TEST(CayleyBackend, EarlierCallsLeaveNoTrace) {
  const OwnedGraph graph = OwnedGraph::small_world(24, 4, 30, 1);
  const auto psi = normal_array<float>(40 * 48, 3);
  const std::vector<float> first(psi.begin(), psi.begin() + 48);
  auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  for (int round = 0; round < 3; ++round) {
    for (int k = 0; k < (round == 1 ? 20 : 5); ++k) {  // a few that are kept, and once more than can be
      const float half_dt = 0.02f * static_cast<float>(k - 10);
      const auto many = backend_step(graph, 40, weight, half_dt, 1e-5, 400, psi).out;
      const auto one = backend_step(graph, 1, weight, half_dt, 1e-5, 400, first).out;
      EXPECT_EQ(std::vector<float>(many.begin(), many.begin() + 48), one) << "half_dt " << half_dt;
    }
    weight[round] += 0.25f;  // in place: another matrix at the same address
  }
}

TEST(CayleyBackend, LimitsAreReported) {
  const int nodes = 64;
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 6, 5 * nodes, 1);
  const auto weight = uniform_array<float>(graph.edges(), 0.5, 1, 2);
  const auto psi = normal_array<float>(nodes * 2, 3);
  const auto cut = backend_step(graph, 1, weight, 0.5f, 1e-6f, 3, psi);
  EXPECT_EQ(cut.status[0], static_cast<int>(Status::max_iter));
  EXPECT_EQ(cut.iterations[0], 3);
  const auto hard = backend_step(graph, 1, weight, 50.0f, 1e-9f, 2000, psi);
  EXPECT_EQ(hard.status[0], static_cast<int>(Status::stagnated));
  EXPECT_GT(hard.residual[0], 1e-9f);
}

TEST(CayleyBackend, ScaleOfTheInputDoesNotMatter) {
  const int nodes = 17;
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 2, nodes, 1);
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  const auto psi = normal_array<float>(nodes * 2, 3);
  const auto plain = backend_step(graph, 1, weight, 0.5f, 1e-6f, 50, psi);
  for (const float scale : {0x1p-100f, 0x1p100f}) {
    std::vector<float> scaled = psi;
    for (float& value : scaled) value *= scale;
    const auto solved = backend_step(graph, 1, weight, 0.5f, 1e-6f, 50, scaled);
    for (int n = 0; n < nodes * 2; ++n) EXPECT_EQ(solved.out[n], plain.out[n] * scale);
  }
}

}  // namespace
}  // namespace sem
