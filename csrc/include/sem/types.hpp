// Vocabulary shared by every operator and every back end: graph view, row status, execution queue, and how an
// operator's arguments name themselves.
//
// The arguments of every kernel are a struct with the kernel's name, kName, and one member
//
//   template <class Visitor> void visit(Visitor& field);
//
// that calls `field` once for each of them, sizes before the arrays that have them:
//
//   field("tol", tol);                                     a number
//   field("graph", graph);                                 a graph
//   field("psi", psi, rows * graph.nodes * 2);             an array and its element count; const: read, else written
//   field("a", a, 1, Values::finite);                      and what its numbers must be
//   field.optional("kerr", kerr, width);                   an array that may be null
//
// From it come the binding (bindings/call.hpp), its type stubs, and the tests' copies to a device (device_backend.hpp).
#pragma once

#include <cstdint>

namespace sem {

// What the numbers of a user's array must be. Checked where they can be read for free: by the CPU's binding. On a
// device it would cost a wait.
enum class Values { any, finite, nonnegative };

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

  template <class Visitor>
  void visit(Visitor& field) {
    field("nodes", nodes);
    field("edges", edges);
    field("edge_i", edge_i, edges);
    field("edge_j", edge_j, edges);
    field("row_start", row_start, nodes + 1);
    field("neighbour", neighbour, 2 * edges);
    field("incident", incident, 2 * edges);
  }
};

// Per-row report of an iterative solve; every pointer addresses [rows], or is null: not wanted.
template <class Real>
struct SolveReport {
  std::int32_t* status = nullptr;
  std::int32_t* iterations = nullptr;
  Real* residual = nullptr;  // true relative residual of the original system

  template <class Visitor>
  void visit(Visitor& field, std::int64_t rows) {
    field.optional("status", status, rows);
    field.optional("iterations", iterations, rows);
    field.optional("residual", residual, rows);
  }
};

// A kernel's entry points, for each struct of arguments in operators.hpp: the serial truth, and the CPU's.
namespace reference {
template <class Args>
void run(const Args& args);
}  // namespace reference

namespace cpu {
template <class Args>
void run(const Args& args, Queue queue);
}  // namespace cpu

}  // namespace sem
