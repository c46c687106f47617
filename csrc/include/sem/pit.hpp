// pit: phase-information transport. Every phase of a row moves toward lower phase density on the circle.
//
// With K = num_bins, sigma = 2 pi / K, u_d = arg(psi_d) / sigma (phases counted in bins) and g(x) = exp(-x^2 / 2)
// summed over whole turns of the circle:
//
//   rho_k = sum_d g(u_d - k)         density on the bins
//   n(u)  = sum_k g(u - k) rho_k     density at a phase (sum_k g(u - k) is constant to 6e-9: no further normalisation)
//   score:          s_d = n'(u_d) / n(u_d)                    shift_d = - strength sigma f(s_d)
//   density_ratio:  s_d = n_uniform / n(u_d) - 1              shift_d = + strength sigma f(s_d)
//   f(s)  = s / sqrt(1 + s^2)
//   out_d = psi_d exp(i shift_d) reference_rms / rms(psi)
//
// n_uniform = 2 pi (entries counted) / K is what n would be for phases spread evenly. An entry that is zero, or below
// 2^-100 of the row's largest entry, has no phase: it is not counted, does not turn and gets no gradient through its
// phase. Without reference_rms the row keeps its own RMS. A row of zeros gives zeros, with a zero gradient to
// reference_rms; a row that holds NaN or Inf gives NaN.
#pragma once

#include "sem/types.hpp"

namespace sem {

// The values are part of the Python interface (sem.ops.pit).
enum class PitRule : std::int32_t { score = 0, density_ratio = 1 };

template <class Real>
struct PitForward {
  std::int64_t rows = 0;
  std::int64_t width = 0;  // D
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;            // [rows, width, 2]
  const Real* reference_rms = nullptr;  // [rows], or null: the row keeps its own RMS
  const Real* strength = nullptr;       // [1]
  Real* out = nullptr;                  // [rows, width, 2]
};

// All gradients are exact; the density of a row is computed again from psi. With G = dL/dRe + i dL/dIm at out,
// c = reference_rms / rms(psi), q_d = exp(-i shift_d) G_d, A = sum_d Re(conj(psi_d) q_d), w_d = c Im(conj(psi_d) q_d):
//
//   g_reference = A / rms,   g_strength = sum over rows and d of (-+) sigma f(s_d) w_d   (- score, + density_ratio)
//   h_d   = (-+) strength sigma f'(s_d) w_d = dL/ds_d
//   score:          t_d = h_d (n''/n - s^2),   l_k = sum_d (h_d / n_d) (g'(u_d - k) - s_d g(u_d - k))
//   density_ratio:  t_d = -h_d n_uniform n'/n^2,   l_k = - sum_d (h_d n_uniform / n_d^2) g(u_d - k)
//   dL/du_d = t_d + sum_k l_k g'(u_d - k)              (l_k = dL/drho_k: all phases of a row act on each other)
//   g_psi_d = c (q_d - A psi_d / (D rms^2)) + (dL/du_d / sigma) i psi_d / |psi_d|^2
//
// Without reference_rms, c = 1 and the term in A is absent. g_strength is NaN when a row is.
template <class Real>
struct PitBackward {
  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;            // [rows, width, 2]
  const Real* reference_rms = nullptr;  // [rows] or null
  const Real* strength = nullptr;       // [1]
  const Real* grad_out = nullptr;       // [rows, width, 2]
  Real* grad_psi = nullptr;             // [rows, width, 2]
  Real* grad_reference = nullptr;       // [rows], null exactly when reference_rms is
  Real* grad_strength = nullptr;        // [1]
};

namespace reference {
template <class Real>
void pit_forward(const PitForward<Real>& args);
template <class Real>
void pit_backward(const PitBackward<Real>& args);
}  // namespace reference

namespace cpu {
void pit_forward(const PitForward<float>& args, Queue queue);
void pit_backward(const PitBackward<float>& args, Queue queue);
}  // namespace cpu

}  // namespace sem
