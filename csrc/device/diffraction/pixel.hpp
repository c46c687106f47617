// Where a pixel is, its Miller indices, and the factors its intensity is multiplied by.
#pragma once

#include "device/diffraction/lattice.hpp"

namespace sem::device {

// Layer and subpixel.
struct DiffractionPlace {
  std::int32_t layer, sub_slow, sub_fast;
};

struct DiffractionPosition {
  float f, s, o;          // along the detector's axes
  TwoFloat flat[3];       // before bending
  TwoFloat direction[3];  // p / |p|
  TwoFloat inverse_r;     // 1 / |p|
  float d[3];
};

// v turned about a unit axis (Rodrigues).
SEM_DEVICE void turned(const TwoFloat (&v)[3], const TwoFloat (&axis)[3], TwoFloat angle, TwoFloat (&out)[3]) {
  TwoFloat sine, cosine;
  sincos(angle, sine, cosine);
  const TwoFloat along = (-cosine + 1.0f) * dot(axis, v);
  for (int i = 0; i < 3; ++i) {
    const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
    out[i] = cosine * v[i] + sine * (axis[j] * v[k] - axis[k] * v[j]) + along * axis[i];
  }
}

// kPlain: DiffractionTask::plain().
template <bool kPlain>
class DiffractionPixel {
 public:
  SEM_DEVICE DiffractionPixel(const DiffractionTask& task, const DiffractionTables& tables)
      : task_(task), common_(*tables.common), sources_(tables.sources), steps_(tables.steps) {}

  SEM_DEVICE bool exact() const { return !kPlain && task_.exact; }
  SEM_DEVICE bool curved() const { return !kPlain && task_.curved; }
  SEM_DEVICE bool absorbs() const { return !kPlain && task_.thickness != 0.0f; }
  SEM_DEVICE const DiffractionSource& source(std::int64_t s) const { return sources_[s]; }
  SEM_DEVICE const DiffractionStep& step(std::int64_t s, std::int64_t o) const {
    return steps_[s * task_.orientations + o];
  }
  // Which orientation step number `o` of a source uses; `fresh` for the first source of the first pixel's first place.
  SEM_DEVICE std::int64_t orientation_of(std::int64_t o, bool fresh) const {
    return task_.phi_carryover && !fresh && o < task_.mosaics ? o + task_.orientations - task_.mosaics : o;
  }

  // Layers and subpixels in the order of the sums; as one loop, so that threads stay together.
  SEM_DEVICE std::int32_t places() const { return task_.layers * task_.oversample * task_.oversample; }
  // In mode nanobragg: the first subpixel of the last layer.
  SEM_DEVICE std::int32_t capturing_place() const { return (task_.layers - 1) * task_.oversample * task_.oversample; }
  SEM_DEVICE DiffractionPlace place(std::int32_t number) const {
    const std::int32_t rows = number / task_.oversample;
    return {rows / task_.oversample, rows % task_.oversample, number % task_.oversample};
  }

  SEM_DEVICE void locate(std::int64_t slow, std::int64_t fast, const DiffractionPlace& at,
                         DiffractionPosition& out) const {
    const TwoFloat f = coordinate(fast, at.sub_fast), s = coordinate(slow, at.sub_slow);
    const TwoFloat o = static_cast<float>(at.layer) * task_.layer_step;
    out.f = f.high;
    out.s = s.high;
    out.o = o.high;
    TwoFloat p[3];
    SEM_UNROLL
    for (int i = 0; i < 3; ++i) {
      TwoFloat start = common_.axes[0][i];
      if (at.layer > 0) start = o * common_.axes[3][i] + start;
      p[i] = f * common_.axes[1][i] + (s * common_.axes[2][i] + start);
    }
    if (curved()) {
      for (int i = 0; i < 3; ++i) out.flat[i] = p[i];
      bend(out.flat, p);
    }
    out.inverse_r = inverse_sqrt(dot(p, p));
    SEM_UNROLL
    for (int i = 0; i < 3; ++i) {
      out.direction[i] = p[i] * out.inverse_r;
      out.d[i] = out.direction[i].high;
    }
  }

  // d - incident.
  SEM_DEVICE void scattering(const DiffractionPosition& at, const DiffractionSource& source, TwoFloat (&x)[3]) const {
    SEM_UNROLL
    for (int i = 0; i < 3; ++i) x[i] = at.direction[i] - source.incident[i];
  }

  SEM_DEVICE DiffractionIndices indices(const DiffractionStep& step, const TwoFloat (&x)[3]) const {
    DiffractionIndices h;
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) h.whole[a] = nearest_whole(dot(step.axes[a], x), h.rest[a]);
    return h;
  }

  // Where the spacing of a reflection is at least d_min.
  SEM_DEVICE bool resolved(const DiffractionSource& source, const TwoFloat (&x)[3]) const {
    if (kPlain || task_.resolution == 0.0f) return true;
    return square_of(x) <= source.largest_square;
  }

  // Rounded once, at the end: three rounded factors would cover a spot's flat top with steps that are not there.
  SEM_DEVICE TwoFloat solid_angle(const DiffractionPosition& at) const {
    const TwoFloat square = at.inverse_r * at.inverse_r;
    return task_.point_pixel ? square : common_.pixel_close * at.inverse_r * square;
  }

  SEM_DEVICE TwoFloat polarisation(const DiffractionPosition& at, const DiffractionSource& source) const {
    if (!task_.polarised) return {1.0f, 0.0f};
    const TwoFloat c = dot(at.direction, source.incident);
    TwoFloat sum = c * c + 1.0f;
    if (common_.kahn != 0.0f) {
      float e, b;
      across_beam(at, source, e, b);
      sum = sum + -common_.kahn * (e * e - b * b);
    }
    return {0.5f * sum.high, 0.5f * sum.low};
  }

  SEM_DEVICE float capture(const DiffractionPosition& at, std::int32_t layer) const {
    if (!absorbs()) return 1.0f;
    const float path = task_.thickness / cosine(at);
    return exp(path * static_cast<float>(-layer)) * stopped(path);
  }

  // What a gradient g to the factors' logarithms gives.
  SEM_DEVICE void solid_angle_gradient(const DiffractionPosition& at, float g, float (&by_p)[3], float& close) const {
    const float radial = g * at.inverse_r.high * (task_.point_pixel ? -2.0f : -3.0f);
    for (int i = 0; i < 3; ++i) by_p[i] += radial * at.d[i];
    if (!task_.point_pixel) close += g;
  }

  SEM_DEVICE void capture_gradient(const DiffractionPosition& at, std::int32_t layer, float g, float (&by_d)[3],
                                   float* normal) const {
    const float rho = cosine(at), path = task_.thickness / rho;
    const float by_rho = g * (static_cast<float>(layer) - exp(-path) / stopped(path)) * path / rho;
    for (int i = 0; i < 3; ++i) {
      by_d[i] += by_rho * common_.axes[3][i].high;
      normal[i] += by_rho * at.d[i];
    }
  }

  // `moments`: sums of g / polarisation times cc, ee, bb, ce, cb, eb, from which the frame's gradients follow.
  SEM_DEVICE void polarisation_gradient(const DiffractionPosition& at, const DiffractionSource& source, float g,
                                        float (&by_d)[3], float* moments) const {
    float e, b;
    across_beam(at, source, e, b);
    const float own = g / polarisation(at, source).high, c = dot(at.direction, source.incident).high;
    for (int i = 0; i < 3; ++i)
      by_d[i] += own * (c * source.incident[i].high - (common_.kahn * e) * source.along[i] +
                        (common_.kahn * b) * source.across[i]);
    moments[0] += own * c * c;
    moments[1] += own * e * e;
    moments[2] += own * b * b;
    moments[3] += own * c * e;
    moments[4] += own * c * b;
    moments[5] += own * e * b;
  }

 private:
  static SEM_DEVICE float square_of(const TwoFloat (&x)[3]) {
    return x[0].high * x[0].high + x[1].high * x[1].high + x[2].high * x[2].high;
  }
  SEM_DEVICE TwoFloat coordinate(std::int64_t pixel, std::int32_t sub) const {
    return (static_cast<float>(pixel * task_.oversample + sub) + 0.5f) * task_.subpixel;
  }
  SEM_DEVICE void bend(const TwoFloat (&flat)[3], TwoFloat (&p)[3]) const {
    TwoFloat start[3], once[3];
    for (int i = 0; i < 3; ++i) start[i] = common_.distance * common_.beam[i];
    turned(start, common_.axes[2], flat[1] * common_.inverse_distance, once);
    turned(once, common_.axes[1], flat[2] * common_.inverse_distance, p);
  }
  // d . E and d . B, without the cancellation of d's part along the beam in float.
  SEM_DEVICE void across_beam(const DiffractionPosition& at, const DiffractionSource& source, float& e,
                              float& b) const {
    e = b = 0.0f;
    SEM_UNROLL
    for (int i = 0; i < 3; ++i) {
      const float x = (at.direction[i] - source.incident[i]).high;
      e += x * source.along[i];
      b += x * source.across[i];
    }
  }
  SEM_DEVICE float cosine(const DiffractionPosition& at) const {
    return at.d[0] * common_.axes[3][0].high + at.d[1] * common_.axes[3][1].high + at.d[2] * common_.axes[3][2].high;
  }
  // 1 - exp(-m), by series where the difference would cancel.
  static SEM_DEVICE float stopped(float m) {
    if (!(m < 0.5f)) return 1.0f - exp(-m);
    float p = 1.0f / 40320.0f;
    p = 1.0f / 5040.0f - p * m;
    p = 1.0f / 720.0f - p * m;
    p = 1.0f / 120.0f - p * m;
    p = 1.0f / 24.0f - p * m;
    p = 1.0f / 6.0f - p * m;
    p = 0.5f - p * m;
    return m * (1.0f - m * p);
  }

  const DiffractionTask& task_;
  const DiffractionCommon& common_;
  const DiffractionSource* sources_;
  const DiffractionStep* steps_;
};

}  // namespace sem::device
