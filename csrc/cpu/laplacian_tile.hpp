// Gradients to the weights of the Laplacian, sums of products over the tiles.
#pragma once

#include "cpu/tile_graph.hpp"

namespace sem::cpu::SEM_ISA {

// Clears the lanes of `y` in which the adjoint `z` is zero: a row without gradient contributes nothing to the weights,
// whatever it holds (a masked row may be NaN).
inline void drop_unused_lanes(const float* z, float* y, std::int64_t width) {
  keep_lanes(lanes_in_use(z, width), y, width);
}

// Gradients to the weights are sums over rows. To be the same for every number of threads, rows are cut into a number
// of chunks that depends on their count alone; each chunk is summed in order into its own [edges] buffer and the
// buffers are added in order, in double.
inline constexpr std::int64_t kMaxChunks = 32;

SEM_INLINE std::int64_t chunk_count(std::int64_t tiles) { return tiles < kMaxChunks ? tiles : kMaxChunks; }
SEM_INLINE std::int64_t chunk_begin(std::int64_t tiles, std::int64_t chunks, std::int64_t chunk) {
  return tiles * chunk / chunks;
}

inline void zero(float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = 0.0f;
}

inline float sum_chunks(const float* partial, std::int64_t chunks, std::int64_t edges, std::int64_t edge) {
  double sum = 0;
  for (std::int64_t c = 0; c < chunks; ++c) sum += partial[c * edges + edge];
  return static_cast<float>(sum);
}

// partial[e] += sum over lanes and components of d(u) d(v), with d(.) the difference across edge e.
template <int kComponents>
void accumulate_edge_products(const Graph& graph, const float* u, const float* v, float factor, float* partial) {
  constexpr int kNode = kComponents * kLanes;
  for (std::int64_t e = 0; e < graph.edges; ++e) {
    const std::int64_t i = static_cast<std::int64_t>(graph.edge_i[e]) * kNode;
    const std::int64_t j = static_cast<std::int64_t>(graph.edge_j[e]) * kNode;
    vfloat sum{};
#pragma GCC unroll 4
    for (int c = 0; c < kComponents; ++c) {
      const int o = c * kLanes;
      sum += (load(u + i + o) - load(u + j + o)) * (load(v + i + o) - load(v + j + o));
    }
    partial[e] += factor * horizontal_sum(sum);
  }
}

// partial[e] += sum over lanes of Im( conj(d(z)) d(y) ). Edges are listed by their first node, whose values stay in
// registers.
inline void accumulate_edge_currents(const Graph& graph, const float* z, const float* y, float* partial) {
  constexpr int kNode = 2 * kLanes;
  for (std::int64_t e = 0; e < graph.edges;) {
    const std::int32_t first = graph.edge_i[e];
    const std::int64_t i = static_cast<std::int64_t>(first) * kNode;
    const vfloat zi_re = load(z + i), zi_im = load(z + i + kLanes);
    const vfloat yi_re = load(y + i), yi_im = load(y + i + kLanes);
    for (; e < graph.edges && graph.edge_i[e] == first; ++e) {
      const std::int64_t j = static_cast<std::int64_t>(graph.edge_j[e]) * kNode;
      const vfloat z_re = zi_re - load(z + j), z_im = zi_im - load(z + j + kLanes);
      const vfloat y_re = yi_re - load(y + j), y_im = yi_im - load(y + j + kLanes);
      partial[e] += horizontal_sum(z_re * y_im - z_im * y_re);
    }
  }
}

}  // namespace sem::cpu::SEM_ISA
