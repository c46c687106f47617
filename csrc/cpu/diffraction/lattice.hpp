// The interference function L = F_latt^2 of a block of cells for sixteen pixels, and its derivatives.
#pragma once

#include "cpu/vector_math.hpp"
#include "cpu/wide.hpp"
#include "sem/diffraction.hpp"

namespace sem::cpu::SEM_ISA {

// sin(pi sqrt z) / (pi sqrt z) - 1 for z <= 1/4: error 5e-9 (weighted least squares toward the minimax).
SEM_INLINE vfloat sine_remainder(vfloat z) {
  vfloat p = broadcast(0.02468823795f);
  p = p * z - 0.19042638317f;
  p = p * z + 0.81171240435f;
  return (p * z - 1.6449330816f) * z;
}

// C of pi cot(pi x) = 1 / x - x C(x^2) for x^2 = z <= 1/4: relative error 1.3e-8, made the same way.
SEM_INLINE vfloat cotangent_remainder(vfloat z) {
  vfloat p = broadcast(5.29731796726f);
  p = p * z + 0.64736581322f;
  p = p * z + 2.25361303028f;
  p = p * z + 1.98497190171f;
  p = p * z + 2.03568481909f;
  p = p * z + 2.1646305122f;
  return p * z + 3.28986817499f;
}

struct BlockShape {
  double cells[3];
  double volume;  // Na Nb Nc
  double fudge;
  double metric[3][3];  // inverse square Angstroms
  bool skipped[3];      // axes with N <= 1

  explicit BlockShape(const DiffractionInputs<float>& in) {
    for (int a = 0; a < 3; ++a) {
      cells[a] = in.cells[a];
      skipped[a] = !(cells[a] > 1);
      for (int b = 0; b < 3; ++b) metric[a][b] = 1e-20 * in.reciprocal_metric[3 * a + b];
    }
    volume = cells[0] * cells[1] * cells[2];
    fudge = in.fudge[0];
  }
};

// L and dL by the distances to the nearest index, N, fudge and the metric (the last not for square and round).
struct LatticeSlopes {
  vfloat value;
  vfloat by_delta[3], by_cells[3], by_fudge, by_metric[3][3];
};

template <DomainShape kShape>
struct LatticeFactor;

template <>
struct LatticeFactor<DomainShape::square> {
  static constexpr DomainShape shape() { return DomainShape::square; }

  explicit LatticeFactor(const BlockShape& block, DomainShape = shape()) : block_(block) {
    for (int a = 0; a < 3; ++a) {
      wide_cells_[a] = block.skipped[a] ? 1 : block.cells[a];
      cells_[a] = static_cast<float>(wide_cells_[a]);
      twice_[a] = block.skipped[a] ? 0.0f : 2.0f;
    }
  }

  SEM_INLINE vfloat value(const vdouble (&wide)[3], const vfloat (&delta)[3]) const {
    Ratio axes[3];
#pragma GCC unroll 3
    for (int a = 0; a < 3; ++a) {
      const float cells = cells_[a];
      const vfloat u = turn(wide[a], a);
      axes[a] = Ratio(cells, vabs(delta[a] * cells) < 0.5f, u, u * u, delta[a], delta[a] * delta[a]);
    }
    return (axes[0] * (axes[1] * axes[2])).square();
  }

  // One axis of F_latt but for its sign.
  SEM_INLINE vfloat axis(int a, vdouble wide, vfloat delta) const {
    if (block_.skipped[a]) return broadcast(1.0f);
    const float cells = cells_[a];
    const vfloat u = turn(wide, a);
    return vabs(Ratio(cells, vabs(delta * cells) < 0.5f, u, u * u, delta, delta * delta).amplitude());
  }

  SEM_INLINE void slopes(const vdouble (&wide)[3], const vfloat (&delta)[3], LatticeSlopes& out) const {
    Ratio axes[3];
#pragma GCC unroll 3
    for (int a = 0; a < 3; ++a) {
      const float cells = cells_[a];
      const vfloat d = delta[a], u = turn(wide[a], a), scaled = d * cells, uu = u * u, dd = d * d;
      const auto near = vabs(scaled) < 0.5f;
      axes[a] = Ratio(cells, near, u, uu, d, dd);
      vint unused;
      const vfloat n = round_to_int(scaled - u, unused), pole = 1.0f / (away_from_zero(u) * d);
      const vfloat uc = u * cotangent_remainder(uu), dc = d * cotangent_remainder(dd);
      out.by_delta[a] = twice_[a] * (select(near, vfloat{}, n * pole) - (cells * uc - dc));
      out.by_cells[a] = twice_[a] * (select(near, broadcast(1.0f / cells), dd * pole) - d * uc);
    }
    out.value = (axes[0] * (axes[1] * axes[2])).square();
    for (int a = 0; a < 3; ++a) {
      out.by_delta[a] *= out.value;
      out.by_cells[a] *= out.value;
    }
    out.by_fudge = vfloat{};
  }

 private:
  // sin(pi u) / sin(pi delta), or a product of such: outer / inner, which is u / delta or just N where u = N delta,
  // times (1 + top) / (1 + bottom). The ones are kept apart, so that near a Bragg spot the product is rounded once.
  // Products do not depend on the order of two factors, so that pixels that mirror each other have one value.
  struct Ratio {
    vfloat outer, inner, top, bottom;

    Ratio() = default;
    template <class Mask>
    SEM_INLINE Ratio(float cells, Mask near, vfloat u, vfloat uu, vfloat d, vfloat dd)
        : outer(select(near, broadcast(cells), u)),
          inner(select(near, broadcast(1.0f), d)),
          top(sine_remainder(uu)),
          bottom(sine_remainder(dd)) {}

    SEM_INLINE Ratio operator*(const Ratio& other) const {
      Ratio out;
      out.outer = outer * other.outer;
      out.inner = inner * other.inner;
      out.top = (top + other.top) + top * other.top;
      out.bottom = (bottom + other.bottom) + bottom * other.bottom;
      return out;
    }
    SEM_INLINE vfloat amplitude() const { return (outer / inner) * ((top - bottom) / (bottom + 1.0f) + 1.0f); }
    SEM_INLINE vfloat square() const {
      const vfloat whole = outer / inner, excess = (top - bottom) / (bottom + 1.0f);
      return (whole * whole) * (excess * (excess + 2.0f) + 1.0f);
    }
  };

  // u = N delta less its nearest whole number; in double, because N times the rounding of delta would be lost.
  SEM_INLINE vfloat turn(vdouble delta, int a) const {
    const vdouble scaled = delta * wide_cells_[a];
    return to_float(scaled - nearest_whole(scaled));
  }
  static SEM_INLINE vfloat away_from_zero(vfloat x) {
    constexpr float kSmall = 1e-12f;
    vfloat size = vabs(x);
    size = select(size < kSmall, broadcast(kSmall), size);
    return as_float(as_int(size) | (as_int(x) & static_cast<std::int32_t>(0x80000000)));
  }

  const BlockShape& block_;
  // 1 for an axis that is skipped: its numerator is its denominator then, and nothing has to branch.
  double wide_cells_[3];
  float cells_[3];
  float twice_[3];  // of an axis' derivatives: 2, or 0 where it is skipped
};

// s(y) = 3 (sin x / x - cos x) / x^2 of y = x^2, as a power series.
struct SphereSeries {
  static constexpr int kCount = 9;
  float term[kCount];  // (-1)^k 6 (k + 1) / (2k + 3)!
  constexpr SphereSeries() : term() {
    double factorial = 1;
    for (int k = 0; k < kCount; ++k) {
      factorial *= (2 * k + 2) * (2 * k + 3);
      term[k] = static_cast<float>((k % 2 == 0 ? 6.0 : -6.0) * (k + 1) / factorial);
    }
  }
};
inline constexpr SphereSeries kSphereSeries{};

template <>
struct LatticeFactor<DomainShape::round> {
  static constexpr DomainShape shape() { return DomainShape::round; }

  explicit LatticeFactor(const BlockShape& block, DomainShape = shape())
      : block_(block), height_(static_cast<float>(kRoundHeight * block.volume)) {}

  SEM_INLINE vfloat value(const vdouble (&wide)[3], const vfloat (&)[3]) const {
    vfloat s, unused, y;
    sphere(wide, s, unused, y);
    return (height_ * s) * (height_ * s);
  }

  SEM_INLINE void slopes(const vdouble (&wide)[3], const vfloat (&delta)[3], LatticeSlopes& out) const {
    vfloat s, by_y, y;
    sphere(wide, s, by_y, y);
    const float fudge = static_cast<float>(block_.fudge);
    out.value = (height_ * s) * (height_ * s);
    const vfloat slope = (2 * height_ * height_) * s * by_y;  // dL/dy
    vfloat sum{};
    for (int a = 0; a < 3; ++a) {
      const float cells = static_cast<float>(block_.cells[a]);
      const vfloat scaled = cells * delta[a];
      const vfloat common = slope * scaled * (2 * kPiSquared * fudge);
      sum += scaled * scaled;
      out.by_delta[a] = common * cells;
      out.by_cells[a] = common * delta[a] + out.value * (2 / cells);
    }
    out.by_fudge = slope * sum * kPiSquared;
  }

 private:
  static constexpr float kPiSquared = 9.8696044011f;

  // s(y) and its derivative; the argument of the sine is reduced in double.
  SEM_INLINE void sphere(const vdouble (&wide)[3], vfloat& s, vfloat& by_y, vfloat& y) const {
    vdouble sum{};
    for (int a = 0; a < 3; ++a) sum += (block_.cells[a] * wide[a]) * (block_.cells[a] * wide[a]);
    sum *= block_.fudge;  // (x / pi)^2
    const vfloat turns = to_float(sum);
    y = turns * kPiSquared;
    // x / pi in double by one Newton step, modulo 2
    const vfloat rough = vsqrt(turns + 1e-30f);
    const vdouble estimate = to_double(rough);
    const vdouble angle = estimate + (sum - estimate * estimate) * to_double(0.5f / rough);
    const vfloat reduced = to_float(angle - 2.0 * nearest_whole(angle * 0.5));
    vfloat sine, cosine;
    vsincos(reduced * 3.14159265359f, sine, cosine);
    const vfloat x = rough * 3.14159265359f, inverse = 1.0f / (x * x), ratio = sine / x;
    const vfloat far = 3.0f * (ratio - cosine) * inverse;
    // series in y where sine and cosine would cancel
    vfloat p{}, q{};
    for (int k = SphereSeries::kCount - 1; k >= 0; --k) p = p * y + kSphereSeries.term[k];
    for (int k = SphereSeries::kCount - 1; k >= 1; --k) q = q * y + kSphereSeries.term[k] * static_cast<float>(k);
    const auto near = y < 2.0f;
    s = select(near, p, far);
    by_y = select(near, q, 1.5f * (ratio - far) * inverse);
  }

  const BlockShape& block_;
  float height_;
};

// gauss and tophat: by the distance in reciprocal space.
template <DomainShape kShape>
struct LatticeFactor {
  static constexpr DomainShape shape() { return kShape; }

  explicit LatticeFactor(const BlockShape& block, DomainShape = shape())
      : block_(block), height_(static_cast<float>(block.volume * block.volume)), square_(block.volume * block.volume) {}

  SEM_INLINE vfloat value(const vdouble (&wide)[3], const vfloat (&)[3]) const {
    return of(distance(wide) * static_cast<float>(block_.fudge));
  }

  SEM_INLINE void slopes(const vdouble (&wide)[3], const vfloat (&delta)[3], LatticeSlopes& out) const {
    const float fudge = static_cast<float>(block_.fudge);
    const vfloat scaled = distance(wide), x = scaled * fudge;
    out.value = of(x);
    out.by_fudge = vfloat{};
    for (int a = 0; a < 3; ++a) {
      const float inverse = static_cast<float>(1 / block_.cells[a]);
      if constexpr (kShape == DomainShape::tophat) {
        out.by_delta[a] = vfloat{};
        out.by_cells[a] = out.value * (2 * inverse);
      } else {
        constexpr float kRate = static_cast<float>(-2 / kGaussWidth);
        const vfloat slope = out.value * (kRate * fudge * static_cast<float>(square_));  // by delta.G.delta
        vfloat row{};
        for (int b = 0; b < 3; ++b) {
          row += delta[b] * static_cast<float>(block_.metric[a][b] + block_.metric[b][a]);
          out.by_metric[a][b] = slope * delta[a] * delta[b];
        }
        out.by_delta[a] = slope * row;
        out.by_cells[a] = out.value * (1.0f + kRate * x) * (2 * inverse);
        if (a == 0) out.by_fudge = out.value * scaled * kRate;
      }
    }
  }

 private:
  // |delta in reciprocal Angstroms|^2 (Na Nb Nc)^2
  SEM_INLINE vfloat distance(const vdouble (&wide)[3]) const {
    vdouble sum{};
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) sum += wide[a] * wide[b] * block_.metric[a][b];
    return to_float(sum * square_);
  }
  SEM_INLINE vfloat of(vfloat x) const {
    if constexpr (kShape == DomainShape::tophat) {
      return select(x < static_cast<float>(kTophatEdge), broadcast(height_), x - x);  // 0 but where x is NaN
    } else {
      return height_ * vexp(x * static_cast<float>(-2 / kGaussWidth));
    }
  }

  const BlockShape& block_;
  float height_;
  double square_;
};

// Of a shape that is asked for at every call.
class AnyLatticeFactor {
 public:
  AnyLatticeFactor(const BlockShape& block, DomainShape shape)
      : shape_(shape), square_(block), round_(block), gauss_(block), tophat_(block) {}

  DomainShape shape() const { return shape_; }

  SEM_INLINE vfloat value(const vdouble (&wide)[3], const vfloat (&delta)[3]) const {
    switch (shape_) {
      case DomainShape::square:
        return square_.value(wide, delta);
      case DomainShape::round:
        return round_.value(wide, delta);
      case DomainShape::gauss:
        return gauss_.value(wide, delta);
      case DomainShape::tophat:
        break;
    }
    return tophat_.value(wide, delta);
  }

  // Of a square block.
  SEM_INLINE vfloat axis(int a, vdouble wide, vfloat delta) const { return square_.axis(a, wide, delta); }

 private:
  DomainShape shape_;
  LatticeFactor<DomainShape::square> square_;
  LatticeFactor<DomainShape::round> round_;
  LatticeFactor<DomainShape::gauss> gauss_;
  LatticeFactor<DomainShape::tophat> tophat_;
};

}  // namespace sem::cpu::SEM_ISA
