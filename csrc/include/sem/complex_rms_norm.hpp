// complex_rms_norm: every row of complex numbers over its own root mean square, times a gain per entry.
//
//   rms = sqrt( sum_d |z_d|^2 / n ),  n = the number of active entries, |z_d|^2 > 1e-12, at least 1
//   scale = 1 / (rms + eps),          out_d = scale gamma_d z_d
//
// The mean is taken as at least 1e-24, which keeps the square root differentiable for a row of zeros. Complex arrays
// are real blocks [..., 2].
#pragma once

#include "sem/types.hpp"

namespace sem {

inline constexpr double kActivePower = 1e-12;
inline constexpr double kLeastMeanPower = 1e-24;

template <class Real>
struct ComplexRmsNormForward {
  static constexpr const char* kName = "complex_rms_norm_forward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  Real eps = 0;
  const Real* z = nullptr;      // [rows, width, 2]
  const Real* gamma = nullptr;  // [width]
  Real* out = nullptr;          // [rows, width, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("eps", eps);
    field("z", z, rows * width * 2);
    field("gamma", gamma, width);
    field("out", out, rows * width * 2);
  }
};

// With g the gradient to out and slope = scale^2 / (n rms), zero where the mean is below its least value:
//   g_z_d = scale gamma_d g_d - slope z_d sum_e gamma_e Re(conj(z_e) g_e),
//   g_gamma_d = sum over rows of scale Re(conj(z_d) g_d).
template <class Real>
struct ComplexRmsNormBackward {
  static constexpr const char* kName = "complex_rms_norm_backward";

  std::int64_t rows = 0;
  std::int64_t width = 0;
  Real eps = 0;
  const Real* z = nullptr;
  const Real* gamma = nullptr;
  const Real* grad_out = nullptr;  // [rows, width, 2]
  Real* grad_z = nullptr;
  Real* grad_gamma = nullptr;  // [width]

  template <class Visitor>
  void visit(Visitor& field) {
    field("rows", rows);
    field("width", width);
    field("eps", eps);
    field("z", z, rows * width * 2);
    field("gamma", gamma, width);
    field("grad_out", grad_out, rows * width * 2);
    field("grad_z", grad_z, rows * width * 2);
    field("grad_gamma", grad_gamma, width);
  }
};

}  // namespace sem
