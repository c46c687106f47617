// A graph with its weights in the form that solves read, made by one group in a launch of its own: neighbours and
// weights side by side, and the diagonal preconditioner of S = alpha I + beta H + gamma H^2 in normal form,
// 1 / (alpha + beta h_kk + gamma h_kk^2).
#pragma once

#include <cstdint>

#include "device/atomics.hpp"
#include "device/group.hpp"
#include "device/math.hpp"
#include "sem/laplacian_cg.hpp"
#include "sem/types.hpp"

namespace sem::device {

struct alignas(8) Neighbour {
  std::int32_t node;
  float weight;
};

struct Prepared {
  SEM_DEVICE Prepared(const Graph& graph, float* workspace)
      : nodes(graph.nodes),
        row_start(graph.row_start),
        neighbours(reinterpret_cast<Neighbour*>(workspace)),
        inverse(workspace + 4 * graph.edges),
        largest(reinterpret_cast<std::uint32_t*>(inverse + graph.nodes)) {}
  static std::int64_t floats(const Graph& graph) { return (4 * graph.edges + graph.nodes + kLargest + 1) / 2 * 2; }

  // A bound of the spectral norms of H and |H|, and, in relation to it, of a product's rounding: of k roundings, which
  // have either sign, the root of k stays.
  SEM_DEVICE float norm_bound() const { return 2.0f * from_bits(static_cast<std::int32_t>(largest[0])); }
  SEM_DEVICE float rounding() const { return kUnit * (1.0f + sqrt(static_cast<float>(largest[1] + 1))); }
  static constexpr float kUnit = 0x1p-24f;  // of float32's rounding

  std::int64_t nodes = 0;
  const std::int32_t* row_start = nullptr;
  Neighbour* neighbours = nullptr;  // [2 * edges]
  float* inverse = nullptr;         // [nodes]
  static constexpr int kLargest = 2;
  std::uint32_t* largest = nullptr;  // diagonal entry (its bits, ordered as it is), and number of neighbours
};

// Leaves a barrier behind.
template <class Group>
SEM_DEVICE void prepare(const Group& group, const Graph& graph, const float* edge_weight,
                        const ShiftedLaplacian<float>& system, const Prepared& out) {
  for (std::int64_t k = group.rank(); k < 2 * graph.edges; k += group.size())
    out.neighbours[k] = {graph.neighbour[k], edge_weight[graph.incident[k]]};
  if (group.rank() < Prepared::kLargest) out.largest[group.rank()] = 0;
  group.barrier();
  for (std::int64_t i = group.rank(); i < graph.nodes; i += group.size()) {
    float h = 0;
    for (std::int32_t k = graph.row_start[i]; k < graph.row_start[i + 1]; ++k) h += out.neighbours[k].weight;
    out.inverse[i] = 1.0f / (system.alpha + system.beta * h + system.gamma * h * h);
    atomic_max(out.largest, static_cast<std::uint32_t>(bits(h)));
    atomic_max(out.largest + 1, static_cast<std::uint32_t>(graph.row_start[i + 1] - graph.row_start[i]));
  }
  group.barrier();
}

// (H x)_i, component by component, of a vector whose entry at node n is x[n * stride + component].
template <int kComponents>
SEM_DEVICE void gather(const Prepared& h, const float* x, std::int64_t stride, std::int64_t i,
                       float (&out)[kComponents]) {
  float own[kComponents];
  SEM_UNROLL
  for (int c = 0; c < kComponents; ++c) {
    own[c] = x[i * stride + c];
    out[c] = 0;
  }
  const std::int32_t end = h.row_start[i + 1];
  SEM_UNROLL_TWICE
  for (std::int32_t k = h.row_start[i]; k < end; ++k) {
    const Neighbour neighbour = h.neighbours[k];
    const float* at = x + neighbour.node * stride;
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) out[c] += neighbour.weight * (own[c] - at[c]);
  }
}

}  // namespace sem::device
