// wave_gate: every complex entry times the SiLU of a logit of its own.
//
//   out = silu(l) psi,   silu(l) = l s,   s = sigmoid(l)
//
// Complex arrays are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct WaveGateForward {
  static constexpr const char* kName = "wave_gate_forward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;     // [rows, width, 2]
  const Real* logits = nullptr;  // [rows, width]
  Real* out = nullptr;           // [rows, width, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("logits", logits, rows * width);
    field("out", out, rows * width * 2);
  }
};

// With G the gradient to out and silu'(l) = s + l s (1 - s):
//   g_psi = silu(l) G,    g_logits = silu'(l) Re( conj(psi) G ).
template <class Real>
struct WaveGateBackward {
  static constexpr const char* kName = "wave_gate_backward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  const Real* psi = nullptr;
  const Real* logits = nullptr;
  const Real* grad_out = nullptr;  // [rows, width, 2]
  Real* grad_psi = nullptr;
  Real* grad_logits = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("psi", psi, rows * width * 2);
    field("logits", logits, rows * width);
    field("grad_out", grad_out, rows * width * 2);
    field("grad_psi", grad_psi, rows * width * 2);
    field("grad_logits", grad_logits, rows * width);
  }
};

}  // namespace sem
