// Where the eigenvalues of a graph's Laplacian lie.
#pragma once

#include "common/tridiagonal.hpp"
#include "cpu/tile_graph.hpp"

namespace sem::cpu::SEM_ISA {

using Interval = common::Interval<double>;

// The eigenvalues of H other than that of the constant vector, which is zero: from the extreme Ritz values of a few
// Lanczos steps, which lie inside by some per cent, and as much on either side. An estimate, not a bound.
inline Interval spectrum(const TileGraph& h) {
  constexpr int kSteps = 8;
  const std::int64_t nodes = h.nodes();
  const Scratch scratch(static_cast<std::size_t>(3 * nodes));
  float *v = scratch.data(), *before = v + nodes, *next = before + nodes;
  std::uint32_t random = 1;
  double mean = 0, norm2 = 0;
  for (std::int64_t i = 0; i < nodes; ++i) {
    random = random * 1664525u + 1013904223u;
    v[i] = static_cast<float>(random >> 8) * 0x1p-23f - 1.0f;
    before[i] = 0.0f;
    mean += v[i];
  }
  mean /= static_cast<double>(nodes);
  for (std::int64_t i = 0; i < nodes; ++i) {
    v[i] -= static_cast<float>(mean);
    norm2 += static_cast<double>(v[i]) * v[i];
  }
  if (!(norm2 > 0)) return {};
  const float unit = static_cast<float>(1 / std::sqrt(norm2));
  for (std::int64_t i = 0; i < nodes; ++i) v[i] *= unit;

  double diagonal[kSteps] = {}, beside[kSteps + 1] = {};
  int steps = 0;
  while (steps < kSteps && steps < nodes) {
    h.product_of_one(v, next);
    double along = 0, left = 0;
    for (std::int64_t i = 0; i < nodes; ++i) along += static_cast<double>(next[i]) * v[i];
    for (std::int64_t i = 0; i < nodes; ++i) {
      next[i] -= static_cast<float>(along) * v[i] + static_cast<float>(beside[steps]) * before[i];
      left += static_cast<double>(next[i]) * next[i];
    }
    diagonal[steps++] = along;
    beside[steps] = std::sqrt(left);
    if (!(beside[steps] > 1e-5 * along)) break;  // the vectors so far span all that H reaches
    const float inverse = static_cast<float>(1 / beside[steps]);
    for (std::int64_t i = 0; i < nodes; ++i) {
      before[i] = v[i];
      v[i] = next[i] * inverse;
    }
  }

  const Interval ritz = common::extreme_eigenvalues(diagonal, beside, steps);
  return {0.88 * ritz.low, 1.04 * ritz.high};
}

}  // namespace sem::cpu::SEM_ISA
