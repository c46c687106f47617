#include "bench/problems.hpp"
#include "sem/laplacian_matvec.hpp"

namespace sem::bench {
namespace {

void laplacian_matvec_forward(::benchmark::State& state) {
  const auto rows = state.range(0), nodes = state.range(1);
  const int components = static_cast<int>(state.range(2));
  const OwnedGraph graph = model_graph(static_cast<int>(nodes));
  const auto weight = model_weights(graph);
  const auto x = normal_array<float>(rows * nodes * components, 3);
  std::vector<float> out(x.size());
  const LaplacianMatvecForward<float> args{graph.view(), rows, components, weight.data(), x.data(), out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", static_cast<double>(rows) * components * products(graph));
}

void laplacian_matvec_weight_gradient(::benchmark::State& state) {
  const auto rows = state.range(0), nodes = state.range(1);
  const int components = static_cast<int>(state.range(2));
  const OwnedGraph graph = model_graph(static_cast<int>(nodes));
  const auto x = normal_array<float>(rows * nodes * components, 3);
  const auto g = normal_array<float>(x.size(), 4);
  std::vector<float> grad(graph.edges());
  const LaplacianMatvecWeightGradient<float> args{graph.view(), rows, components, x.data(), g.data(), grad.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", static_cast<double>(rows) * components * static_cast<double>(graph.edges()));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "nodes", "components"})->Unit(::benchmark::kMillisecond);
  for (const int components : {1, 2}) benchmark->Args({4096, 256, components})->Args({8192, 1024, components});
}

BENCHMARK(laplacian_matvec_forward)->Apply(sizes);
BENCHMARK(laplacian_matvec_weight_gradient)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
