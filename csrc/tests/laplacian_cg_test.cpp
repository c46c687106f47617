#include "sem/laplacian_cg.hpp"

#include <gtest/gtest.h>

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

TEST(LaplacianCgReference, TwoNodesByHand) {
  // On the difference mode H is 2w: x = b / (alpha + beta 2w + gamma (2w)^2); on the sum mode x = b / alpha.
  const OwnedGraph graph(2, {{0, 1}});
  const std::vector<double> weight{1.5}, b{1, 0};
  std::vector<double> x(2);
  reference::run(LaplacianCgForward<double>{
      graph.view(), 1, 1, weight.data(), {2.0, 0.5, 0.25}, 1e-14, 10, b.data(), x.data(), {}});
  const double sum = 0.5 / 2.0, difference = 0.5 / (2.0 + 0.5 * 3 + 0.25 * 9);
  EXPECT_NEAR(x[0], sum + difference, 1e-12);
  EXPECT_NEAR(x[1], sum - difference, 1e-12);
}

struct Case {
  int rows, nodes, components;
  float alpha, beta, gamma;
};

class LaplacianCgBackend : public ::testing::TestWithParam<Case> {};

TEST_P(LaplacianCgBackend, MatchesReference) {
  const auto [rows, nodes, components, alpha, beta, gamma] = GetParam();
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 3, 2 * nodes, 1);
  const std::size_t size = static_cast<std::size_t>(rows) * nodes * components;
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  const auto b = normal_array<float>(size, 3), g = normal_array<float>(size, 4);
  const auto weight64 = converted<double>(weight), b64 = converted<double>(b), g64 = converted<double>(g);
  const float tol = 1e-6f;

  std::vector<float> x(size), residual(rows);
  std::vector<std::int32_t> status(rows), iterations(rows);
  backend::run(LaplacianCgForward<float>{graph.view(),
                                         rows,
                                         components,
                                         weight.data(),
                                         {alpha, beta, gamma},
                                         tol,
                                         300,
                                         b.data(),
                                         x.data(),
                                         {status.data(), iterations.data(), residual.data()}},
               {nullptr, 2});
  for (int row = 0; row < rows; ++row) ASSERT_EQ(status[row], 0) << residual[row];
  std::vector<double> truth(size);
  reference::run(LaplacianCgForward<double>{graph.view(),
                                            rows,
                                            components,
                                            weight64.data(),
                                            {alpha, beta, gamma},
                                            1e-13,
                                            20000,
                                            b64.data(),
                                            truth.data(),
                                            {}});
  EXPECT_LE(relative_error(x, truth), 1e-5);

  std::vector<float> grad_b(size), grad_weight(graph.edges());
  backend::run(LaplacianCgBackward<float>{graph.view(),
                                          rows,
                                          components,
                                          weight.data(),
                                          {alpha, beta, gamma},
                                          tol,
                                          300,
                                          x.data(),
                                          g.data(),
                                          grad_b.data(),
                                          grad_weight.data(),
                                          {}},
               {nullptr, 2});
  std::vector<double> true_grad_b(size), true_grad_weight(graph.edges());
  reference::run(LaplacianCgBackward<double>{graph.view(),
                                             rows,
                                             components,
                                             weight64.data(),
                                             {alpha, beta, gamma},
                                             1e-13,
                                             20000,
                                             truth.data(),
                                             g64.data(),
                                             true_grad_b.data(),
                                             true_grad_weight.data(),
                                             {}});
  EXPECT_LE(relative_error(grad_b, true_grad_b), 1e-5);
  EXPECT_LE(relative_error(grad_weight, true_grad_weight), 2e-5);
}

INSTANTIATE_TEST_SUITE_P(Cases, LaplacianCgBackend,
                         ::testing::Values(Case{0, 5, 1, 1, 1, 0}, Case{1, 2, 1, 1, 1, 0}, Case{15, 3, 2, 0.5, 1, 0},
                                           Case{16, 17, 1, 1, 0, 0.25}, Case{17, 64, 2, 1, 0.5, 0.1},
                                           Case{33, 64, 1, 0.3, 1, 0}, Case{600, 17, 2, 1, 0, 0.25}));

// Of what is returned, b - S x over b in double, where rounding in float32 is of the tolerance's size.
TEST(LaplacianCgBackend, ConvergedIsCertain) {
  const int nodes = 48, rows = 20;
  std::set<std::pair<int, int>> star;
  for (int i = 1; i < nodes; ++i) star.insert({0, i});
  int converged = 0, given_up = 0;
  for (const OwnedGraph& graph : {OwnedGraph(nodes, star), OwnedGraph::small_world(nodes, 3, nodes, 1)})
    for (const ShiftedLaplacian<float> system : {ShiftedLaplacian<float>{1, 1, 0}, {0.01f, 10, 0}, {0.001f, 1, 1}})
      for (const float tol : {1e-3f, 1e-5f, 1e-6f}) {
        const auto weight = uniform_array<float>(graph.edges(), 0.5, 1.5, 2), b = normal_array<float>(rows * nodes, 3);
        std::vector<float> x(rows * nodes), reported(rows);
        std::vector<std::int32_t> status(rows), iterations(rows);
        backend::run(LaplacianCgForward<float>{graph.view(),
                                               rows,
                                               1,
                                               weight.data(),
                                               system,
                                               tol,
                                               3000,
                                               b.data(),
                                               x.data(),
                                               {status.data(), iterations.data(), reported.data()}},
                     {nullptr, 2});
        const auto weight64 = converted<double>(weight), x64 = converted<double>(x);
        std::vector<double> hx(nodes), hhx(nodes);
        for (int row = 0; row < rows; ++row) {
          const double* const at = x64.data() + row * nodes;
          reference::apply_laplacian(graph.view(), weight64.data(), 1, at, hx.data());
          reference::apply_laplacian(graph.view(), weight64.data(), 1, hx.data(), hhx.data());
          double left = 0, size = 0;
          for (int n = 0; n < nodes; ++n) {
            const double own = b[row * nodes + n];
            const double rest = own - system.alpha * at[n] - system.beta * hx[n] - system.gamma * hhx[n];
            left += rest * rest;
            size += own * own;
          }
          const double residual = std::sqrt(left / size);
          status[row] == 0 ? ++converged : ++given_up;
          if (status[row] != 0) continue;
          EXPECT_LE(residual, 1.001 * tol) << system.alpha;
          EXPECT_GE(reported[row], 0.99 * residual - 0.25 * tol) << system.alpha;
        }
      }
  EXPECT_GT(converged, 100);
  EXPECT_GT(given_up, 20);
}

TEST(LaplacianCgBackend, BadRowsAreContained) {
  const int nodes = 9, rows = 18;
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 2, nodes, 1);
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  auto b = normal_array<float>(rows * nodes, 3);
  b[4 * nodes + 2] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(b.size());
  std::vector<std::int32_t> status(rows);
  backend::run(LaplacianCgForward<float>{graph.view(),
                                         rows,
                                         1,
                                         weight.data(),
                                         {1, 1, 0},
                                         1e-6f,
                                         100,
                                         b.data(),
                                         x.data(),
                                         {status.data(), nullptr, nullptr}},
               {nullptr, 1});
  for (int row = 0; row < rows; ++row) {
    EXPECT_EQ(status[row], row == 4 ? static_cast<int>(Status::nonfinite) : 0);
    for (int n = 0; n < nodes; ++n) EXPECT_EQ(std::isnan(x[row * nodes + n]), row == 4);
  }
}

TEST(LaplacianCgBackend, AMaskedRowOfNanLeavesTheWeightGradientAlone) {
  const int nodes = 9, rows = 21;
  for (const int components : {1, 2}) {
    const OwnedGraph graph = OwnedGraph::small_world(nodes, 2, nodes, 1);
    const std::size_t width = nodes * components, size = rows * width;
    const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
    auto x = normal_array<float>(size, 3), g = normal_array<float>(size, 4);
    std::fill_n(g.begin() + 4 * width, width, 0.0f);
    std::vector<float> grad_b(size);
    const auto weight_gradient = [&] {
      std::vector<float> out(graph.edges());
      const ShiftedLaplacian<float> system{1, 0.5f, 0.25f};
      backend::run(LaplacianCgBackward<float>{graph.view(),
                                              rows,
                                              components,
                                              weight.data(),
                                              system,
                                              1e-6f,
                                              100,
                                              x.data(),
                                              g.data(),
                                              grad_b.data(),
                                              out.data(),
                                              {}},
                   {nullptr, 2});
      return out;
    };
    const auto clean = weight_gradient();
    x[4 * width + 3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(weight_gradient(), clean);
  }
}

}  // namespace
}  // namespace sem
