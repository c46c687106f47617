// What makes `converged` certain: a residual measured in float32 decides where rounding, whose bound is known, could
// not change the verdict; of the other rows it is measured in two floats a number, of what is returned. A row that
// misses the tolerance then is called stagnated.
#pragma once

#include "device/conjugate_gradients.hpp"
#include "device/two_float.hpp"

namespace sem::device {

// A row whose verdict is still to come, when its registers are free.
struct Unsure {
  bool row;
  float scale, norm;  // the power of two that it was solved with, zero for a row of zeros, and its norm then
};

// Whether a solve believes the row to be done, or beyond float32.
SEM_DEVICE bool claimed(const RowResult& result, bool active) {
  return active && (result.status == 0 || result.status == kStagnated);
}

// Whether the verdict on a row needs more than float32; `rounding` is in relation to the row's norm, as the residual.
SEM_DEVICE bool doubtful(const RowResult& result, bool active, float tol, float rounding) {
  return claimed(result, active) && !(result.residual * (1.0f + 0x1p-16f) + rounding <= tol);
}

SEM_DEVICE void settle(const SolveReport<float>& report, std::int64_t row, float tol, float residual) {
  if (report.status != nullptr) report.status[row] = residual <= tol ? 0 : kStagnated;
  if (report.residual != nullptr) report.residual[row] = residual;
}

// (H x)_i for value(j), the two floats of x at node j.
template <class At>
SEM_DEVICE TwoFloat wide_product(const Prepared& h, std::int64_t i, At value) {
  const TwoFloat own = value(i);
  TwoFloat sum;
  for (std::int32_t k = h.row_start[i]; k < h.row_start[i + 1]; ++k)
    sum = sum + h.neighbours[k].weight * (own - value(h.neighbours[k].node));
  return sum;
}

}  // namespace sem::device
