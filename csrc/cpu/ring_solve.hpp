// (I + iaH) y = psi on a ring, where every node's neighbours are the one before it and the one behind it: solved by
// elimination, whatever the time step.
//
// The matrix A is cyclic and tridiagonal, symmetric, and strictly dominated by its diagonal: no pivot is needed. With
// the corner c = A_0,n-1, g = -A_00, u = (g, 0, ..., 0, c)' and v = (1, 0, ..., 0, c / g)', A = T + u v' with T
// tridiagonal, so that y = T^-1 psi - q v' T^-1 psi for q = T^-1 u / (1 + v' T^-1 u). T = L D L' with a unit lower L.
#pragma once

#include <complex>

#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "sem/types.hpp"

namespace sem::cpu::SEM_ISA {

class RingSolve {
 public:
  // Factors stay in double until they are whole.
  RingSolve(const Graph& graph, const float* edge_weight, float half_dt)
      : nodes_(is_ring(graph) ? graph.nodes : 0), factors_(static_cast<std::size_t>(6 * nodes_)) {
    if (!applies()) return;
    using Number = std::complex<double>;
    const ScratchOf<Number> memory(static_cast<std::size_t>(4 * nodes_));
    Number* const off = memory.data();  // off[j] = A_j,j+1, the last one the corner
    Number *const lower = off + nodes_, *const inverse = lower + nodes_, *const q = inverse + nodes_;
    const Number ia(0, half_dt);
    for (std::int64_t j = 0; j < nodes_; ++j) off[j] = -ia * static_cast<double>(edge_weight[edge_behind(graph, j)]);
    const auto diagonal = [&](std::int64_t j) { return 1.0 - off[j == 0 ? nodes_ - 1 : j - 1] - off[j]; };
    const Number corner = off[nodes_ - 1], g = -diagonal(0);
    lower[0] = 0;
    for (std::int64_t j = 0; j < nodes_; ++j) {
      Number pivot = diagonal(j);
      if (j == 0) pivot -= g;
      if (j == nodes_ - 1) pivot -= corner * corner / g;
      if (j > 0) {
        lower[j] = off[j - 1] * inverse[j - 1];
        pivot -= lower[j] * off[j - 1];
      }
      inverse[j] = 1.0 / pivot;
    }
    for (std::int64_t j = 0; j < nodes_; ++j)
      q[j] = (j == 0 ? g : j == nodes_ - 1 ? corner : Number(0)) - (j == 0 ? Number(0) : lower[j] * q[j - 1]);
    for (std::int64_t j = nodes_ - 1; j >= 0; --j)
      q[j] = q[j] * inverse[j] - (j == nodes_ - 1 ? Number(0) : lower[j + 1] * q[j + 1]);
    const Number share = 1.0 + q[0] + q[nodes_ - 1] * corner / g;
    for (std::int64_t j = 0; j < nodes_; ++j) {
      put(factors_.data() + 6 * j, lower[j]);
      put(factors_.data() + 6 * j + 2, inverse[j]);
      put(factors_.data() + 6 * j + 4, q[j] / share);
    }
    const Number last = corner / g;
    last_re_ = static_cast<float>(last.real());
    last_im_ = static_cast<float>(last.imag());
  }

  bool applies() const { return nodes_ > 0; }

  // Of a tile; y may not be psi.
  void apply(const float* psi, float* y) const {
    const float* factor = factors_.data();
    vfloat re{}, im{};
    for (std::int64_t j = 0; j < nodes_; ++j, factor += 6) {
      const float* const from = psi + 2 * kLanes * j;
      const vfloat next_re = load(from) - (factor[0] * re - factor[1] * im);
      const vfloat next_im = load(from + kLanes) - (factor[0] * im + factor[1] * re);
      re = next_re;
      im = next_im;
      store(y + 2 * kLanes * j, re);
      store(y + 2 * kLanes * j + kLanes, im);
    }
    float below_re = 0, below_im = 0;  // of the row behind
    re = im = vfloat{};
    for (std::int64_t j = nodes_ - 1; j >= 0; --j) {
      factor -= 6;
      float* const at = y + 2 * kLanes * j;
      const vfloat own_re = load(at), own_im = load(at + kLanes);
      const vfloat next_re = (factor[2] * own_re - factor[3] * own_im) - (below_re * re - below_im * im);
      const vfloat next_im = (factor[2] * own_im + factor[3] * own_re) - (below_re * im + below_im * re);
      re = next_re;
      im = next_im;
      store(at, re);
      store(at + kLanes, im);
      below_re = factor[0];
      below_im = factor[1];
    }
    const float* const end = y + 2 * kLanes * (nodes_ - 1);
    const vfloat end_re = load(end), end_im = load(end + kLanes);
    const vfloat share_re = re + (last_re_ * end_re - last_im_ * end_im);
    const vfloat share_im = im + (last_re_ * end_im + last_im_ * end_re);
    for (std::int64_t j = 0; j < nodes_; ++j, factor += 6) {
      float* const at = y + 2 * kLanes * j;
      store(at, load(at) - (factor[4] * share_re - factor[5] * share_im));
      store(at + kLanes, load(at + kLanes) - (factor[4] * share_im + factor[5] * share_re));
    }
  }

 private:
  static bool is_ring(const Graph& graph) {
    if (graph.nodes < 3 || graph.edges != graph.nodes) return false;
    for (std::int64_t j = 0; j < graph.nodes; ++j)
      if (graph.row_start[j + 1] - graph.row_start[j] != 2 || edge_behind(graph, j) < 0) return false;
    return true;
  }

  // The edge from node j to the next one, -1 if there is none.
  static std::int32_t edge_behind(const Graph& graph, std::int64_t j) {
    const std::int64_t next = j + 1 == graph.nodes ? 0 : j + 1;
    for (std::int32_t k = graph.row_start[j]; k < graph.row_start[j + 1]; ++k)
      if (graph.neighbour[k] == next) return graph.incident[k];
    return -1;
  }

  static void put(float* at, std::complex<double> value) {
    at[0] = static_cast<float>(value.real());
    at[1] = static_cast<float>(value.imag());
  }

  const std::int64_t nodes_;
  const Scratch factors_;  // per node: of L below it, 1 / D, q
  float last_re_ = 0, last_im_ = 0;
};

}  // namespace sem::cpu::SEM_ISA
