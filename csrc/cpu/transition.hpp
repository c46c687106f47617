// The factor of one step of a scan, for sixteen channels.
#pragma once

#include "cpu/complex.hpp"
#include "cpu/vector_math.hpp"

namespace sem::cpu::SEM_ISA {

// A = exp(-m decay) exp(i p frequency). Rounding can leave |A| a little above 1 where m decay is below 1e-7; there it
// is made a little smaller than 1, so that no state grows by rounding over any number of steps. m = p = 0 gives 1
// exactly. A phase beyond the range of vsincos gives NaN.
SEM_INLINE Complex transition(vfloat m, vfloat p, vfloat decay, vfloat frequency) {
  constexpr float kMaxPhase = 8000.0f;  // the range of vsincos
  constexpr float kShrink = 0x1p-22f;
  constexpr float kBelowOne = 1.0f - 0x1p-24f;  // the next float32 below 1
  const vfloat phase = p * frequency;
  vfloat sine, cosine;
  vsincos(select(vabs(phase) < kMaxPhase, phase, broadcast(__builtin_nanf(""))), sine, cosine);
  const vfloat radius = vexp(-(m * decay));
  const Complex a{radius * cosine, radius * sine};
  const vfloat im_square = a.im * a.im;
  const vfloat square = a.re * a.re + im_square;
  const vfloat inverse_root = (1.5f - kShrink) - 0.5f * square;
  const vint too_large = (kBelowOne < square) & (0.0f < im_square);
  const vfloat scale = select(too_large, inverse_root, broadcast(1.0f));
  return {scale * a.re, scale * a.im};
}

}  // namespace sem::cpu::SEM_ISA
