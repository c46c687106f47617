#include "sem/laplacian_matvec.hpp"

#include <gtest/gtest.h>

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
std::vector<Real> reference_product(const OwnedGraph& graph, int rows, int components, const std::vector<Real>& weight,
                                    const std::vector<Real>& x) {
  std::vector<Real> out(x.size());
  reference::run(LaplacianMatvecForward<Real>{graph.view(), rows, components, weight.data(), x.data(), out.data()});
  return out;
}

TEST(LaplacianMatvecReference, PathOfThreeNodesByHand) {
  const OwnedGraph graph(3, {{0, 1}, {1, 2}});
  const std::vector<double> weight{2, 3}, x{1, 4, 10};
  EXPECT_EQ(reference_product(graph, 1, 1, weight, x), (std::vector<double>{-6, -12, 18}));
}

TEST(LaplacianMatvecReference, WeightGradientByHand) {
  const OwnedGraph graph(3, {{0, 1}, {1, 2}});
  const std::vector<double> x{1, 4, 10}, g{1, 0, 2};
  std::vector<double> grad(2);
  reference::run(LaplacianMatvecWeightGradient<double>{graph.view(), 1, 1, x.data(), g.data(), grad.data()});
  EXPECT_EQ(grad, (std::vector<double>{-3, 12}));
}

struct Size {
  int rows, nodes, components;
};

class LaplacianMatvecBackend : public ::testing::TestWithParam<Size> {};

TEST_P(LaplacianMatvecBackend, MatchesReference) {
  const auto [rows, nodes, components] = GetParam();
  const OwnedGraph graph = OwnedGraph::small_world(nodes, 3, nodes, 1);
  const std::size_t size = static_cast<std::size_t>(rows) * nodes * components;
  const auto weight = uniform_array<float>(graph.edges(), 0.1, 1, 2);
  const auto x = normal_array<float>(size, 3);
  const auto g = normal_array<float>(size, 4);

  std::vector<float> out(size);
  backend::run(LaplacianMatvecForward<float>{graph.view(), rows, components, weight.data(), x.data(), out.data()},
               {nullptr, 2});
  const auto expected = reference_product(graph, rows, components, converted<double>(weight), converted<double>(x));
  EXPECT_LE(relative_error(out, expected), 2e-6);

  std::vector<float> grad(graph.edges());
  backend::run(LaplacianMatvecWeightGradient<float>{graph.view(), rows, components, x.data(), g.data(), grad.data()},
               {nullptr, 2});
  std::vector<double> expected_grad(graph.edges());
  const auto x64 = converted<double>(x), g64 = converted<double>(g);
  reference::run(LaplacianMatvecWeightGradient<double>{graph.view(), rows, components, x64.data(), g64.data(),
                                                       expected_grad.data()});
  EXPECT_LE(relative_error(grad, expected_grad), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, LaplacianMatvecBackend,
                         ::testing::Values(Size{0, 5, 1}, Size{1, 2, 1}, Size{1, 3, 2}, Size{15, 17, 2},
                                           Size{16, 16, 1}, Size{17, 64, 2}, Size{100, 33, 1}, Size{600, 17, 2}));

}  // namespace
}  // namespace sem
