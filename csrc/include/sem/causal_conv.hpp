// causal_conv: complex depthwise convolution over the last positions, and behind it a gate by magnitude.
//
//   v_t = bias + sum_{k < taps} taps_k x_{t + k - taps + 1},   out_t = v_t (1 - exp(-|v_t|^2 e^theta))
//
// x before the first position is the history. Complex arrays are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

struct ConvShape {
  std::int64_t batch = 0;
  std::int64_t steps = 0;
  std::int64_t channels = 0;
  std::int64_t taps = 1;
};

template <class Real>
struct CausalConvForward {
  static constexpr const char* kName = "causal_conv_forward";

  ConvShape shape;
  const Real* x = nullptr;        // [batch, steps, channels, 2]
  const Real* history = nullptr;  // [batch, taps - 1, channels, 2]
  const Real* taps = nullptr;     // [taps, channels, 2]
  const Real* bias = nullptr;     // [channels, 2]
  const Real* theta = nullptr;    // [channels], or null: no gate, out = v
  Real* out = nullptr;            // [batch, steps, channels, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("channels", shape.channels);
    field("num_taps", shape.taps);
    field("x", x, shape.batch * shape.steps * shape.channels * 2);
    field("history", history, shape.batch * (shape.taps - 1) * shape.channels * 2);
    field("taps", taps, shape.taps * shape.channels * 2);
    field("bias", bias, shape.channels * 2);
    field.optional("theta", theta, shape.channels);
    field("out", out, shape.batch * shape.steps * shape.channels * 2);
  }
};

// With G the gradient to out, passed = 1 - exp(-|v|^2 e^theta) and held = e^theta (1 - passed) Re(conj(v) G):
//   g_v = passed G + 2 held v,                          g_theta = sum_{batch,t} held |v|^2,
//   g_x_t = sum_k conj(taps_k) g_v_{t - k + taps - 1},  likewise g_history,
//   g_taps_k = sum_{batch,t} g_v_t conj(x_{t + k - taps + 1}),   g_bias = sum_{batch,t} g_v_t.
template <class Real>
struct CausalConvBackward {
  static constexpr const char* kName = "causal_conv_backward";

  ConvShape shape;
  const Real* x = nullptr;
  const Real* history = nullptr;
  const Real* taps = nullptr;
  const Real* bias = nullptr;
  const Real* theta = nullptr;
  const Real* grad_out = nullptr;  // [batch, steps, channels, 2]
  Real* grad_x = nullptr;
  Real* grad_history = nullptr;
  Real* grad_taps = nullptr;
  Real* grad_bias = nullptr;
  Real* grad_theta = nullptr;  // null exactly when theta is

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("channels", shape.channels);
    field("num_taps", shape.taps);
    field("x", x, shape.batch * shape.steps * shape.channels * 2);
    field("history", history, shape.batch * (shape.taps - 1) * shape.channels * 2);
    field("taps", taps, shape.taps * shape.channels * 2);
    field("bias", bias, shape.channels * 2);
    field.optional("theta", theta, shape.channels);
    field("grad_out", grad_out, shape.batch * shape.steps * shape.channels * 2);
    field("grad_x", grad_x, shape.batch * shape.steps * shape.channels * 2);
    field("grad_history", grad_history, shape.batch * (shape.taps - 1) * shape.channels * 2);
    field("grad_taps", grad_taps, shape.taps * shape.channels * 2);
    field("grad_bias", grad_bias, shape.channels * 2);
    field.optional("grad_theta", grad_theta, shape.channels);
  }
};

}  // namespace sem
