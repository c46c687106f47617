// scan: the complex selective scan, h_t = A_t h_{t-1} + m_t x_t along time, and its exact reverse-time gradients.
//
// A_{t,c} = exp(-m_{t,g} decay_c) exp(i p_{t,g} frequency_c) with m = dt_mag and p = dt_phase, which the channels of a
// group share: channel c belongs to group c / (channels / groups). For m, decay >= 0, |A| <= 1. Complex arrays are real
// blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

struct ScanShape {
  std::int64_t batch = 0;
  std::int64_t steps = 0;
  std::int64_t channels = 0;
  std::int64_t groups = 1;  // divides channels
};

template <class Real>
struct ScanForward {
  static constexpr const char* kName = "scan_forward";

  ScanShape shape;
  const Real* x = nullptr;              // [batch, steps, channels, 2]
  const Real* dt_mag = nullptr;         // [batch, steps, groups]
  const Real* dt_phase = nullptr;       // [batch, steps, groups]
  const Real* decay = nullptr;          // [channels]
  const Real* frequency = nullptr;      // [channels]
  const Real* initial_state = nullptr;  // [batch, channels, 2]
  Real* states = nullptr;               // [batch, steps, channels, 2]: every h_t
  Real* final_state = nullptr;          // [batch, channels, 2]: the last h_t, or the initial state when steps is 0

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("channels", shape.channels);
    field("groups", shape.groups);
    field("x", x, shape.batch * shape.steps * shape.channels * 2);
    field("dt_mag", dt_mag, shape.batch * shape.steps * shape.groups, Values::nonnegative);
    field("dt_phase", dt_phase, shape.batch * shape.steps * shape.groups);
    field("decay", decay, shape.channels, Values::nonnegative);
    field("frequency", frequency, shape.channels);
    field("initial_state", initial_state, shape.batch * shape.channels * 2);
    field("states", states, shape.batch * shape.steps * shape.channels * 2);
    field("final_state", final_state, shape.batch * shape.channels * 2);
  }
};

// With g the gradient to h and l the adjoint state, backwards in time:
//   l_t = g_t + conj(A_{t+1}) l_{t+1},   the last one plus the gradient to the final state,
//   w_t = conj(l_t) A_t h_{t-1},
//   g_x = m l,                           g_initial = conj(A_1) l_1,
//   g_decay = -sum_{batch,t} m Re w,     g_frequency = -sum_{batch,t} p Im w,
//   g_m = sum_{c in g} ( Re(conj(l) x) - decay Re w ),      g_p = -sum_{c in g} frequency Im w.
// A is computed again from dt, decay and frequency; h_{t-1} is read from the saved states.
template <class Real>
struct ScanBackward {
  static constexpr const char* kName = "scan_backward";

  ScanShape shape;
  const Real* x = nullptr;
  const Real* dt_mag = nullptr;
  const Real* dt_phase = nullptr;
  const Real* decay = nullptr;
  const Real* frequency = nullptr;
  const Real* initial_state = nullptr;
  const Real* states = nullptr;
  const Real* grad_states = nullptr;       // [batch, steps, channels, 2]
  const Real* grad_final_state = nullptr;  // [batch, channels, 2]
  Real* grad_x = nullptr;
  Real* grad_dt_mag = nullptr;
  Real* grad_dt_phase = nullptr;
  Real* grad_decay = nullptr;
  Real* grad_frequency = nullptr;
  Real* grad_initial_state = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("channels", shape.channels);
    field("groups", shape.groups);
    field("x", x, shape.batch * shape.steps * shape.channels * 2);
    field("dt_mag", dt_mag, shape.batch * shape.steps * shape.groups);
    field("dt_phase", dt_phase, shape.batch * shape.steps * shape.groups);
    field("decay", decay, shape.channels);
    field("frequency", frequency, shape.channels);
    field("initial_state", initial_state, shape.batch * shape.channels * 2);
    field("states", states, shape.batch * shape.steps * shape.channels * 2);
    field("grad_states", grad_states, shape.batch * shape.steps * shape.channels * 2);
    field("grad_final_state", grad_final_state, shape.batch * shape.channels * 2);
    field("grad_x", grad_x, shape.batch * shape.steps * shape.channels * 2);
    field("grad_dt_mag", grad_dt_mag, shape.batch * shape.steps * shape.groups);
    field("grad_dt_phase", grad_dt_phase, shape.batch * shape.steps * shape.groups);
    field("grad_decay", grad_decay, shape.channels);
    field("grad_frequency", grad_frequency, shape.channels);
    field("grad_initial_state", grad_initial_state, shape.batch * shape.channels * 2);
  }
};

}  // namespace sem
