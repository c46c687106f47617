// Where the eigenvalues of a graph's Laplacian lie.
#pragma once

#include "cpu/tile_graph.hpp"

namespace sem::cpu::SEM_ISA {

struct Interval {
  double low = 0, high = 0;
};

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

  double reach = 0;
  for (int j = 0; j < steps; ++j) {
    const double sum = diagonal[j] + beside[j] + (j + 1 < steps ? beside[j + 1] : 0);
    if (!(sum <= reach)) reach = sum;
  }
  // Bisection: T - x, with T the tridiagonal matrix, has only negative pivots when x is above every eigenvalue, only
  // positive ones when x is below.
  const auto beyond = [&](double x, double sign) {
    double pivot = diagonal[0] - x;
    bool holds = sign * pivot < 0;
    for (int j = 1; j < steps && holds; ++j) {
      pivot = diagonal[j] - x - beside[j] * beside[j] / pivot;
      holds = sign * pivot < 0;
    }
    return holds;
  };
  Interval smallest{0, reach}, largest{0, reach};
  for (int round = 0; round < 20; ++round) {
    const double below = 0.5 * (smallest.low + smallest.high), above = 0.5 * (largest.low + largest.high);
    (beyond(below, -1) ? smallest.low : smallest.high) = below;
    (beyond(above, 1) ? largest.high : largest.low) = above;
  }
  return {0.88 * smallest.low, 1.04 * largest.high};
}

}  // namespace sem::cpu::SEM_ISA
