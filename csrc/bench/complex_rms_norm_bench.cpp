#include "bench/problems.hpp"
#include "sem/complex_rms_norm.hpp"

namespace sem::bench {
namespace {

// Rate: bytes per second of the complex arrays; the forward moves two of them, the backward three.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        z(normal_array<float>(rows * width * 2, 1)),
        gamma(uniform_array<float>(width, 0.5, 2, 2)) {}

  double bytes(int arrays) const { return static_cast<double>(z.size() * sizeof(float)) * arrays; }

  std::int64_t rows, width;
  std::vector<float> z, gamma;
};

void complex_rms_norm_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.z.size());
  const ComplexRmsNormForward<float> args{problem.rows,     problem.width,        1e-6f,
                                          problem.z.data(), problem.gamma.data(), out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(2));
}

void complex_rms_norm_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.z.size(), 3);
  std::vector<float> grad_z(problem.z.size()), grad_gamma(problem.gamma.size());
  const ComplexRmsNormBackward<float> args{problem.rows,         problem.width,   1e-6f,         problem.z.data(),
                                           problem.gamma.data(), grad_out.data(), grad_z.data(), grad_gamma.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(3));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({2048, 128})->Args({4096, 256});
}

BENCHMARK(complex_rms_norm_forward)->Apply(sizes);
BENCHMARK(complex_rms_norm_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
