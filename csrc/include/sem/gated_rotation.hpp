// gated_rotation: a block-diagonal complex map, entered as far as a gate per entry says.
//
//   out = x + g (U x - x),   g = sigmoid(1.7015 logits),   U = diag(blocks)
//
// Complex arrays are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

inline constexpr double kGateSlope = 1.7015;

struct RotationShape {
  std::int64_t rows = 0;
  std::int64_t groups = 0;
  std::int64_t size = 0;  // of a block; a row has groups * size entries
};

template <class Real>
struct GatedRotationForward {
  RotationShape shape;
  const Real* x = nullptr;       // [rows, groups, size, 2]
  const Real* logits = nullptr;  // [rows, groups, size]
  const Real* blocks = nullptr;  // [groups, size, size, 2]
  Real* out = nullptr;           // [rows, groups, size, 2]
};

// With G the gradient to out and h = g G:
//   g_x = G + (U - I)^H h,                    g_blocks = sum over rows of h x^H, block by block,
//   g_logits_d = 1.7015 g_d (1 - g_d) Re( conj((U x - x)_d) G_d ).
template <class Real>
struct GatedRotationBackward {
  RotationShape shape;
  const Real* x = nullptr;
  const Real* logits = nullptr;
  const Real* blocks = nullptr;
  const Real* grad_out = nullptr;  // [rows, groups, size, 2]
  Real* grad_x = nullptr;
  Real* grad_logits = nullptr;
  Real* grad_blocks = nullptr;
};

namespace reference {
template <class Real>
void gated_rotation_forward(const GatedRotationForward<Real>& args);
template <class Real>
void gated_rotation_backward(const GatedRotationBackward<Real>& args);
}  // namespace reference

namespace cpu {
void gated_rotation_forward(const GatedRotationForward<float>& args, Queue queue);
void gated_rotation_backward(const GatedRotationBackward<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
