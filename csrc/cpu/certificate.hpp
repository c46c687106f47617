// What makes `converged` certain. A residual measured in float32 decides where rounding, whose bound is known, could
// not change the verdict. Of the other rows it is measured in float64, of what is returned; those that miss are refined
// by solves for what is left, and those that float32 cannot bring there are called stagnated.
#pragma once

#include "cpu/cg_tile.hpp"
#include "cpu/wide.hpp"

namespace sem::cpu::SEM_ISA {

inline constexpr auto kStagnated = static_cast<std::int32_t>(Status::stagnated);
inline constexpr auto kNonfinite = static_cast<std::int32_t>(Status::nonfinite);

inline void copy(const float* from, float* to, std::int64_t width) {
  for (std::int64_t n = 0; n < width; ++n) store(to + n * kLanes, load(from + n * kLanes));
}
// to += factor what; lanes whose factor is zero stay as they are
inline void add(float* to, const float* what, vfloat factor, std::int64_t width) {
  const vint none = factor == 0.0f;
  for (std::int64_t n = 0; n < width; ++n) {
    float* const at = to + n * kLanes;
    store(at, select(none, load(at), load(at) + factor * load(what + n * kLanes)));
  }
}

// Residuals are over the norm of their row.
class Certificate {
 public:
  Certificate(float tol, std::int32_t max_iter) : tol_(tol), max_iter_(max_iter) {}

  // Of a solve for what is left.
  static constexpr float kGain = 0.01f;

  // Lanes that a solve believes to be done, or beyond float32.
  static vint claimed(vint active, const LaneResult& result) {
    return active & ((result.status == 0) | (result.status == kStagnated));
  }
  // Those of them where `rounding` could change the verdict.
  vint unsure(vint active, const LaneResult& result, vfloat rounding) const {
    return claimed(active, result) & ~(result.residual * (1.0f + 0x1p-16f) + rounding <= broadcast(tol_));
  }

  // Makes lanes certain or gives them up. `measure()` leaves what is left of the equation in memory and returns its
  // norm; `correct(lanes, iterations)` solves for it to kGain in at most that many iterations a lane, `least` of which
  // it takes in any case, adds that to the lanes' solution and returns the iterations it took. A lane ends when it is
  // within the tolerance, when a solve did not halve its residual, or when its iterations are used up.
  template <class Measure, class Correct>
  SEM_OUT_OF_LINE void refine(vint lanes, std::int32_t least, LaneResult& result, Measure measure,
                              Correct correct) const {
    vfloat last = broadcast(0x1p126f);
    while (any(lanes)) {
      const vfloat residual = measure();
      result.residual = select(lanes, residual, result.residual);
      const vint good = lanes & (residual <= broadcast(tol_));
      result.status = select(lanes, ~good & kStagnated, result.status);
      lanes &= ~good & (residual <= last * 0.5f) & (result.iterations + least <= max_iter_);
      last = residual;
      if (any(lanes)) result.iterations += correct(lanes, max_iter_ - result.iterations) & lanes;
    }
  }

 private:
  const float tol_;
  const std::int32_t max_iter_;
};

}  // namespace sem::cpu::SEM_ISA
