// What the kernel timings share: the model's kind of graph, and how work is reported.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "sem/types.hpp"
#include "tests/problems.hpp"

namespace sem::bench {

using sem::testing::normal_array;
using sem::testing::OwnedGraph;
using sem::testing::uniform_array;

// One thread, so that a figure is a figure per core.
constexpr Queue kOneThread{nullptr, 1};

// A ring of 24 neighbours and 14 long-range ones: 39 nonzeros per row of the Laplacian, as the model's three scales.
inline OwnedGraph model_graph(int nodes) { return OwnedGraph::small_world(nodes, 12, 7 * nodes, 1); }

inline std::vector<float> model_weights(const OwnedGraph& graph) {
  return uniform_array<float>(graph.edges(), 0.2, 0.3, 2);
}

// Multiply-adds of one Laplacian product with a real vector, the diagonal included.
inline double products(const OwnedGraph& graph) {
  return 2.0 * static_cast<double>(graph.edges()) + static_cast<double>(graph.view().nodes);
}

inline void report_rate(::benchmark::State& state, const char* name, double per_iteration) {
  state.counters[name] = ::benchmark::Counter(per_iteration, ::benchmark::Counter::kIsIterationInvariantRate);
}

// The report of a solve, with room for every row.
struct OwnedReport {
  explicit OwnedReport(std::size_t rows) : status(rows), iterations(rows), residual(rows) {}

  SolveReport<float> view() { return {status.data(), iterations.data(), residual.data()}; }
  double iterations_of_all_rows() const {
    double total = 0;
    for (const std::int32_t count : iterations) total += count;
    return total;
  }

  std::vector<std::int32_t> status, iterations;
  std::vector<float> residual;
};

}  // namespace sem::bench
