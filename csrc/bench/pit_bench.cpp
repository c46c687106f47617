#include "bench/problems.hpp"
#include "sem/pit.hpp"

namespace sem::bench {
namespace {

constexpr std::int32_t kBins = 32;

// Rate: phases per second. The forward reads and writes 8 bytes per phase, the backward reads 16 and writes 8.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        psi(normal_array<float>(rows * width * 2, 1)),
        reference_rms(uniform_array<float>(rows, 0.5, 2, 2)) {}

  double phases() const { return static_cast<double>(rows) * static_cast<double>(width); }

  std::int64_t rows, width;
  std::vector<float> psi, reference_rms;
  float strength = 0.1f;
};

void pit_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.psi.size());
  const PitForward<float> args{problem.rows,      problem.width,      kBins,
                               PitRule::score,    problem.psi.data(), problem.reference_rms.data(),
                               &problem.strength, out.data()};
  for (auto _ : state) {
    cpu::pit_forward(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "phases/s", problem.phases());
}

void pit_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto grad_out = normal_array<float>(problem.psi.size(), 3);
  std::vector<float> grad_psi(problem.psi.size()), grad_reference(problem.rows);
  float grad_strength = 0;
  const PitBackward<float> args{problem.rows,          problem.width,      kBins,
                                PitRule::score,        problem.psi.data(), problem.reference_rms.data(),
                                &problem.strength,     grad_out.data(),    grad_psi.data(),
                                grad_reference.data(), &grad_strength};
  for (auto _ : state) {
    cpu::pit_backward(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "phases/s", problem.phases());
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({4096, 256})->Args({4096, 64})->Args({1024, 1024});
}

BENCHMARK(pit_forward)->Apply(sizes);
BENCHMARK(pit_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
