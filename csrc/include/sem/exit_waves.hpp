// exit_waves: what a probe leaves of itself behind a patch of the object, for every position of a scan, and the
// adjoint, which adds overlapping patches up.
//
//   psi_jm(y, x) = P_jm(y, x) O(corner_j + (y, x))
//
// With chi the gradient to psi (d/dRe + i d/dIm):
//   g_O(r) = sum over patterns and modes of conj(P_jm(r - corner_j)) chi_jm(r - corner_j),
//   g_P    = sum over patterns of conj(O[patch]) chi_jm, or each pattern's own where each has a probe of its own,
//   illumination(r) = sum over patterns and modes of |P_jm(r - corner_j)|^2,    exposure = sum over patterns of
//   |O[patch]|^2.
//
// Every sum takes the patterns in order. Complex arrays are real blocks [..., 2]. Patches lie inside the object.
#pragma once

#include "sem/types.hpp"

namespace sem {

struct PatchShape {
  std::int64_t patterns = 0;
  std::int64_t probes = 1;  // 1: the patterns share one; else as many as patterns
  std::int64_t modes = 1;
  std::int64_t side = 1;  // N
  std::int64_t height = 1;
  std::int64_t width = 1;

  std::int64_t object() const { return height * width; }
  std::int64_t frame() const { return side * side; }
  std::int64_t probe() const { return probes * modes * frame(); }
  std::int64_t waves() const { return patterns * modes * frame(); }

  template <class Visitor>
  void visit(Visitor& field) {
    field("patterns", patterns);
    field("probes", probes);
    field("modes", modes);
    field("side", side);
    field("height", height);
    field("width", width);
  }
};

template <class Real>
struct ExitWavesForward {
  static constexpr const char* kName = "exit_waves_forward";

  PatchShape shape;
  const std::int32_t* corner = nullptr;  // [patterns, 2]: row and column
  const Real* object = nullptr;          // [height, width, 2]
  const Real* probe = nullptr;           // [probes, modes, side, side, 2]
  Real* waves = nullptr;                 // [patterns, modes, side, side, 2]

  template <class Visitor>
  void visit(Visitor& field) {
    shape.visit(field);
    field("corner", corner, shape.patterns * 2);
    field("object", object, shape.object() * 2);
    field("probe", probe, shape.probe() * 2);
    field("waves", waves, shape.waves() * 2);
  }
};

template <class Real>
struct OverlapAdd {
  static constexpr const char* kName = "overlap_add";

  PatchShape shape;
  bool onto = false;                     // add to what the outputs hold
  const std::int32_t* corner = nullptr;  // [patterns, 2]
  const Real* waves = nullptr;           // chi [patterns, modes, side, side, 2]
  const Real* object = nullptr;          // [height, width, 2]
  const Real* probe = nullptr;           // [probes, modes, side, side, 2]
  Real* to_object = nullptr;             // [height, width, 2], or null: not wanted
  Real* to_probe = nullptr;              // [probes, modes, side, side, 2], or null
  Real* illumination = nullptr;          // [height, width], or null
  Real* exposure = nullptr;              // [side, side], or null

  template <class Visitor>
  void visit(Visitor& field) {
    shape.visit(field);
    field("onto", onto);
    field("corner", corner, shape.patterns * 2);
    field("waves", waves, shape.waves() * 2);
    field("object", object, shape.object() * 2);
    field("probe", probe, shape.probe() * 2);
    field.optional("to_object", to_object, shape.object() * 2);
    field.optional("to_probe", to_probe, shape.probe() * 2);
    field.optional("illumination", illumination, shape.object());
    field.optional("exposure", exposure, shape.frame());
  }
};

}  // namespace sem
