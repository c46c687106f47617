// shift_ramp: a probe's spectrum with the phase ramp that moves the probe by a part of a pixel, for every pattern.
//
//   out_jm(q) = S_m(q) exp(-2 pi i (q . f_j)),    q = (q_y, q_x) the frequencies of an FFT of side N: k / N for k < (N
//   + 1) / 2, else k / N - 1
//
// With G the gradient to out:
//   g_S = sum over patterns of exp(2 pi i (q . f_j)) G_jm,
//   g_f_ja = 2 pi sum over modes and q of q_a Im(conj(G_jm) out_jm),   a = y, x.
//
// Every sum takes the patterns in order.
#pragma once

#include "sem/types.hpp"

namespace sem {

struct RampShape {
  std::int64_t patterns = 0;
  std::int64_t modes = 1;
  std::int64_t side = 1;

  std::int64_t spectrum() const { return modes * side * side * 2; }

  template <class Visitor>
  void visit(Visitor& field) {
    field("patterns", patterns);
    field("modes", modes);
    field("side", side);
  }
};

template <class Real>
struct ShiftRampForward {
  static constexpr const char* kName = "shift_ramp_forward";

  RampShape shape;
  const Real* spectrum = nullptr;  // [modes, side, side, 2]
  const Real* shift = nullptr;     // f [patterns, 2]
  Real* out = nullptr;             // [patterns, modes, side, side, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    shape.visit(field);
    field("spectrum", spectrum, shape.spectrum());
    field("shift", shift, shape.patterns * 2);
    field("out", out, shape.patterns * shape.spectrum());
  }
};

template <class Real>
struct ShiftRampBackward {
  static constexpr const char* kName = "shift_ramp_backward";

  RampShape shape;
  bool onto = false;               // add to what to_spectrum holds
  const Real* spectrum = nullptr;  // [modes, side, side, 2]
  const Real* shift = nullptr;     // [patterns, 2]
  const Real* grad_out = nullptr;  // G [patterns, modes, side, side, 2]
  Real* to_spectrum = nullptr;     // [modes, side, side, 2]
  Real* to_shift = nullptr;        // [patterns, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    shape.visit(field);
    field("onto", onto);
    field("spectrum", spectrum, shape.spectrum());
    field("shift", shift, shape.patterns * 2);
    field("grad_out", grad_out, shape.patterns * shape.spectrum());
    field("to_spectrum", to_spectrum, shape.spectrum());
    field("to_shift", to_shift, shape.patterns * 2);
  }
};

}  // namespace sem
