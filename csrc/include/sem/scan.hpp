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
  ScanShape shape;
  const Real* x = nullptr;              // [batch, steps, channels, 2]
  const Real* dt_mag = nullptr;         // [batch, steps, groups]
  const Real* dt_phase = nullptr;       // [batch, steps, groups]
  const Real* decay = nullptr;          // [channels]
  const Real* frequency = nullptr;      // [channels]
  const Real* initial_state = nullptr;  // [batch, channels, 2]
  Real* states = nullptr;               // [batch, steps, channels, 2]: every h_t
  Real* final_state = nullptr;          // [batch, channels, 2]: the last h_t, or the initial state when steps is 0
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
  ScanShape shape;
  const Real* x = nullptr;
  const Real* dt_mag = nullptr;
  const Real* dt_phase = nullptr;
  const Real* decay = nullptr;
  const Real* frequency = nullptr;
  const Real* initial_state = nullptr;
  const Real* states = nullptr;
  const Real* grad_states = nullptr;  // [batch, steps, channels, 2]
  const Real* grad_final = nullptr;   // [batch, channels, 2]
  Real* grad_x = nullptr;
  Real* grad_dt_mag = nullptr;
  Real* grad_dt_phase = nullptr;
  Real* grad_decay = nullptr;
  Real* grad_frequency = nullptr;
  Real* grad_initial = nullptr;
};

namespace reference {
template <class Real>
void scan_forward(const ScanForward<Real>& args);
template <class Real>
void scan_backward(const ScanBackward<Real>& args);
}  // namespace reference

namespace cpu {
void scan_forward(const ScanForward<float>& args, Queue queue);
void scan_backward(const ScanBackward<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
