#include "bench/problems.hpp"
#include "sem/wave_gate.hpp"

namespace sem::bench {
namespace {

// Rate: bytes per second; the forward moves two complex arrays and a real one, the backward three and two.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        psi(normal_array<float>(rows * width * 2, 1)),
        logits(normal_array<float>(rows * width, 2)) {}

  double bytes(int reals) const { return static_cast<double>(logits.size() * sizeof(float)) * reals; }

  std::int64_t rows, width;
  std::vector<float> psi, logits;
};

void wave_gate_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.psi.size());
  const WaveGateForward<float> args{problem.rows, problem.width, problem.psi.data(), problem.logits.data(), out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(5));
}

void wave_gate_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.psi.size(), 3);
  std::vector<float> grad_psi(problem.psi.size()), grad_logits(problem.logits.size());
  const WaveGateBackward<float> args{problem.rows,    problem.width,   problem.psi.data(), problem.logits.data(),
                                     grad_out.data(), grad_psi.data(), grad_logits.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(8));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({1024, 128})->Args({4096, 256});
}

BENCHMARK(wave_gate_forward)->Apply(sizes);
BENCHMARK(wave_gate_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
