// The interference function L = F_latt^2 of a block of cells, and its derivatives: csrc/cpu/diffraction/lattice.hpp,
// one pixel at a time.
#pragma once

#include "device/diffraction/plan.hpp"

namespace sem::device {

// Miller indices of a pixel: the nearest whole ones and what is left.
struct DiffractionIndices {
  float whole[3];
  TwoFloat rest[3];
};

// sin(pi sqrt z) / (pi sqrt z) - 1 for z <= 1/4: error 5e-9.
SEM_DEVICE float sine_remainder(float z) {
  float p = 0.02468823795f;
  p = p * z - 0.19042638317f;
  p = p * z + 0.81171240435f;
  return (p * z - 1.6449330816f) * z;
}

// C of pi cot(pi x) = 1 / x - x C(x^2) for x^2 = z <= 1/4: relative error 1.3e-8.
SEM_DEVICE float cotangent_remainder(float z) {
  float p = 5.29731796726f;
  p = p * z + 0.64736581322f;
  p = p * z + 2.25361303028f;
  p = p * z + 1.98497190171f;
  p = p * z + 2.03568481909f;
  p = p * z + 2.1646305122f;
  return p * z + 3.28986817499f;
}

// L and dL by the distances to the nearest index, N, fudge and the metric (DiffractionCommon's six, in gauss alone).
struct LatticeSlopes {
  float value;
  float by_delta[3], by_cells[3], by_fudge, by_metric[6];
};

template <DomainShape kShape>
struct DiffractionLattice;

template <>
struct DiffractionLattice<DomainShape::square> {
  SEM_DEVICE explicit DiffractionLattice(const DiffractionCommon& common) {
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const bool skipped = !(common.cells[a].high + common.cells[a].low > 1.0f);
      cells_[a] = skipped ? TwoFloat{1.0f, 0.0f} : common.cells[a];
      twice_[a] = skipped ? 0.0f : 2.0f;
    }
  }

  SEM_DEVICE float value(const DiffractionIndices& h) const {
    Ratio axes[3];
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) axes[a] = ratio(h, a, turn(h, a));
    return (axes[0] * (axes[1] * axes[2])).square();
  }

  SEM_DEVICE void slopes(const DiffractionIndices& h, LatticeSlopes& out) const {
    Ratio axes[3];
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const float cells = cells_[a].high, d = h.rest[a].high, u = turn(h, a), scaled = d * cells;
      axes[a] = ratio(h, a, u);
      const bool near = abs(scaled) < 0.5f;
      std::int32_t unused;
      const float n = round_to_int(scaled - u, unused), pole = 1.0f / (away_from_zero(u) * d);
      const float uc = u * cotangent_remainder(u * u), dc = d * cotangent_remainder(d * d);
      out.by_delta[a] = twice_[a] * ((near ? 0.0f : n * pole) - (cells * uc - dc));
      out.by_cells[a] = twice_[a] * ((near ? 1.0f / cells : d * d * pole) - d * uc);
    }
    out.value = (axes[0] * (axes[1] * axes[2])).square();
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      out.by_delta[a] *= out.value;
      out.by_cells[a] *= out.value;
    }
    out.by_fudge = 0.0f;
  }

 private:
  // sin(pi u) / sin(pi delta), or a product of such: outer / inner, which is u / delta or just N where u = N delta,
  // times (1 + top) / (1 + bottom). The ones are kept apart, so that near a Bragg spot the product is rounded once.
  // Products do not depend on the order of two factors, so that pixels that mirror each other have one value.
  struct Ratio {
    float outer, inner, top, bottom;

    SEM_DEVICE Ratio operator*(const Ratio& other) const {
      return {outer * other.outer, inner * other.inner, fma(top, other.top, top + other.top),
              fma(bottom, other.bottom, bottom + other.bottom)};
    }
    SEM_DEVICE float square() const {
      const float whole = outer / inner, excess = (top - bottom) / (bottom + 1.0f);
      return (whole * whole) * (excess * (excess + 2.0f) + 1.0f);
    }
  };
  SEM_DEVICE Ratio ratio(const DiffractionIndices& h, int a, float u) const {
    const float d = h.rest[a].high, cells = cells_[a].high;
    const bool near = abs(d * cells) < 0.5f;
    return {near ? cells : u, near ? 1.0f : d, sine_remainder(u * u), sine_remainder(d * d)};
  }

  // u = N delta less its nearest whole number.
  SEM_DEVICE float turn(const DiffractionIndices& h, int a) const {
    const TwoFloat scaled = cells_[a] * h.rest[a];
    std::int32_t unused;
    return (scaled.high - round_to_int(scaled.high, unused)) + scaled.low;
  }
  static SEM_DEVICE float away_from_zero(float x) {
    constexpr float kSmall = 1e-12f;
    return abs(x) < kSmall ? (x < 0.0f ? -kSmall : kSmall) : x;
  }

  // 1 for an axis that is skipped: its numerator is its denominator then, and nothing has to branch.
  TwoFloat cells_[3];
  float twice_[3];  // of an axis' derivatives: 2, or 0 where it is skipped
};

template <>
struct DiffractionLattice<DomainShape::round> {
  SEM_DEVICE explicit DiffractionLattice(const DiffractionCommon& common)
      : common_(common), height_(static_cast<float>(kRoundHeight) * common.volume) {}

  SEM_DEVICE float value(const DiffractionIndices& h) const {
    float s, unused, y;
    sphere(h, s, unused, y);
    return (height_ * s) * (height_ * s);
  }

  SEM_DEVICE void slopes(const DiffractionIndices& h, LatticeSlopes& out) const {
    float s, by_y, y, sum = 0.0f;
    sphere(h, s, by_y, y);
    const float fudge = common_.fudge.high;
    out.value = (height_ * s) * (height_ * s);
    const float slope = (2.0f * height_ * height_) * s * by_y;  // dL/dy
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const float cells = common_.cells[a].high, delta = h.rest[a].high, scaled = cells * delta;
      const float common = slope * scaled * (2.0f * kPiSquared * fudge);
      sum += scaled * scaled;
      out.by_delta[a] = common * cells;
      out.by_cells[a] = common * delta + out.value * (2.0f / cells);
    }
    out.by_fudge = slope * sum * kPiSquared;
  }

 private:
  static constexpr float kPi = 3.14159265359f, kPiSquared = 9.8696044011f;

  // s(y) = 3 (sin x / x - cos x) / x^2 of y = x^2, and its derivative.
  SEM_DEVICE void sphere(const DiffractionIndices& h, float& s, float& by_y, float& y) const {
    TwoFloat sum{};
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const TwoFloat scaled = common_.cells[a] * h.rest[a];
      sum = sum + scaled * scaled;
    }
    const TwoFloat angle = sqrt(common_.fudge * sum);  // x / pi
    y = angle.high * angle.high * kPiSquared;
    if (y < 2.0f) {  // a power series, where sine and cosine would cancel
      // (-1)^k 6 (k + 1) / (2k + 3)!
      constexpr float kTerms[] = {1.0f,
                                  -0.1f,
                                  1.0f / 280.0f,
                                  -1.0f / 15120.0f,
                                  1.0f / 1330560.0f,
                                  -1.0f / 172972800.0f,
                                  1.0f / 31135104000.0f,
                                  -1.0f / 7410154752000.0f,
                                  1.0f / 2252687044608000.0f};
      s = kTerms[8];
      by_y = 8.0f * kTerms[8];
      SEM_UNROLL
      for (int k = 7; k >= 0; --k) {
        s = s * y + kTerms[k];
        if (k > 0) by_y = by_y * y + kTerms[k] * static_cast<float>(k);
      }
      return;
    }
    std::int32_t unused;
    const float turns = round_to_int(angle.high * 0.5f, unused);
    const float reduced = (angle.high - 2.0f * turns) + angle.low;
    float sine, cosine;
    sincos(reduced * kPi, sine, cosine);
    const float x = angle.high * kPi, inverse = 1.0f / (x * x), ratio = sine / x;
    s = 3.0f * (ratio - cosine) * inverse;
    by_y = 1.5f * (ratio - s) * inverse;
  }

  const DiffractionCommon& common_;
  float height_;
};

// gauss and tophat: by the distance in reciprocal space.
template <DomainShape kShape>
struct DiffractionLattice {
  SEM_DEVICE explicit DiffractionLattice(const DiffractionCommon& common)
      : common_(common), height_(common.square_volume.high) {}

  SEM_DEVICE float value(const DiffractionIndices& h) const { return of(distance(h) * common_.fudge.high); }

  SEM_DEVICE void slopes(const DiffractionIndices& h, LatticeSlopes& out) const {
    constexpr float kRate = static_cast<float>(-2 / kGaussWidth);
    const float fudge = common_.fudge.high, scaled = distance(h), x = scaled * fudge;
    out.value = of(x);
    const float slope = out.value * (kRate * fudge * height_);  // by delta.G.delta
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const float inverse = 1.0f / common_.cells[a].high;
      if constexpr (kShape == DomainShape::tophat) {
        out.by_delta[a] = 0.0f;
        out.by_cells[a] = out.value * (2.0f * inverse);
      } else {
        const int b = a == 0 ? 1 : 0, c = a == 2 ? 1 : 2;  // the other two
        const float own = h.rest[a].high;
        const float row = 2.0f * own * common_.metric[a].high + h.rest[b].high * common_.metric[2 + a + b].high +
                          h.rest[c].high * common_.metric[2 + a + c].high;
        out.by_delta[a] = slope * row;
        out.by_cells[a] = out.value * (1.0f + kRate * x) * (2.0f * inverse);
        out.by_metric[a] = slope * own * own;
        out.by_metric[3 + a] = slope * h.rest[a == 2 ? 1 : 0].high * h.rest[a == 0 ? 1 : 2].high;
      }
    }
    out.by_fudge = kShape == DomainShape::gauss ? out.value * scaled * kRate : 0.0f;
  }

 private:
  // |delta in reciprocal Angstroms|^2 (Na Nb Nc)^2
  SEM_DEVICE float distance(const DiffractionIndices& h) const {
    const TwoFloat a = h.rest[0], b = h.rest[1], c = h.rest[2];
    const TwoFloat(&metric)[6] = common_.metric;
    const TwoFloat sum =
        a * (metric[0] * a + metric[3] * b + metric[4] * c) + b * (metric[1] * b + metric[5] * c) + c * (metric[2] * c);
    return (sum * common_.square_volume).high;
  }
  SEM_DEVICE float of(float x) const {
    if constexpr (kShape == DomainShape::tophat) {
      return x < static_cast<float>(kTophatEdge) ? height_ : x - x;  // 0 but where x is NaN
    } else {
      return height_ * exp(x * static_cast<float>(-2 / kGaussWidth));
    }
  }

  const DiffractionCommon& common_;
  float height_;
};

}  // namespace sem::device
