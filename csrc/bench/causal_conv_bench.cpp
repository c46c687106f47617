#include "bench/problems.hpp"
#include "sem/causal_conv.hpp"

namespace sem::bench {
namespace {

constexpr std::int64_t kTaps = 4;

// Rate: bytes per second of the complex arrays; the forward moves two of them, the backward three.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : shape{state.range(0), state.range(1), state.range(2), kTaps},
        x(normal_array<float>(shape.batch * shape.steps * shape.channels * 2, 1)),
        history(shape.batch * (kTaps - 1) * shape.channels * 2),
        taps(normal_array<float>(kTaps * shape.channels * 2, 2)),
        bias(normal_array<float>(shape.channels * 2, 3)),
        theta(shape.channels) {}

  double bytes(int arrays) const { return static_cast<double>(x.size() * sizeof(float)) * arrays; }

  ConvShape shape;
  std::vector<float> x, history, taps, bias, theta;
};

void causal_conv_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.x.size());
  const CausalConvForward<float> args{problem.shape,       problem.x.data(),    problem.history.data(),
                                      problem.taps.data(), problem.bias.data(), problem.theta.data(),
                                      out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(2));
}

void causal_conv_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.x.size(), 4);
  std::vector<float> grad_x(problem.x.size()), grad_history(problem.history.size()), grad_taps(problem.taps.size()),
      grad_bias(problem.bias.size()), grad_theta(problem.theta.size());
  const CausalConvBackward<float> args{problem.shape,       problem.x.data(),    problem.history.data(),
                                       problem.taps.data(), problem.bias.data(), problem.theta.data(),
                                       grad_out.data(),     grad_x.data(),       grad_history.data(),
                                       grad_taps.data(),    grad_bias.data(),    grad_theta.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(3));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"batch", "steps", "channels"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({8, 256, 128})->Args({8, 512, 256});
}

BENCHMARK(causal_conv_forward)->Apply(sizes);
BENCHMARK(causal_conv_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
