#include "bench/problems.hpp"
#include "sem/gated_rotation.hpp"

namespace sem::bench {
namespace {

// Rate: real multiply-adds per second of the block products alone, one in the forward and three in the backward.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : shape{state.range(0), state.range(1) / state.range(2), state.range(2)},
        x(normal_array<float>(state.range(0) * state.range(1) * 2, 1)),
        logits(normal_array<float>(x.size() / 2, 2)),
        blocks(normal_array<float>(state.range(1) * state.range(2) * 2, 3)) {}

  double products(int count) const {
    return static_cast<double>(x.size() * 2) * static_cast<double>(shape.size) * count;
  }

  RotationShape shape;
  std::vector<float> x, logits, blocks;
};

void gated_rotation_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.x.size());
  const GatedRotationForward<float> args{problem.shape, problem.x.data(), problem.logits.data(), problem.blocks.data(),
                                         out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.products(1));
}

void gated_rotation_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.x.size(), 4);
  std::vector<float> grad_x(problem.x.size()), grad_logits(problem.logits.size()), grad_blocks(problem.blocks.size());
  const GatedRotationBackward<float> args{problem.shape,         problem.x.data(),  problem.logits.data(),
                                          problem.blocks.data(), grad_out.data(),   grad_x.data(),
                                          grad_logits.data(),    grad_blocks.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "FMA/s", problem.products(3));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width", "block"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({2048, 128, 8})->Args({4096, 256, 8})->Args({4096, 256, 32});
}

BENCHMARK(gated_rotation_forward)->Apply(sizes);
BENCHMARK(gated_rotation_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
