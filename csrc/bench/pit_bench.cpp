#include "bench/problems.hpp"
#include "sem/pit.hpp"

namespace sem::bench {
namespace {

constexpr std::int32_t kBins = 32;

// Kerr rotation and phase transport, as a propagator layer asks for them. Rate: phases per second. The forward reads
// and writes 8 bytes per phase, the backward reads 16 and writes 8; instructions bound both, see docs/benchmarks.md.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        psi(normal_array<float>(rows * width * 2, 1)),
        kerr(uniform_array<float>(width, -0.5, 0.5, 2)) {}

  double phases() const { return static_cast<double>(rows) * static_cast<double>(width); }

  std::int64_t rows, width;
  std::vector<float> psi, kerr;
  float strength = 0.1f;
};

void pit_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.psi.size());
  const PitForward<float> args{.rows = problem.rows,
                               .width = problem.width,
                               .num_bins = kBins,
                               .psi = problem.psi.data(),
                               .strength = &problem.strength,
                               .out = out.data(),
                               .kerr = problem.kerr.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "phases/s", problem.phases());
}

void pit_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.psi.size(), 3);
  std::vector<float> grad_psi(problem.psi.size()), grad_kerr(problem.width);
  float grad_strength = 0;
  const PitBackward<float> args{.rows = problem.rows,
                                .width = problem.width,
                                .num_bins = kBins,
                                .psi = problem.psi.data(),
                                .strength = &problem.strength,
                                .grad_out = grad_out.data(),
                                .grad_psi = grad_psi.data(),
                                .grad_strength = &grad_strength,
                                .kerr = problem.kerr.data(),
                                .grad_kerr = grad_kerr.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "phases/s", problem.phases());
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({4096, 256})->Args({2048, 128})->Args({4096, 64})->Args({1024, 1024});
}

BENCHMARK(pit_forward)->Apply(sizes);
BENCHMARK(pit_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
