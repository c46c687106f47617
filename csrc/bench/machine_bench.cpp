// What this processor can do at best, for the bounds of the operators: on one thread, the rate of fused multiply-adds
// alone, of those that load one operand from the first-level cache (as the neighbours of a graph's node are), and of
// bytes to and from memory. Compiled for the machine it is built on.
#include <array>

#include "bench/problems.hpp"

namespace sem::bench {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
using Vector = float __attribute__((vector_size(kBytes)));

constexpr int kLanes = kBytes / sizeof(float);
constexpr int kChains = 16;  // independent sums, enough to hide the latency of an addition and few enough for registers

void machine_fma(::benchmark::State& state) {
  constexpr int kRounds = 1024;
  Vector sums[kChains] = {};
  Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
  for (auto _ : state) {
    ::benchmark::DoNotOptimize(factor);
    ::benchmark::DoNotOptimize(term);
    for (int round = 0; round < kRounds; ++round)
      for (Vector& sum : sums) sum = sum * factor + term;
    for (Vector& sum : sums) ::benchmark::DoNotOptimize(sum);
  }
  report_rate(state, "FMA/s", static_cast<double>(kRounds) * kChains * kLanes);
}

void machine_load_fma(::benchmark::State& state) {
  constexpr int kRounds = 64, kBlocks = 16384 / (kChains * kBytes);  // half of a first-level cache of 32 KiB
  std::vector<std::array<Vector, kChains>> values(kBlocks);
  Vector factor = Vector{} + 0.5f;
  for (auto _ : state) {
    ::benchmark::DoNotOptimize(factor);
    ::benchmark::DoNotOptimize(values.data());
    Vector sums[kChains] = {};
    for (int round = 0; round < kRounds; ++round)
      for (const auto& block : values)
        for (int chain = 0; chain < kChains; ++chain) sums[chain] += factor * block[chain];
    Vector total = {};
    for (const Vector& sum : sums) total += sum;
    ::benchmark::DoNotOptimize(total);
  }
  report_rate(state, "FMA/s", static_cast<double>(kRounds) * kBlocks * kChains * kLanes);
}

// a = b + 2 c over arrays far larger than any cache; the read that precedes a write to a is not counted.
void machine_stream(::benchmark::State& state) {
  constexpr std::size_t kFloats = std::size_t{1} << 25;
  std::vector<float> a(kFloats), b(kFloats, 1), c(kFloats, 2);
  for (auto _ : state) {
    for (std::size_t i = 0; i < kFloats; ++i) a[i] = b[i] + 2 * c[i];
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "bytes/s", 3.0 * sizeof(float) * kFloats);
}

BENCHMARK(machine_fma);
BENCHMARK(machine_load_fma);
BENCHMARK(machine_stream)->Unit(::benchmark::kMillisecond);

}  // namespace
}  // namespace sem::bench
