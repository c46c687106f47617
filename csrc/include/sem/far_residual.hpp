// far_residual: how far waves on a detector are from what it counted, and the way back, in one pass over the waves.
//
// With n = X^2 counts, a weight w >= 0 per pixel and, for every pattern,
//   I = sum over modes of |Psi_m|^2 + b,    A = sqrt(I),    s = dL/dI,    out_m = 2 s Psi_m:
//
//   kind            L, summed over pixels                s
//   amplitude       w (A - X)^2 / 2                      w (A - X) / (2 A), 0 where A = 0
//   poisson         w (I - n + n log(n / I))             w (1 - n / I), w where n = 0
//   intensity       w (I - n)^2 / 2                      w (I - n)
//   amplitude_mae   w |A - X| / scale                    w sign(A - X) / (2 A scale), 0 where A = 0
//   projection      that of amplitude                    out_m = Psi_m X / A where w > 0 and A > 0, else Psi_m
//
// misfit = sum w |A - X| / sum w X. A pattern that holds NaN or Inf, in its waves or where w > 0 in its data, or whose
// weight does, has no loss and no gradient (its projection is the waves themselves); neither has one without a pixel of
// w > 0. A poisson loss is infinite where I = 0 and n > 0, and that pixel has no gradient.
#pragma once

#include "sem/types.hpp"

namespace sem {

enum class ResidualKind : std::int32_t { amplitude = 0, poisson = 1, intensity = 2, amplitude_mae = 3, projection = 4 };

// Part of the Python interface (sem.ops.PatternStatus). Of several that hold, the first in the order nonfinite, masked,
// infinite, dark.
enum class PatternStatus : std::int8_t { ok = 0, nonfinite = 1, dark = 2, masked = 3, infinite = 4 };

template <class Real>
struct FarResidual {
  static constexpr const char* kName = "far_residual";

  std::int64_t patterns = 0;
  std::int64_t modes = 1;
  std::int64_t frame = 1;            // pixels
  std::int64_t weights = 0;          // 0: all weights are 1; 1: the patterns share them; else as many as patterns
  std::int32_t kind = 0;             // ResidualKind
  bool onto = false;                 // add to what to_background holds
  Real scale = 1;                    // of amplitude_mae
  const Real* psi = nullptr;         // [patterns, modes, frame, 2]
  const Real* data = nullptr;        // X >= 0 [patterns, frame]
  const Real* weight = nullptr;      // [weights, frame], or null
  const Real* background = nullptr;  // b >= 0 [frame], or null: 0
  Real* out = nullptr;               // [patterns, modes, frame, 2], may be psi
  Real* loss = nullptr;              // [patterns]
  Real* misfit = nullptr;            // [patterns]
  std::int8_t* status = nullptr;     // [patterns]
  Real* to_background = nullptr;     // sum over patterns of s [frame], or null: not wanted

  template <class Visitor>
  void visit(Visitor& field) {
    field("patterns", patterns);
    field("modes", modes);
    field("frame", frame);
    field("weights", weights);
    field("kind", kind);
    field("onto", onto);
    field("scale", scale);
    field("psi", psi, patterns * modes * frame * 2);
    field("data", data, patterns * frame);
    field.optional("weight", weight, weights * frame);
    field.optional("background", background, frame);
    field("out", out, patterns * modes * frame * 2);
    field("loss", loss, patterns);
    field("misfit", misfit, patterns);
    field("status", status, patterns);
    field.optional("to_background", to_background, frame);
  }

  const Real* weight_of(std::int64_t j) const {
    return weight == nullptr ? nullptr : weight + (weights == 1 ? 0 : j) * frame;
  }
};

}  // namespace sem
