// Solid angle, polarisation and capture of sixteen pixels: what a pixel's intensity is multiplied by. In double where
// that is cheap: three rounded factors would cover a spot's flat top with steps that are not there.
#pragma once

#include "cpu/diffraction/plan.hpp"

namespace sem::cpu::SEM_ISA {

class Factors {
 public:
  explicit Factors(const DiffractionPlan& plan)
      : plan_(plan),
        pixel_close_(plan.set.pixel_size * plan.set.pixel_size * plan.in.close_distance[0]),
        thickness_(static_cast<float>(plan.set.attenuation * plan.set.layer_step)),
        kahn_(static_cast<float>(plan.in.kahn[0])) {}

  bool captures_all() const { return thickness_ == 0; }

  SEM_INLINE vdouble solid_angle(const TilePosition& at) const {
    const vdouble square = at.inverse_r * at.inverse_r;
    return plan_.set.point_pixel ? square : pixel_close_ * at.inverse_r * square;
  }

  SEM_INLINE vfloat capture(const TilePosition& at, std::int32_t layer) const {
    if (captures_all()) return broadcast(1.0f);
    const vfloat path = thickness_ / cosine(at);
    return vexp(path * static_cast<float>(-layer)) * stopped(path);
  }

  // d - incident, without the cancellation of their difference in float.
  SEM_INLINE void scattering(const TilePosition& at, std::int64_t source, vfloat (&x)[3]) const {
    const Triple& incident = plan_.source(source).incident;
    for (int i = 0; i < 3; ++i) x[i] = to_float(at.p[i] * at.inverse_r - incident[i]);
  }

  template <bool kFlat = false>
  SEM_INLINE vdouble polarisation(const TilePosition& at, std::int64_t source) const {
    if (!plan_.set.polarised) return broadcast_double(1);
    const Triple& i = plan_.source(source).incident;
    vdouble c;
    if (!kFlat && plan_.set.curved)
      c = at.p[0] * i[0] + at.p[1] * i[1] + at.p[2] * i[2];
    else
      c = at.f * plan_.source(source).along_fast + dot(at.start, i);
    c *= at.inverse_r;
    vdouble sum = c * c + 1.0;
    if (kahn_ != 0) {
      vfloat x[3];
      scattering(at, source, x);
      const vfloat e = along(x, plan_.source(source).along), b = along(x, plan_.source(source).across);
      sum -= to_double(kahn_ * (e * e - b * b));
    }
    return 0.5 * sum;
  }

  // Where the spacing of a reflection is at least d_min.
  SEM_INLINE vint resolved(const TilePosition& at, std::int64_t source) const {
    if (!(plan_.set.d_min > 0)) return ~vint{};
    vfloat x[3];
    scattering(at, source, x);
    return x[0] * x[0] + x[1] * x[1] + x[2] * x[2] <= plan_.source(source).largest_square;
  }

  // What a gradient g to the factors' logarithms gives.
  SEM_INLINE void solid_angle_gradient(const TilePosition& at, vfloat g, vfloat (&by_p)[3], vfloat& close) const {
    const vfloat radial = g * at.inverse_r_float * (plan_.set.point_pixel ? -2.0f : -3.0f);
    for (int i = 0; i < 3; ++i) by_p[i] += radial * at.d[i];
    if (!plan_.set.point_pixel) close += g;
  }

  SEM_INLINE void capture_gradient(const TilePosition& at, std::int32_t layer, vfloat g, vfloat (&by_d)[3],
                                   vfloat (&normal)[3]) const {
    const vfloat rho = cosine(at), path = thickness_ / rho;
    const vfloat by_rho = g * (static_cast<float>(layer) - vexp(-path) / stopped(path)) * path / rho;
    for (int i = 0; i < 3; ++i) {
      by_d[i] += by_rho * static_cast<float>(plan_.axes[3][i]);
      normal[i] += by_rho * at.d[i];
    }
  }

  // `moments`: sums of g / polarisation times cc, ee, bb, ce, cb, eb, from which the frame's gradients follow.
  SEM_INLINE void polarisation_gradient(const TilePosition& at, std::int64_t source, vfloat g, vfloat (&by_d)[3],
                                        vfloat (&moments)[6]) const {
    const SourcePlan& beam = plan_.source(source);
    vfloat x[3];
    scattering(at, source, x);
    const vfloat own = g / to_float(polarisation(at, source)), c = along(at.d, beam.incident);
    const vfloat e = along(x, beam.along), b = along(x, beam.across);
    for (int i = 0; i < 3; ++i)
      by_d[i] += own * (c * static_cast<float>(beam.incident[i]) - (kahn_ * e) * static_cast<float>(beam.along[i]) +
                        (kahn_ * b) * static_cast<float>(beam.across[i]));
    moments[0] += own * c * c;
    moments[1] += own * e * e;
    moments[2] += own * b * b;
    moments[3] += own * c * e;
    moments[4] += own * c * b;
    moments[5] += own * e * b;
  }

 private:
  static SEM_INLINE vfloat along(const vfloat (&v)[3], const Triple& unit) {
    return v[0] * static_cast<float>(unit[0]) + v[1] * static_cast<float>(unit[1]) + v[2] * static_cast<float>(unit[2]);
  }
  SEM_INLINE vfloat cosine(const TilePosition& at) const { return along(at.d, plan_.axes[3]); }
  // 1 - exp(-m), by series where the difference would cancel.
  static SEM_INLINE vfloat stopped(vfloat m) {
    vfloat p = broadcast(1.0f / 40320.0f);
    constexpr float kTerms[] = {1.0f / 5040.0f, 1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f};
    for (const float term : kTerms) p = term - p * m;
    return select(m < 0.5f, m * (1.0f - m * p), 1.0f - vexp(-m));
  }

  const DiffractionPlan& plan_;
  double pixel_close_;
  float thickness_, kahn_;
};

}  // namespace sem::cpu::SEM_ISA
