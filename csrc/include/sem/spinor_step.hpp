// spinor_step: one position of a spinor layer (sem/spinor), for models that decode. In turn, each as its own header
// says:
//
//   n = complex_rms_norm(x),             u = gated_rotation(n, gate n + gate_bias),
//   v = causal_conv(u) behind `history`, m, p = clamp(exp(time_steps v + time_bias)),
//   y = state_space(v; m, p) behind `state`,
//   z = wave_gate(y, out_gate n + out_gate_bias),   out = x + out_matrix z.
//
// Without blocks there is no rotation, and u = n; without gates of the output z = y. The maps are real ones of real
// blocks [..., 2]. No gradients: training takes the parts.
#pragma once

#include "sem/causal_conv.hpp"
#include "sem/complex_rms_norm.hpp"
#include "sem/gated_rotation.hpp"
#include "sem/state_space.hpp"
#include "sem/wave_gate.hpp"

namespace sem {

template <class Real>
struct SpinorStep {
  static constexpr const char* kName = "spinor_step";

  std::int64_t batch = 0;
  std::int64_t dim = 1;
  std::int64_t num_blocks = 1;  // of the rotation; 0: there is none
  std::int64_t size = 1;        // of a block
  std::int64_t out_gates = 1;   // entries that are gated behind the state space: all, dim, or none
  std::int64_t num_taps = 1;    // of the convolution
  std::int64_t groups = 1;      // of the state space
  std::int64_t states = 1;      // of a group
  Real eps = 0;
  Real least_dt = 0;
  Real most_dt = 0;
  const Real* x = nullptr;              // [batch, dim, 2]
  const Real* history = nullptr;        // [batch, num_taps - 1, dim, 2]
  const Real* state = nullptr;          // [batch, groups, states, 2]
  const Real* gamma = nullptr;          // [dim]
  const Real* gate = nullptr;           // [dim, dim, 2], or nothing
  const Real* gate_bias = nullptr;      // [dim]
  const Real* blocks = nullptr;         // [num_blocks, size, size, 2]
  const Real* taps = nullptr;           // [num_taps, dim, 2]
  const Real* offset = nullptr;         // [dim, 2]
  const Real* theta = nullptr;          // [dim]
  const Real* time_steps = nullptr;     // [2, groups, dim, 2]: of magnitude, of phase
  const Real* time_bias = nullptr;      // [2, groups]
  const Real* into = nullptr;           // [groups, states, dim / groups, 2]
  const Real* out_of = nullptr;         // [groups, dim / groups, states, 2]
  const Real* decay = nullptr;          // [groups, states]
  const Real* frequency = nullptr;      // [groups, states]
  const Real* out_gate = nullptr;       // [dim, dim, 2], or nothing
  const Real* out_gate_bias = nullptr;  // [dim]
  const Real* out_matrix = nullptr;     // [dim, 2, dim, 2]
  Real* out = nullptr;                  // [batch, dim, 2]
  Real* history_after = nullptr;        // [batch, num_taps - 1, dim, 2]
  Real* state_after = nullptr;          // [batch, groups, states, 2]

  std::int64_t rotated() const { return num_blocks > 0 ? dim : 0; }  // which is num_blocks * size
  std::int64_t gated() const { return out_gates > 0 ? dim : 0; }

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch);
    field("dim", dim);
    field("num_blocks", num_blocks);
    field("size", size);
    field("out_gates", out_gates);
    field("num_taps", num_taps);
    field("groups", groups);
    field("states", states);
    field("eps", eps);
    field("least_dt", least_dt);
    field("most_dt", most_dt);
    field("x", x, batch * dim * 2);
    field("history", history, batch * (num_taps - 1) * dim * 2);
    field("state", state, batch * groups * states * 2);
    field("gamma", gamma, dim);
    field("gate", gate, rotated() * dim * 2);
    field("gate_bias", gate_bias, rotated());
    field("blocks", blocks, rotated() * size * 2);
    field("taps", taps, num_taps * dim * 2);
    field("offset", offset, dim * 2);
    field("theta", theta, dim);
    field("time_steps", time_steps, 2 * groups * dim * 2);
    field("time_bias", time_bias, 2 * groups);
    field("into", into, states * dim * 2);
    field("out_of", out_of, states * dim * 2);
    field("decay", decay, groups * states);
    field("frequency", frequency, groups * states);
    field("out_gate", out_gate, gated() * dim * 2);
    field("out_gate_bias", out_gate_bias, gated());
    field("out_matrix", out_matrix, dim * 2 * dim * 2);
    field("out", out, batch * dim * 2);
    field("history_after", history_after, batch * (num_taps - 1) * dim * 2);
    field("state_after", state_after, batch * groups * states * 2);
  }

  // Its parts; the arrays between them are [batch, dim, 2], the logits [batch, dim], m and p [batch, groups].
  ComplexRmsNormForward<Real> norm(Real* normed) const { return {batch, dim, eps, x, gamma, normed}; }
  GatedRotationForward<Real> rotation(const Real* normed, const Real* logits, Real* turned) const {
    return {{batch, num_blocks, size}, normed, logits, blocks, turned};
  }
  CausalConvForward<Real> convolution(const Real* turned, Real* gated) const {
    return {{batch, 1, dim, num_taps}, turned, history, taps, offset, theta, gated};
  }
  StateSpaceForward<Real> space(const Real* gated, const Real* m, const Real* p, Real* mixed) const {
    return {{batch, 1, groups, states, dim / groups},
            gated,
            m,
            p,
            into,
            out_of,
            decay,
            frequency,
            state,
            mixed,
            state_after,
            nullptr};
  }
  // In place: it reads an entry before it writes it.
  WaveGateForward<Real> output_gate(Real* mixed, const Real* logits) const {
    return {batch, dim, mixed, logits, mixed};
  }
};

}  // namespace sem
