// state_space: a selective state space in groups, from its input to its output; the states in between stay in cache.
//
//   h_t = A_t h_{t-1} + m_t B x_t,   y_t = C h_t,   A_{t,n} = exp(-m_t decay_n) exp(i p_t frequency_n)
//
// with m = dt_mag and p = dt_phase, for each group on its own: x_t and y_t are its `width` entries, h_t its `states`.
// For m, decay >= 0, |A| <= 1. Complex arrays are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

// The forward leaves the state before every kCheckpointSteps-th step, from which the backward computes the others
// again.
inline constexpr std::int64_t kCheckpointSteps = 64;

struct StateSpaceShape {
  std::int64_t batch = 0;
  std::int64_t steps = 0;
  std::int64_t groups = 1;
  std::int64_t states = 1;  // of a group
  std::int64_t width = 1;   // of a group

  // Pieces of kCheckpointSteps steps, and the states kept between them.
  std::int64_t pieces() const { return (steps + kCheckpointSteps - 1) / kCheckpointSteps; }
  std::int64_t checkpoints() const { return steps > 0 ? pieces() - 1 : 0; }

  // Numbers in the states' channels, in a whole wave, and in a matrix of all groups.
  std::int64_t channels() const { return groups * states; }
  std::int64_t waves() const { return batch * steps * groups * width * 2; }
  std::int64_t matrix() const { return groups * states * width * 2; }
};

template <class Real>
struct StateSpaceForward {
  static constexpr const char* kName = "state_space_forward";

  StateSpaceShape shape;
  const Real* x = nullptr;              // [batch, steps, groups, width, 2]
  const Real* dt_mag = nullptr;         // [batch, steps, groups]
  const Real* dt_phase = nullptr;       // [batch, steps, groups]
  const Real* into = nullptr;           // B [groups, states, width, 2]
  const Real* out_of = nullptr;         // C [groups, width, states, 2]
  const Real* decay = nullptr;          // [groups, states]
  const Real* frequency = nullptr;      // [groups, states]
  const Real* initial_state = nullptr;  // [batch, groups, states, 2]
  Real* y = nullptr;                    // [batch, steps, groups, width, 2]
  Real* final_state = nullptr;          // [batch, groups, states, 2]: the last h_t, or the initial state for no steps
  Real* checkpoints = nullptr;          // [batch, checkpoints, groups, states, 2], or null: not wanted

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("groups", shape.groups);
    field("states", shape.states);
    field("width", shape.width);
    field("x", x, shape.waves());
    field("dt_mag", dt_mag, shape.batch * shape.steps * shape.groups, Values::nonnegative);
    field("dt_phase", dt_phase, shape.batch * shape.steps * shape.groups);
    field("into", into, shape.matrix());
    field("out_of", out_of, shape.matrix());
    field("decay", decay, shape.channels(), Values::nonnegative);
    field("frequency", frequency, shape.channels());
    field("initial_state", initial_state, shape.batch * shape.channels() * 2);
    field("y", y, shape.waves());
    field("final_state", final_state, shape.batch * shape.channels() * 2);
    field.optional("checkpoints", checkpoints, shape.batch * shape.checkpoints() * shape.channels() * 2);
  }
};

// With g the gradient to y and l the adjoint state, backwards in time:
//   l_t = C^H g_t + conj(A_{t+1}) l_{t+1},   the last one plus the gradient to the final state,
//   w_t = conj(l_t) A_t h_{t-1},             z_t = B^H l_t,
//   g_x = m z,                               g_initial = conj(A_1) l_1,
//   g_B = sum_{batch,t} l (m x)^H,           g_C = sum_{batch,t} g h^H,
//   g_decay = -sum_{batch,t} m Re w,         g_frequency = -sum_{batch,t} p Im w,
//   g_m = Re(z^H x) - sum_n decay Re w,      g_p = -sum_n frequency Im w.
template <class Real>
struct StateSpaceBackward {
  static constexpr const char* kName = "state_space_backward";

  StateSpaceShape shape;
  const Real* x = nullptr;
  const Real* dt_mag = nullptr;
  const Real* dt_phase = nullptr;
  const Real* into = nullptr;
  const Real* out_of = nullptr;
  const Real* decay = nullptr;
  const Real* frequency = nullptr;
  const Real* initial_state = nullptr;
  const Real* checkpoints = nullptr;       // of the forward
  const Real* grad_y = nullptr;            // [batch, steps, groups, width, 2]
  const Real* grad_final_state = nullptr;  // [batch, groups, states, 2]
  Real* grad_x = nullptr;
  Real* grad_dt_mag = nullptr;
  Real* grad_dt_phase = nullptr;
  Real* grad_into = nullptr;
  Real* grad_out_of = nullptr;
  Real* grad_decay = nullptr;
  Real* grad_frequency = nullptr;
  Real* grad_initial_state = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", shape.batch);
    field("steps", shape.steps);
    field("groups", shape.groups);
    field("states", shape.states);
    field("width", shape.width);
    field("x", x, shape.waves());
    field("dt_mag", dt_mag, shape.batch * shape.steps * shape.groups);
    field("dt_phase", dt_phase, shape.batch * shape.steps * shape.groups);
    field("into", into, shape.matrix());
    field("out_of", out_of, shape.matrix());
    field("decay", decay, shape.channels());
    field("frequency", frequency, shape.channels());
    field("initial_state", initial_state, shape.batch * shape.channels() * 2);
    field.optional("checkpoints", checkpoints, shape.batch * shape.checkpoints() * shape.channels() * 2);
    field("grad_y", grad_y, shape.waves());
    field("grad_final_state", grad_final_state, shape.batch * shape.channels() * 2);
    field("grad_x", grad_x, shape.waves());
    field("grad_dt_mag", grad_dt_mag, shape.batch * shape.steps * shape.groups);
    field("grad_dt_phase", grad_dt_phase, shape.batch * shape.steps * shape.groups);
    field("grad_into", grad_into, shape.matrix());
    field("grad_out_of", grad_out_of, shape.matrix());
    field("grad_decay", grad_decay, shape.channels());
    field("grad_frequency", grad_frequency, shape.channels());
    field("grad_initial_state", grad_initial_state, shape.batch * shape.channels() * 2);
  }
};

}  // namespace sem
