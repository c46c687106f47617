#include "bench/problems.hpp"
#include "sem/scan.hpp"

namespace sem::bench {
namespace {

constexpr std::int64_t kGroups = 16;

// Rate: bytes per second of the complex arrays alone; the forward moves two of them, the backward four.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : shape{state.range(0), state.range(1), state.range(2), kGroups},
        x(normal_array<float>(size(), 1)),
        dt_mag(uniform_array<float>(shape.batch * shape.steps * kGroups, 0.001, 0.3, 2)),
        dt_phase(uniform_array<float>(shape.batch * shape.steps * kGroups, 0.001, 0.3, 3)),
        decay(uniform_array<float>(shape.channels, 0.1, 8, 4)),
        frequency(uniform_array<float>(shape.channels, -3, 3, 5)),
        initial(shape.batch * shape.channels * 2),
        states(size()),
        final_state(initial.size()) {}

  std::size_t size() const { return static_cast<std::size_t>(shape.batch * shape.steps * shape.channels * 2); }
  double bytes(int arrays) const { return static_cast<double>(size() * sizeof(float)) * arrays; }

  ScanForward<float> forward() {
    return {shape,          x.data(),      dt_mag.data(),     dt_phase.data(), decay.data(), frequency.data(),
            initial.data(), states.data(), final_state.data()};
  }

  ScanShape shape;
  std::vector<float> x, dt_mag, dt_phase, decay, frequency, initial, states, final_state;
};

void scan_forward(::benchmark::State& state) {
  Problem problem(state);
  const ScanForward<float> args = problem.forward();
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(2));
}

void scan_backward(::benchmark::State& state) {
  Problem problem(state);
  cpu::run(problem.forward(), kOneThread);
  const auto grad_states = normal_array<float>(problem.size(), 6);
  const std::vector<float> grad_final(problem.initial.size());
  std::vector<float> grad_x(problem.size()), grad_mag(problem.dt_mag.size()), grad_phase(problem.dt_phase.size());
  std::vector<float> grad_decay(problem.decay.size()), grad_frequency(problem.frequency.size());
  std::vector<float> grad_initial(problem.initial.size());
  const ScanBackward<float> args{
      problem.shape,        problem.x.data(),         problem.dt_mag.data(),  problem.dt_phase.data(),
      problem.decay.data(), problem.frequency.data(), problem.initial.data(), problem.states.data(),
      grad_states.data(),   grad_final.data(),        grad_x.data(),          grad_mag.data(),
      grad_phase.data(),    grad_decay.data(),        grad_frequency.data(),  grad_initial.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(4));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"batch", "steps", "channels"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({8, 256, 512})->Args({1, 2048, 512});
}

BENCHMARK(scan_forward)->Apply(sizes);
BENCHMARK(scan_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
