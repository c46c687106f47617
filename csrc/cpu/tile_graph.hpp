// The product of the Laplacian with one tile: sixteen vectors at once.
#pragma once

#include <cmath>

#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "cpu/wide.hpp"
#include "sem/types.hpp"

namespace sem::cpu::SEM_ISA {

// The graph and its weights in pairs of rows, made once per operator call.
//
// One row at a time, every multiply-add needs its own load of the neighbour. Rows that follow each other on a ring have
// most neighbours in common: what both rows of a pair touch (`shared`) is loaded once for the two. The rest (`own`) is
// taken in twos, an entry of each row; the shorter row is padded with zero times its own node, which can bring no NaN
// into a row that has none.
class TileGraph {
 public:
  TileGraph(const Graph& graph, const float* edge_weight)
      : graph_(graph),
        edge_weight_(edge_weight),
        diagonal_(static_cast<std::size_t>(graph.nodes)),
        diagonal_rest_(static_cast<std::size_t>(graph.nodes)),
        weights_(static_cast<std::size_t>(2 * (2 * graph.edges + graph.nodes))),
        columns_(static_cast<std::size_t>(2 * (2 * graph.edges + graph.nodes))),
        pairs_(static_cast<std::size_t>(pairs())) {
    for (std::int64_t i = 0; i < graph.nodes; ++i) {
      double sum = 0;
      for (std::int32_t k = graph.row_start[i]; k < graph.row_start[i + 1]; ++k) sum += edge_weight[graph.incident[k]];
      diagonal_.data()[i] = static_cast<float>(sum);
      diagonal_rest_.data()[i] = sum - diagonal(i);
      const std::int32_t entries = graph.row_start[i + 1] - graph.row_start[i] + 1;
      norm_bound_ = norm_bound_ < 2 * sum ? 2 * sum : norm_bound_;
      most_entries_ = most_entries_ < entries ? entries : most_entries_;
    }
    const ScratchOf<std::int32_t> seen(static_cast<std::size_t>(graph.nodes));
    const Scratch weight_of_first(static_cast<std::size_t>(graph.nodes));
    for (std::int64_t i = 0; i < graph.nodes; ++i) seen.data()[i] = 0;
    float* weight = weights_.data();
    std::int32_t* column = columns_.data();
    for (std::int64_t i = 0; i < graph.nodes; i += 2) {
      const Pair pair = pack(i, seen.data(), weight_of_first.data(), weight, column);
      weight += 2 * (pair.shared + pair.own);
      column += pair.shared + 2 * pair.own;
      pairs_.data()[i / 2] = pair;
    }
  }

  std::int64_t nodes() const { return graph_.nodes; }
  float diagonal(std::int64_t i) const { return diagonal_.data()[i]; }

  // A bound of the spectral norms of H and |H|, and, in relation to it, of a product's rounding: of k roundings, which
  // have either sign, the root of k stays (N. Higham and T. Mary, "A new approach to probabilistic rounding error
  // analysis", 2019).
  double norm_bound() const { return norm_bound_; }
  double rounding() const { return kUnit * (1 + std::sqrt(static_cast<double>(most_entries_))); }
  static constexpr double kUnit = 0x1p-24;  // of float32's rounding

  // Calls use(i, hx) for every node i in order; hx[c] is (H x)_i of component c.
  template <int kComponents, class Use>
  SEM_INLINE void for_each_row(const float* x, Use use) const {
    const float* weight = weights_.data();
    const std::int32_t* column = columns_.data();
    std::int64_t i = 0;
    for (std::int64_t p = 0; p < pairs(); ++p) {
      const Pair pair = pairs_.data()[p];
      alignas(64) float sums[2][kComponents * kLanes];
      multiply<kComponents>(pair, x, weight, column, sums);
      weight += 2 * (pair.shared + pair.own);
      column += pair.shared + 2 * pair.own;
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        if (i == nodes()) break;
        vfloat hx[kComponents];
#pragma GCC unroll 2
        for (int c = 0; c < kComponents; ++c) hx[c] = load(sums[r] + c * kLanes);
        use(i++, hx);
      }
    }
  }

  template <int kComponents>
  void product(const float* x, float* out) const {
    for_each_row<kComponents>(x, [&](std::int64_t i, const vfloat(&hx)[kComponents]) SEM_INLINE_LAMBDA {
      for (int c = 0; c < kComponents; ++c) store(out + (i * kComponents + c) * kLanes, hx[c]);
    });
  }

  // The same in float64: calls use(at, (H x)_at) for every node and component, `at` the place of its sixteen lanes in a
  // tile; value(at) is x there.
  template <int kComponents, class Value, class Use>
  void for_each_wide(Value value, Use use) const {
    constexpr std::int64_t kNode = kComponents * kLanes;
    const float* weight = weights_.data();
    const std::int32_t* column = columns_.data();
    for (std::int64_t p = 0; p < pairs(); ++p) {
      const Pair pair = pairs_.data()[p];
      vdouble sum[2][kComponents] = {};
      for (std::int32_t k = 0; k < pair.shared; ++k, weight += 2, ++column) {
        const double first = weight[0], second = weight[1];
#pragma GCC unroll 2
        for (int c = 0; c < kComponents; ++c) {
          const vdouble x = value(*column * kNode + c * kLanes);
          sum[0][c] += first * x;
          sum[1][c] += second * x;
        }
      }
      for (std::int32_t k = 0; k < pair.own; ++k, weight += 2, column += 2)
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
          const double of_row = weight[r];
#pragma GCC unroll 2
          for (int c = 0; c < kComponents; ++c) sum[r][c] += of_row * value(column[r] * kNode + c * kLanes);
        }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r) {
        const std::int64_t i = 2 * p + r;
        if (i == nodes()) break;
#pragma GCC unroll 2
        for (int c = 0; c < kComponents; ++c) {
          const std::int64_t at = i * kNode + c * kLanes;
          use(at, sum[r][c] + diagonal_rest_.data()[i] * value(at));
        }
      }
    }
  }

  // The same as product() for one vector [nodes].
  void product_of_one(const float* x, float* out) const {
    const float* weight = weights_.data();
    const std::int32_t* column = columns_.data();
    std::int64_t i = 0;
    for (std::int64_t p = 0; p < pairs(); ++p) {
      const Pair pair = pairs_.data()[p];
      float sum[2] = {}, rest[2] = {};
      for (std::int32_t k = 0; k < pair.shared; ++k, weight += 2, ++column)
        for (int r = 0; r < 2; ++r) sum[r] += weight[r] * x[*column];
      for (std::int32_t k = 0; k < pair.own; ++k, weight += 2, column += 2)
        for (int r = 0; r < 2; ++r) rest[r] += weight[r] * x[column[r]];
      for (int r = 0; r < 2 && i < nodes(); ++r, ++i) out[i] = sum[r] + rest[r];
    }
  }

 private:
  // `shared` columns with two weights each, then `own` times two columns with a weight each.
  struct Pair {
    std::int32_t shared, own;
  };
  std::int64_t pairs() const { return (nodes() + 1) / 2; }

  // use(column, entry of H) for every entry of row i.
  template <class Use>
  void for_each_entry(std::int64_t i, Use use) const {
    use(static_cast<std::int32_t>(i), diagonal(i));
    for (std::int32_t k = graph_.row_start[i]; k < graph_.row_start[i + 1]; ++k)
      use(graph_.neighbour[k], -edge_weight_[graph_.incident[k]]);
  }

  // Writes rows i and i + 1. `seen` is zero before and after; a last row without partner is padded throughout.
  Pair pack(std::int64_t i, std::int32_t* seen, float* weight_of_first, float* weight, std::int32_t* column) const {
    const bool single = i + 1 == nodes();
    const std::int32_t first = static_cast<std::int32_t>(i), second = single ? first : first + 1;
    Pair pair{};
    std::int32_t own[2] = {};
    for_each_entry(first, [&](std::int32_t j, float w) {
      seen[j] = 1;
      weight_of_first[j] = w;
      ++own[0];
    });
    if (!single)
      for_each_entry(second, [&](std::int32_t j, float w) {
        if (seen[j] == 0) return void(++own[1]);
        seen[j] = 2;
        *column++ = j;
        *weight++ = weight_of_first[j];
        *weight++ = w;
        ++pair.shared;
      });
    own[0] -= pair.shared;
    pair.own = own[0] > own[1] ? own[0] : own[1];

    std::int32_t at[2] = {};
    const auto put = [&](int r, std::int32_t j, float w) {
      column[2 * at[r] + r] = j;
      weight[2 * at[r] + r] = w;
      ++at[r];
    };
    if (!single)
      for_each_entry(second, [&](std::int32_t j, float w) {
        if (seen[j] == 0) put(1, j, w);
      });
    for_each_entry(first, [&](std::int32_t j, float w) {
      if (seen[j] == 1) put(0, j, w);
      seen[j] = 0;
    });
    while (at[0] < pair.own) put(0, first, 0.0f);
    while (at[1] < pair.own) put(1, second, 0.0f);
    return pair;
  }

  // sums = the pair's rows of H x, up to four registers of a node at a time.
  template <int kComponents>
  static SEM_INLINE void multiply(const Pair& pair, const float* x, const float* weight, const std::int32_t* column,
                                  float (&sums)[2][kComponents * kLanes]) {
    constexpr int kNode = kComponents * kLanes;
    constexpr int kRegisters = kNode < 4 * kRegisterLanes ? kNode / kRegisterLanes : 4;
    using Register = Lanes<float, kRegisterLanes>;
#pragma GCC unroll 8
    for (int at = 0; at < kNode; at += kRegisters * kRegisterLanes) {
      Register sum[2][kRegisters] = {};
      const float* w = weight;
      const std::int32_t* j = column;
      for (std::int32_t k = 0; k < pair.shared; ++k, w += 2, ++j) {
        const float* from = x + at + static_cast<std::int64_t>(*j) * kNode;
#pragma GCC unroll 4
        for (int c = 0; c < kRegisters; ++c) {
          const Register value = load<kRegisterLanes>(from + c * kRegisterLanes);
          sum[0][c] += w[0] * value;
          sum[1][c] += w[1] * value;
        }
      }
      for (std::int32_t k = 0; k < pair.own; ++k, w += 2, j += 2) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
          const float* from = x + at + static_cast<std::int64_t>(j[r]) * kNode;
#pragma GCC unroll 4
          for (int c = 0; c < kRegisters; ++c) sum[r][c] += w[r] * load<kRegisterLanes>(from + c * kRegisterLanes);
        }
      }
#pragma GCC unroll 2
      for (int r = 0; r < 2; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < kRegisters; ++c) store(sums[r] + at + c * kRegisterLanes, sum[r][c]);
    }
  }

  Graph graph_;
  const float* edge_weight_;
  double norm_bound_ = 0;
  std::int32_t most_entries_ = 0;
  Scratch diagonal_;
  ScratchOf<double> diagonal_rest_;  // what float32 leaves of it
  Scratch weights_;
  ScratchOf<std::int32_t> columns_;
  ScratchOf<Pair> pairs_;
};

}  // namespace sem::cpu::SEM_ISA
