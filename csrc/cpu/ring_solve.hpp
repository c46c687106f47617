// (I + iaH) y = psi on a ring, where every node's neighbours are the one before it and the one behind it: solved by
// elimination, whatever the time step.
//
// The matrix A is cyclic and tridiagonal, symmetric, and strictly dominated by its diagonal: no pivot is needed. With
// the corner c = A_0,n-1, g = -A_00, u = (g, 0, ..., 0, c)' and v = (1, 0, ..., 0, c / g)', A = T + u v' with T
// tridiagonal, so that y = T^-1 psi - q v' T^-1 psi for q = T^-1 u / (1 + v' T^-1 u). T is eliminated from both ends to
// the middle, and solved from there to both ends: two chains that do not wait for each other.
#pragma once

#include <complex>

#include "cpu/scratch.hpp"
#include "cpu/wave_tile.hpp"
#include "sem/types.hpp"

namespace sem::cpu::SEM_ISA {

class RingSolve {
 public:
  // For a graph that is no ring, it does not apply.
  RingSolve(const Graph& graph, const float* edge_weight, float half_dt)
      : RingSolve(
            is_ring(graph) ? graph.nodes : 0, [&](std::int64_t j) { return edge_weight[edge_behind(graph, j)]; },
            half_dt) {}

  // `weight_behind(j)` is of the edge from node j to the next one. Factors stay in double until they are whole.
  template <class WeightBehind>
  RingSolve(std::int64_t nodes, WeightBehind weight_behind, float half_dt)
      : nodes_(nodes), factors_(static_cast<std::size_t>(kFactors * nodes)) {
    if (!applies()) return;
    using Number = std::complex<double>;
    const ScratchOf<Number> memory(static_cast<std::size_t>(4 * nodes_));
    Number* const off = memory.data();  // off[j] = A_j,j+1, the last one the corner
    Number *const outer = off + nodes_, *const inverse = outer + nodes_, *const q = inverse + nodes_;
    const Number ia(0, half_dt);
    for (std::int64_t j = 0; j < nodes_; ++j) off[j] = -ia * static_cast<double>(weight_behind(j));
    const auto diagonal = [&](std::int64_t j) { return 1.0 - off[j == 0 ? nodes_ - 1 : j - 1] - off[j]; };
    const Number corner = off[nodes_ - 1], g = -diagonal(0);
    // q = T^-1 u on the way
    const auto eliminate = [&](std::int64_t j, std::int64_t before, Number coupling) {
      Number pivot = diagonal(j);
      q[j] = 0;
      if (j == 0) pivot -= q[j] = g;
      if (j == nodes_ - 1) {
        pivot -= corner * corner / g;
        q[j] = corner;
      }
      outer[j] = 0;
      if (before >= 0) {
        outer[j] = coupling * inverse[before];
        pivot -= outer[j] * coupling;
        q[j] -= outer[j] * q[before];
      }
      inverse[j] = 1.0 / pivot;
    };
    const std::int64_t middle = nodes_ / 2;
    for (std::int64_t j = 0; j < middle; ++j) eliminate(j, j - 1, j == 0 ? Number(0) : off[j - 1]);
    for (std::int64_t j = nodes_ - 1; j >= middle; --j) eliminate(j, j + 1 == nodes_ ? -1 : j + 1, off[j]);
    const Number joint = off[middle - 1] * inverse[middle - 1];
    inverse[middle] = 1.0 / (1.0 / inverse[middle] - joint * off[middle - 1]);
    q[middle] = (q[middle] - joint * q[middle - 1]) * inverse[middle];
    q[middle - 1] = q[middle - 1] * inverse[middle - 1] - joint * q[middle];
    for (std::int64_t j = middle - 2; j >= 0; --j) q[j] = q[j] * inverse[j] - outer[j + 1] * q[j + 1];
    for (std::int64_t j = middle + 1; j < nodes_; ++j) q[j] = q[j] * inverse[j] - outer[j - 1] * q[j - 1];
    const Number last = corner / g, share = 1.0 + q[0] + q[nodes_ - 1] * last;
    for (std::int64_t j = 0; j < nodes_; ++j) {
      float* const factor = factors_.data() + kFactors * j;
      factor[0] = static_cast<float>(outer[j].real());
      factor[1] = static_cast<float>(outer[j].imag());
      factor[2] = static_cast<float>(inverse[j].real());
      factor[3] = static_cast<float>(inverse[j].imag());
      factor[4] = static_cast<float>((q[j] / share).real());
      factor[5] = static_cast<float>((q[j] / share).imag());
    }
    joint_ = narrowed(joint);
    last_ = narrowed(last);
  }

  bool applies() const { return nodes_ > 0; }

  // Of a tile; y may not be psi.
  void apply(const float* psi, float* y) const {
    apply(psi, y, [&](std::int64_t j, Complex z) SEM_INLINE_LAMBDA { put(y, j, z); });
  }

  // Calls use(j, y_j) for every node j in order; psi_j and work_j are not read again.
  template <class Use>
  SEM_INLINE void apply(const float* psi, float* work, Use use) const {
    const float* const factors = factors_.data();
    const auto at = [&](std::int64_t j) { return factors + kFactors * j; };
    const std::int64_t middle = nodes_ / 2, end = nodes_ - 1;
    Complex upper{}, lower{};
    for (std::int64_t j = 0; j < middle; ++j) {
      upper = less(wave_at(psi, j), at(j), upper);
      lower = less(wave_at(psi, end - j), at(end - j), lower);
      put(work, j, upper);
      put(work, end - j, lower);
    }
    if (end - middle == middle) lower = less(wave_at(psi, middle), at(middle), lower);
    lower = times(at(middle) + 2, less(lower, joint_.part, upper));
    put(work, middle, lower);
    upper = less(times(at(middle - 1) + 2, upper), joint_.part, lower);
    put(work, middle - 1, upper);
    for (std::int64_t j = middle - 2, k = middle + 1; k < nodes_; --j, ++k) {
      if (j >= 0) {
        upper = less(times(at(j) + 2, wave_at(work, j)), at(j + 1), upper);
        put(work, j, upper);
      }
      lower = less(times(at(k) + 2, wave_at(work, k)), at(k - 1), lower);
      put(work, k, lower);
    }
    const Complex total = plus(upper, last_.part, lower);
    for (std::int64_t j = 0; j < nodes_; ++j) use(j, less(wave_at(work, j), at(j) + 4, total));
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

  struct Pair {
    float part[2];
  };
  static Pair narrowed(std::complex<double> z) {
    return {{static_cast<float>(z.real()), static_cast<float>(z.imag())}};
  }

  // f z for f = factor[0] + i factor[1], and a - f z, a + f z
  static SEM_INLINE Complex times(const float* factor, Complex z) {
    return {factor[0] * z.re - factor[1] * z.im, factor[0] * z.im + factor[1] * z.re};
  }
  static SEM_INLINE Complex less(Complex a, const float* factor, Complex z) {
    return {(a.re - factor[0] * z.re) + factor[1] * z.im, (a.im - factor[0] * z.im) - factor[1] * z.re};
  }
  static SEM_INLINE Complex plus(Complex a, const float* factor, Complex z) {
    return {(a.re + factor[0] * z.re) - factor[1] * z.im, (a.im + factor[0] * z.im) + factor[1] * z.re};
  }

  static constexpr std::int64_t kFactors = 6;  // per node: the coupling to the node before it, 1 / pivot, q
  const std::int64_t nodes_;
  const Scratch factors_;
  Pair joint_{}, last_{};
};

}  // namespace sem::cpu::SEM_ISA
