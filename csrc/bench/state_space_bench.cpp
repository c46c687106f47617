#include "bench/problems.hpp"
#include "sem/state_space.hpp"

namespace sem::bench {
namespace {

// Rate: multiply-adds per second of the products alone, two in the forward and five in the backward.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : shape{state.range(0), state.range(1), state.range(2), state.range(3), state.range(4)},
        x(normal_array<float>(wave(), 1)),
        dt_mag(uniform_array<float>(tokens(), 0.001, 0.3, 2)),
        dt_phase(uniform_array<float>(tokens(), 0.001, 0.3, 3)),
        into(normal_array<float>(2 * channels() * shape.width, 4)),
        out_of(normal_array<float>(2 * channels() * shape.width, 5)),
        decay(uniform_array<float>(channels(), 0.1, 8, 6)),
        frequency(uniform_array<float>(channels(), -3, 3, 7)),
        initial(2 * shape.batch * channels()),
        y(wave()),
        final_state(initial.size()),
        checkpoints(initial.size() * shape.checkpoints()) {}

  std::size_t tokens() const { return static_cast<std::size_t>(shape.batch * shape.steps * shape.groups); }
  std::size_t wave() const { return 2 * tokens() * shape.width; }
  std::size_t channels() const { return static_cast<std::size_t>(shape.groups * shape.states); }
  double multiply_adds(int products) const {
    return 4.0 * products * static_cast<double>(tokens()) * static_cast<double>(shape.states * shape.width);
  }

  StateSpaceForward<float> forward() {
    return {shape,        x.data(),         dt_mag.data(),  dt_phase.data(), into.data(),        out_of.data(),
            decay.data(), frequency.data(), initial.data(), y.data(),        final_state.data(), checkpoints.data()};
  }

  StateSpaceShape shape;
  std::vector<float> x, dt_mag, dt_phase, into, out_of, decay, frequency, initial, y, final_state, checkpoints;
};

void state_space_forward(::benchmark::State& state) {
  Problem problem(state);
  const StateSpaceForward<float> args = problem.forward();
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.multiply_adds(2));
}

void state_space_backward(::benchmark::State& state) {
  Problem problem(state);
  cpu::run(problem.forward(), kOneThread);
  const auto grad_y = normal_array<float>(problem.wave(), 8);
  const std::vector<float> grad_final(problem.initial.size());
  std::vector<float> grad_x(problem.wave()), grad_mag(problem.tokens()), grad_phase(problem.tokens());
  std::vector<float> grad_into(problem.into.size()), grad_out_of(problem.out_of.size());
  std::vector<float> grad_decay(problem.channels()), grad_frequency(problem.channels());
  std::vector<float> grad_initial(problem.initial.size());
  const StateSpaceBackward<float> args{problem.shape,          problem.x.data(),
                                       problem.dt_mag.data(),  problem.dt_phase.data(),
                                       problem.into.data(),    problem.out_of.data(),
                                       problem.decay.data(),   problem.frequency.data(),
                                       problem.initial.data(), problem.checkpoints.data(),
                                       grad_y.data(),          grad_final.data(),
                                       grad_x.data(),          grad_mag.data(),
                                       grad_phase.data(),      grad_into.data(),
                                       grad_out_of.data(),     grad_decay.data(),
                                       grad_frequency.data(),  grad_initial.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.multiply_adds(5));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"batch", "steps", "groups", "states", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({8, 256, 8, 16, 16})->Args({8, 256, 16, 128, 8})->Args({1, 2048, 16, 128, 16});
}

BENCHMARK(state_space_forward)->Apply(sizes);
BENCHMARK(state_space_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
