// Where the eigenvalues of a graph's Laplacian lie.
#pragma once

#include <cstdint>

#include "common/tridiagonal.hpp"
#include "device/prepared.hpp"
#include "device/reduce.hpp"

namespace sem::device {

using Interval = common::Interval<float>;

inline constexpr int kLanczosSteps = 8;

// The eigenvalues of H other than that of the constant vector, which is zero: from the extreme Ritz values of a few
// Lanczos steps, which lie inside by some per cent, and as much on either side. An estimate, not a bound. By one group;
// `vectors` are [3][nodes]. Every thread receives it.
template <class Group>
SEM_DEVICE Interval spectrum(const Group& group, const Prepared& h, float* vectors, float* scratch) {
  const std::int64_t nodes = h.nodes;
  float *v = vectors, *before = v + nodes, *next = before + nodes;
  float sums[1] = {0};
  for (std::int64_t i = group.rank(); i < nodes; i += group.size()) {
    std::uint32_t random = static_cast<std::uint32_t>(i) + 1u;
    random = (random ^ (random >> 16)) * 0x85ebca6bu;
    random = (random ^ (random >> 13)) * 0xc2b2ae35u;
    random ^= random >> 16;
    v[i] = static_cast<float>(random >> 8) * 0x1p-23f - 1.0f;
    before[i] = 0;
    sums[0] += v[i];
  }
  sum(group, sums, scratch);
  const float mean = sums[0] / static_cast<float>(nodes);
  sums[0] = 0;
  for (std::int64_t i = group.rank(); i < nodes; i += group.size()) {
    v[i] -= mean;
    sums[0] += v[i] * v[i];
  }
  sum(group, sums, scratch);
  if (!(sums[0] > 0)) return {};
  const float unit = 1.0f / sqrt(sums[0]);
  for (std::int64_t i = group.rank(); i < nodes; i += group.size()) v[i] *= unit;
  group.barrier();

  float diagonal[kLanczosSteps] = {}, beside[kLanczosSteps + 1] = {};
  int steps = 0;
  while (steps < kLanczosSteps && steps < nodes) {
    sums[0] = 0;
    for (std::int64_t i = group.rank(); i < nodes; i += group.size()) {
      float hv[1];
      gather<1>(h, v, 1, i, hv);
      next[i] = hv[0];
      sums[0] += hv[0] * v[i];
    }
    sum(group, sums, scratch);
    const float along = sums[0];
    sums[0] = 0;
    for (std::int64_t i = group.rank(); i < nodes; i += group.size()) {
      next[i] -= along * v[i] + beside[steps] * before[i];
      sums[0] += next[i] * next[i];
    }
    sum(group, sums, scratch);
    diagonal[steps++] = along;
    beside[steps] = sqrt(sums[0]);
    if (!(beside[steps] > 1e-5f * along)) break;  // the vectors so far span all that H reaches
    const float inverse = 1.0f / beside[steps];
    for (std::int64_t i = group.rank(); i < nodes; i += group.size()) {
      before[i] = v[i];
      v[i] = next[i] * inverse;
    }
    group.barrier();
  }
  const Interval ritz = common::extreme_eigenvalues(diagonal, beside, steps);
  return {0.88f * ritz.low, 1.04f * ritz.high};
}

}  // namespace sem::device
