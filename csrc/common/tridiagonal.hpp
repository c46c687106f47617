// The extreme eigenvalues of a symmetric tridiagonal matrix.
#pragma once

#include "common/function.hpp"

namespace sem::common {

template <class Real>
struct Interval {
  Real low = 0, high = 0;
};

// Whether x lies above every eigenvalue of T (sign 1) or below every one (sign -1): T - x has only negative pivots, or
// only positive ones.
template <class Real, int kSteps>
SEM_COMMON bool lies_beyond(const Real (&diagonal)[kSteps], const Real (&beside)[kSteps + 1], int steps, Real x,
                            Real sign) {
  Real pivot = diagonal[0] - x;
  bool holds = sign * pivot < 0;
  for (int j = 1; j < steps && holds; ++j) {
    pivot = diagonal[j] - x - beside[j] * beside[j] / pivot;
    holds = sign * pivot < 0;
  }
  return holds;
}

// By bisection of [0, the largest sum of a row]; beside[j] stands between diagonal[j - 1] and diagonal[j].
template <class Real, int kSteps>
SEM_COMMON Interval<Real> extreme_eigenvalues(const Real (&diagonal)[kSteps], const Real (&beside)[kSteps + 1],
                                              int steps) {
  Real reach = 0;
  for (int j = 0; j < steps; ++j) {
    const Real sum = diagonal[j] + beside[j] + (j + 1 < steps ? beside[j + 1] : Real(0));
    if (!(sum <= reach)) reach = sum;
  }
  Interval<Real> smallest{0, reach}, largest{0, reach};
  for (int round = 0; round < 20; ++round) {
    const Real below = Real(0.5) * (smallest.low + smallest.high), above = Real(0.5) * (largest.low + largest.high);
    (lies_beyond(diagonal, beside, steps, below, Real(-1)) ? smallest.low : smallest.high) = below;
    (lies_beyond(diagonal, beside, steps, above, Real(1)) ? largest.high : largest.low) = above;
  }
  return {smallest.low, largest.high};
}

}  // namespace sem::common
