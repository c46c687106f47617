// The Laplacian on one tile: the product of a row of H with sixteen vectors at once, and the gradient to the weights.
#pragma once

#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "sem/types.hpp"

namespace sem::cpu::SEM_ISA {

// The graph with its weights put in row order, made once per operator call.
class TileGraph {
 public:
  TileGraph(const Graph& graph, const float* edge_weight)
      : graph_(graph), scratch_(static_cast<std::size_t>(2 * graph.edges + graph.nodes)) {
    float* value = scratch_.data();
    float* diagonal = value + 2 * graph.edges;
    for (std::int64_t i = 0; i < graph.nodes; ++i) {
      double sum = 0;
      for (std::int32_t k = graph.row_start[i]; k < graph.row_start[i + 1]; ++k) {
        value[k] = edge_weight[graph.incident[k]];
        sum += value[k];
      }
      diagonal[i] = static_cast<float>(sum);
    }
  }

  std::int64_t nodes() const { return graph_.nodes; }
  float diagonal(std::int64_t i) const { return scratch_.data()[2 * graph_.edges + i]; }

  // (H x)_i for the kComponents vectors of node i. Each multiply-add costs one 64-byte load of the neighbour; a weight
  // is broadcast once for both components. Two sets of accumulators hide the latency of the additions.
  template <int kComponents>
  SEM_INLINE void row(const float* x, std::int64_t i, vfloat (&out)[kComponents]) const {
    const float* value = scratch_.data();
    vfloat even[kComponents], odd[kComponents];
    const vfloat d = broadcast(diagonal(i));
#pragma GCC unroll 2
    for (int c = 0; c < kComponents; ++c) {
      even[c] = d * load(x + (i * kComponents + c) * kLanes);
      odd[c] = vfloat{};
    }
    std::int32_t k = graph_.row_start[i];
    const std::int32_t end = graph_.row_start[i + 1];
    for (; k + 1 < end; k += 2) {
      const float* a = x + static_cast<std::int64_t>(graph_.neighbour[k]) * (kComponents * kLanes);
      const float* b = x + static_cast<std::int64_t>(graph_.neighbour[k + 1]) * (kComponents * kLanes);
      const vfloat wa = broadcast(value[k]);
      const vfloat wb = broadcast(value[k + 1]);
#pragma GCC unroll 2
      for (int c = 0; c < kComponents; ++c) {
        even[c] -= wa * load(a + c * kLanes);
        odd[c] -= wb * load(b + c * kLanes);
      }
    }
    if (k < end) {
      const float* a = x + static_cast<std::int64_t>(graph_.neighbour[k]) * (kComponents * kLanes);
      const vfloat wa = broadcast(value[k]);
#pragma GCC unroll 2
      for (int c = 0; c < kComponents; ++c) even[c] -= wa * load(a + c * kLanes);
    }
#pragma GCC unroll 2
    for (int c = 0; c < kComponents; ++c) out[c] = even[c] + odd[c];
  }

  template <int kComponents>
  void product(const float* x, float* out) const {
    for (std::int64_t i = 0; i < nodes(); ++i) {
      vfloat hx[kComponents];
      row<kComponents>(x, i, hx);
      for (int c = 0; c < kComponents; ++c) store(out + (i * kComponents + c) * kLanes, hx[c]);
    }
  }

  // The same for one vector [nodes]; four sums hide the latency of the additions.
  void product_of_one(const float* x, float* out) const {
    const float* value = scratch_.data();
    for (std::int64_t i = 0; i < nodes(); ++i) {
      float sum[4] = {diagonal(i) * x[i]};
      std::int32_t k = graph_.row_start[i];
      const std::int32_t end = graph_.row_start[i + 1];
      for (; k + 4 <= end; k += 4)
        for (int s = 0; s < 4; ++s) sum[s] -= value[k + s] * x[graph_.neighbour[k + s]];
      for (; k < end; ++k) sum[0] -= value[k] * x[graph_.neighbour[k]];
      out[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
  }

 private:
  Graph graph_;
  Scratch scratch_;
};

// Clears the lanes of `y` in which the adjoint `z` is zero: a row without gradient contributes nothing to the weights,
// whatever it holds (a masked row may be NaN).
inline void drop_unused_lanes(const float* z, float* y, std::int64_t width) {
  vint used{};
  for (std::int64_t n = 0; n < width; ++n) used |= load(z + n * kLanes) != 0.0f;
  for (std::int64_t n = 0; n < width; ++n) store(y + n * kLanes, select(used, load(y + n * kLanes), vfloat{}));
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
#pragma GCC unroll 2
    for (int c = 0; c < kComponents; ++c) {
      const int o = c * kLanes;
      sum += (load(u + i + o) - load(u + j + o)) * (load(v + i + o) - load(v + j + o));
    }
    partial[e] += factor * horizontal_sum(sum);
  }
}

// partial[e] += sum over lanes of Im( conj(d(z)) d(y) )
inline void accumulate_edge_currents(const Graph& graph, const float* z, const float* y, float* partial) {
  constexpr int kNode = 2 * kLanes;
  for (std::int64_t e = 0; e < graph.edges; ++e) {
    const std::int64_t i = static_cast<std::int64_t>(graph.edge_i[e]) * kNode;
    const std::int64_t j = static_cast<std::int64_t>(graph.edge_j[e]) * kNode;
    const vfloat z_re = load(z + i) - load(z + j);
    const vfloat z_im = load(z + i + kLanes) - load(z + j + kLanes);
    const vfloat y_re = load(y + i) - load(y + j);
    const vfloat y_im = load(y + i + kLanes) - load(y + j + kLanes);
    partial[e] += horizontal_sum(z_re * y_im - z_im * y_re);
  }
}

}  // namespace sem::cpu::SEM_ISA
