#include "bench/problems.hpp"
#include "sem/potential_step.hpp"

namespace sem::bench {
namespace {

// Rate: bytes per second; the forward moves two complex arrays and a real one, the backward three and two.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        psi(normal_array<float>(rows * width * 2, 1)),
        potential(normal_array<float>(rows * width, 2)),
        kerr(normal_array<float>(width, 4)) {}

  double bytes(int reals) const { return static_cast<double>(potential.size() * sizeof(float)) * reals; }

  std::int64_t rows, width;
  std::vector<float> psi, potential, kerr;
};

void potential_step_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.psi.size());
  const PotentialStepForward<float> args{
      problem.rows, problem.width, problem.psi.data(), problem.potential.data(), problem.kerr.data(), out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(5));
}

void potential_step_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.psi.size(), 3);
  std::vector<float> grad_psi(problem.psi.size()), grad_potential(problem.potential.size()),
      grad_kerr(problem.kerr.size());
  const PotentialStepBackward<float> args{
      problem.rows,    problem.width,   problem.psi.data(),    problem.potential.data(), problem.kerr.data(),
      grad_out.data(), grad_psi.data(), grad_potential.data(), grad_kerr.data()};
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

BENCHMARK(potential_step_forward)->Apply(sizes);
BENCHMARK(potential_step_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
