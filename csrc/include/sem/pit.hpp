// pit: phase-information transport. Every phase of a row moves toward lower phase density on the circle. With kerr
// given, every phase first turns in proportion to its intensity (Kerr rotation).
//
// With K = num_bins, sigma = 2 pi / K and g(x) = exp(-x^2 / 2) summed over whole turns of the circle:
//
//   kerr_phase_d = kerr_d I_d,   I_d = |psi_d|^2 / mean |psi|^2     (0 without kerr)
//   u_d   = (arg(psi_d) + kerr_phase_d) / sigma                     phases counted in bins
//   rho_k = sum_d g(u_d - k)         density on the bins
//   n(u)  = sum_k g(u - k) rho_k     density at a phase (sum_k g(u - k) is constant to 6e-9: no further normalisation)
//   score:          s_d = n'(u_d) / n(u_d)                    shift_d = - strength sigma f(s_d)
//   density_ratio:  s_d = n_uniform / n(u_d) - 1              shift_d = + strength sigma f(s_d)
//   f(s)  = s / sqrt(1 + s^2)
//   out_d = psi_d exp(i (kerr_phase_d + shift_d)) reference_rms / rms(psi)
//
// A rotation leaves moduli alone, so rms(psi) is that of the turned wave too. n_uniform = 2 pi (entries counted) / K is
// what n would be for phases spread evenly. An entry that is zero, or below 2^-100 of the row's largest entry, has no
// phase: it is not counted, does not turn and gets no gradient through its phase. Without reference_rms the row keeps
// its own RMS. A row of zeros gives zeros, with a zero gradient to reference_rms and to kerr; a row that holds NaN or
// Inf gives NaN, and so does every row but those of zeros where kerr holds one.
#pragma once

#include "sem/types.hpp"

namespace sem {

// The values are part of the Python interface (sem.ops.pit).
enum class PitRule : std::int32_t { score = 0, density_ratio = 1 };

template <class Real>
struct PitForward {
  static constexpr const char* kName = "pit_forward";

  std::int64_t rows = 0;
  std::int64_t width = 0;  // D
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;            // [rows, width, 2]
  const Real* reference_rms = nullptr;  // [rows], or null: the row keeps its own RMS
  const Real* strength = nullptr;       // [1]
  Real* out = nullptr;                  // [rows, width, 2]
  const Real* kerr = nullptr;           // [width], or null: no Kerr rotation

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("num_bins", num_bins);
    field("rule", rule);
    field("psi", psi, rows * width * 2);
    field.optional("reference_rms", reference_rms, rows);
    field("strength", strength, 1);
    field("out", out, rows * width * 2);
    field.optional("kerr", kerr, width);
  }
};

// All gradients are exact; the density of a row is computed again from psi. With G = dL/dRe + i dL/dIm at out,
// c = reference_rms / rms(psi), q_d = exp(-i (kerr_phase_d + shift_d)) G_d, A = sum_d Re(conj(psi_d) q_d),
// w_d = c Im(conj(psi_d) q_d):
//
//   g_reference = A / rms,   g_strength = sum over rows and d of (-+) sigma f(s_d) w_d   (- score, + density_ratio)
//   h_d   = (-+) strength sigma f'(s_d) w_d = dL/ds_d
//   score:          t_d = h_d (n''/n - s^2),   l_k = sum_d (h_d / n_d) (g'(u_d - k) - s_d g(u_d - k))
//   density_ratio:  t_d = -h_d n_uniform n'/n^2,   l_k = - sum_d (h_d n_uniform / n_d^2) g(u_d - k)
//   dL/du_d = t_d + sum_k l_k g'(u_d - k)              (l_k = dL/drho_k: all phases of a row act on each other)
//   e_d     = w_d + dL/du_d / sigma = dL/dkerr_phase_d
//   v_d     = 2 (kerr_d e_d - mean_j kerr_j e_j I_j) / mean |psi|^2
//   g_kerr_d = sum over rows of e_d I_d
//   g_psi_d = c (q_d - A psi_d / (D rms^2)) + (dL/du_d / sigma) i psi_d / |psi_d|^2 + v_d psi_d
//
// Without reference_rms, c = 1 and the term in A is absent; without kerr, v_d = 0. g_strength and g_kerr are NaN when a
// row is.
template <class Real>
struct PitBackward {
  static constexpr const char* kName = "pit_backward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;            // [rows, width, 2]
  const Real* reference_rms = nullptr;  // [rows] or null
  const Real* strength = nullptr;       // [1]
  const Real* grad_out = nullptr;       // [rows, width, 2]
  Real* grad_psi = nullptr;             // [rows, width, 2]
  Real* grad_reference_rms = nullptr;   // [rows], null exactly when reference_rms is
  Real* grad_strength = nullptr;        // [1]
  const Real* kerr = nullptr;           // [width] or null
  Real* grad_kerr = nullptr;            // [width], null exactly when kerr is

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("num_bins", num_bins);
    field("rule", rule);
    field("psi", psi, rows * width * 2);
    field.optional("reference_rms", reference_rms, rows);
    field("strength", strength, 1);
    field("grad_out", grad_out, rows * width * 2);
    field("grad_psi", grad_psi, rows * width * 2);
    field.optional("grad_reference_rms", grad_reference_rms, rows);
    field("grad_strength", grad_strength, 1);
    field.optional("kerr", kerr, width);
    field.optional("grad_kerr", grad_kerr, width);
  }
};

}  // namespace sem
