#include "bench/problems.hpp"
#include "sem/ring_echo.hpp"

namespace sem::bench {
namespace {

// Rate: bytes per second; the forward moves two complex arrays and a real one, the backward four and two.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : rows(state.range(0)),
        width(state.range(1)),
        psi(normal_array<float>(rows * width * 2, 1)),
        potential(normal_array<float>(rows * width, 2)),
        kerr(normal_array<float>(width, 4)),
        edge_weight(width, 0.7f) {}

  double bytes(int reals) const { return static_cast<double>(potential.size() * sizeof(float)) * reals; }

  std::int64_t rows, width;
  std::vector<float> psi, potential, kerr, edge_weight;
  float half_dt = 0.5f;
};

void ring_echo_forward(::benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> out(problem.psi.size());
  const RingEchoForward<float> args{problem.rows,        problem.width,
                                    problem.psi.data(),  problem.potential.data(),
                                    problem.kerr.data(), problem.edge_weight.data(),
                                    &problem.half_dt,    out.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(5));
}

void ring_echo_backward(::benchmark::State& state) {
  const Problem problem(state);
  const auto out = normal_array<float>(problem.psi.size(), 3), grad_out = normal_array<float>(problem.psi.size(), 5);
  std::vector<float> grad_psi(problem.psi.size()), grad_potential(problem.potential.size()),
      grad_kerr(problem.kerr.size()), grad_edge_weight(problem.kerr.size()), grad_half_dt(1);
  const RingEchoBackward<float> args{problem.rows,
                                     problem.width,
                                     problem.psi.data(),
                                     problem.potential.data(),
                                     problem.kerr.data(),
                                     problem.edge_weight.data(),
                                     &problem.half_dt,
                                     out.data(),
                                     grad_out.data(),
                                     grad_psi.data(),
                                     grad_potential.data(),
                                     grad_kerr.data(),
                                     grad_edge_weight.data(),
                                     grad_half_dt.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", problem.bytes(10));
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "width"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({1024, 128})->Args({4096, 256});
}

BENCHMARK(ring_echo_forward)->Apply(sizes);
BENCHMARK(ring_echo_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
