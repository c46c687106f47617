#include "bench/problems.hpp"
#include "sem/cayley.hpp"

namespace sem::bench {
namespace {

constexpr float kTolerance = 1e-5f;
constexpr std::int32_t kMaxIterations = 50;

// Arguments: tokens, nodes, 1000 dt. Rate: tokens x 2 components x nonzeros x (1 + 2 iterations) multiply-adds.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        nodes(state.range(1)),
        half_dt(static_cast<float>(state.range(2)) / 2000),
        graph(model_graph(static_cast<int>(nodes))),
        weight(model_weights(graph)),
        psi(normal_array<float>(rows * nodes * 2, 3)),
        out(psi.size()),
        report(rows) {}

  CayleyForward<float> forward() {
    return {graph.view(), rows,       weight.data(), {&half_dt, kTolerance, kMaxIterations},
            psi.data(),   out.data(), report.view()};
  }
  double multiply_adds() const {
    return 2 * products(graph) * (static_cast<double>(rows) + 2 * report.iterations_of_all_rows());
  }

  std::int64_t rows, nodes;
  float half_dt;
  OwnedGraph graph;
  std::vector<float> weight, psi, out;
  OwnedReport report;
};

void cayley_forward(::benchmark::State& state) {
  Problem problem(state);
  const CayleyForward<float> args = problem.forward();
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.multiply_adds());
}

void cayley_backward(::benchmark::State& state) {
  Problem problem(state);
  cpu::run(problem.forward(), kOneThread);
  const auto grad_out = normal_array<float>(problem.psi.size(), 4);
  std::vector<float> grad_psi(problem.psi.size()), grad_weight(problem.graph.edges());
  float grad_half_dt = 0;
  const CayleyBackward<float> args{
      problem.graph.view(), problem.rows,       problem.weight.data(), {&problem.half_dt, kTolerance, kMaxIterations},
      problem.psi.data(),   problem.out.data(), grad_out.data(),       grad_psi.data(),
      grad_weight.data(),   &grad_half_dt,      problem.report.view()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.multiply_adds());
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"tokens", "nodes", "1000dt"})->Unit(::benchmark::kMillisecond);
  for (const int dt : {10, 100, 1000}) benchmark->Args({4096, 256, dt})->Args({512, 1024, dt});
}

BENCHMARK(cayley_forward)->Apply(sizes);
BENCHMARK(cayley_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
