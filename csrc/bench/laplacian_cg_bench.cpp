#include "bench/problems.hpp"
#include "sem/laplacian_cg.hpp"

namespace sem::bench {
namespace {

constexpr float kTolerance = 1e-5f;
constexpr std::int32_t kMaxIterations = 50;
constexpr int kComponents = 2;

// Screened Poisson, (I + H) x = b: one product per iteration.
void laplacian_cg_forward(::benchmark::State& state) {
  const auto rows = state.range(0), nodes = state.range(1);
  const OwnedGraph graph = model_graph(static_cast<int>(nodes));
  const auto weight = model_weights(graph);
  const auto b = normal_array<float>(rows * nodes * kComponents, 3);
  std::vector<float> x(b.size());
  OwnedReport report(rows);
  const LaplacianCgForward<float> args{graph.view(), rows,           kComponents, weight.data(), {1, 1, 0},
                                       kTolerance,   kMaxIterations, b.data(),    x.data(),      report.view()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", kComponents * products(graph) * report.iterations_of_all_rows());
}

BENCHMARK(laplacian_cg_forward)
    ->ArgNames({"rows", "nodes"})
    ->Args({4096, 256})
    ->Args({512, 1024})
    ->Unit(::benchmark::kMillisecond);

}  // namespace
}  // namespace sem::bench
