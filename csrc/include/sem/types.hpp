// Vocabulary shared by every operator and every back end: graph view, row status, execution queue.
#pragma once

#include <cstdint>

namespace sem {

// How the solve of one row ended. The values are part of the Python interface (sem.ops.SolveStatus).
enum class Status : std::int32_t {
  converged = 0,  // true residual of the original system is within the tolerance
  max_iter = 1,   // the iteration limit came first
  stagnated = 2,  // float32 arithmetic cannot reach the tolerance
  nonfinite = 3,  // NaN or Inf in the row (or an overflow caused by the weights); the row's output is NaN
};

// Where and how to run. `handle` is the caller's stream or queue on a device and `device` that device's number; both
// are unused on the CPU, and `threads` is used there alone.
struct Queue {
  void* handle = nullptr;
  int threads = 1;
  int device = 0;
};

// Undirected simple graph, listed twice: by edge (i < j) and by node (compressed rows of neighbours).
// The edge order is by i, then by j. `incident[k]` is the edge that joins a node to `neighbour[k]`.
struct Graph {
  std::int64_t nodes = 0;
  std::int64_t edges = 0;
  const std::int32_t* edge_i = nullptr;     // [edges]
  const std::int32_t* edge_j = nullptr;     // [edges]
  const std::int32_t* row_start = nullptr;  // [nodes + 1]
  const std::int32_t* neighbour = nullptr;  // [2 * edges]
  const std::int32_t* incident = nullptr;   // [2 * edges]
};

// Per-row report of an iterative solve; every pointer addresses [rows].
template <class Real>
struct SolveReport {
  std::int32_t* status = nullptr;
  std::int32_t* iterations = nullptr;
  Real* residual = nullptr;  // true relative residual of the original system
};

}  // namespace sem
