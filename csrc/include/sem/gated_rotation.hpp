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
  static constexpr const char* kName = "gated_rotation_forward";

  RotationShape shape;
  const Real* x = nullptr;       // [rows, groups, size, 2]
  const Real* logits = nullptr;  // [rows, groups, size]
  const Real* blocks = nullptr;  // [groups, size, size, 2]
  Real* out = nullptr;           // [rows, groups, size, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", shape.rows);
    field("groups", shape.groups);
    field("size", shape.size);
    field("x", x, 2 * shape.rows * shape.groups * shape.size);
    field("logits", logits, shape.rows * shape.groups * shape.size);
    field("blocks", blocks, shape.groups * shape.size * shape.size * 2);
    field("out", out, 2 * shape.rows * shape.groups * shape.size);
  }
};

// With G the gradient to out and h = g G:
//   g_x = G + (U - I)^H h,                    g_blocks = sum over rows of h x^H, block by block,
//   g_logits_d = 1.7015 g_d (1 - g_d) Re( conj((U x - x)_d) G_d ).
template <class Real>
struct GatedRotationBackward {
  static constexpr const char* kName = "gated_rotation_backward";

  RotationShape shape;
  const Real* x = nullptr;
  const Real* logits = nullptr;
  const Real* blocks = nullptr;
  const Real* grad_out = nullptr;  // [rows, groups, size, 2]
  Real* grad_x = nullptr;
  Real* grad_logits = nullptr;
  Real* grad_blocks = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", shape.rows);
    field("groups", shape.groups);
    field("size", shape.size);
    field("x", x, 2 * shape.rows * shape.groups * shape.size);
    field("logits", logits, shape.rows * shape.groups * shape.size);
    field("blocks", blocks, shape.groups * shape.size * shape.size * 2);
    field("grad_out", grad_out, 2 * shape.rows * shape.groups * shape.size);
    field("grad_x", grad_x, 2 * shape.rows * shape.groups * shape.size);
    field("grad_logits", grad_logits, shape.rows * shape.groups * shape.size);
    field("grad_blocks", grad_blocks, shape.groups * shape.size * shape.size * 2);
  }
};

}  // namespace sem
