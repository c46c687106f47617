// F_latt and F_cell of one reflection, and their derivatives.
#pragma once

#include <algorithm>
#include <cmath>

#include "sem/diffraction.hpp"

namespace sem::reference {

inline constexpr double kPi = 3.14159265358979323846;

struct Indices {
  double h[3], nearest[3], delta[3];
};

template <class Real>
struct Lattice {
  Real axis[3] = {1, 1, 1};  // F_latt of each axis (square), signed
  Real value = 0;            // F_latt
  // dF_latt / d(delta, cells, fudge, metric)
  Real by_delta[3] = {0, 0, 0}, by_cells[3] = {0, 0, 0}, by_fudge = 0, by_metric[3][3] = {};
};

template <class Real>
class Reflection {
 public:
  explicit Reflection(const DiffractionInputs<Real>& in) : in_(in), set_(in.settings) {}

  Lattice<Real> lattice_of(const Indices& h) const {
    Lattice<Real> out;
    const double volume = in_.cells[0] * in_.cells[1] * in_.cells[2], fudge = in_.fudge[0];
    if (set_.shape == DomainShape::square) {
      Real slope[3] = {0, 0, 0}, by_cells[3] = {0, 0, 0};
      for (int a = 0; a < 3; ++a) interference(h, a, out.axis[a], slope[a], by_cells[a]);
      out.value = out.axis[0] * out.axis[1] * out.axis[2];
      for (int a = 0; a < 3; ++a) {
        const Real others = out.axis[(a + 1) % 3] * out.axis[(a + 2) % 3];
        out.by_delta[a] = slope[a] * others;
        out.by_cells[a] = by_cells[a] * others;
      }
      return out;
    }
    if (set_.shape == DomainShape::round) {
      double sum = 0;
      for (int a = 0; a < 3; ++a) sum += std::pow(in_.cells[a] * h.delta[a], 2);
      const double y = kPi * kPi * fudge * sum, x = std::sqrt(y);
      double s, by_y;  // 3 (sin x / x - cos x) / x^2 and its derivative in y, by series where they would cancel
      if (y < 1) {
        s = 0, by_y = 0;
        double power = 1, factorial = 6;  // y^(k - 1), (2k + 1)!
        for (int k = 1; k < 11; ++k, power *= -y, factorial *= 2 * k * (2 * k + 1)) {
          s += 6 * k * power / factorial;
          by_y -= 6 * (k + 1) * k * power / (factorial * (2 * k + 2) * (2 * k + 3));
        }
      } else {
        s = 3 * (std::sin(x) / x - std::cos(x)) / y;
        by_y = 3 * (std::sin(x) / x - s) / (2 * y);
      }
      const double height = kRoundHeight * volume;
      out.value = static_cast<Real>(height * s);
      for (int a = 0; a < 3; ++a) {
        const double n = in_.cells[a], common = height * by_y * 2 * kPi * kPi * fudge * n * h.delta[a];
        out.by_delta[a] = static_cast<Real>(common * n);
        out.by_cells[a] = static_cast<Real>(common * h.delta[a] + height * s / n);
      }
      out.by_fudge = static_cast<Real>(height * by_y * kPi * kPi * sum);
      return out;
    }
    double distance = 0, row[3] = {0, 0, 0}, column[3] = {0, 0, 0};
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) {
        const double metric = 1e-20 * in_.reciprocal_metric[3 * a + b];
        distance += h.delta[a] * metric * h.delta[b];
        row[a] += metric * h.delta[b];
        column[b] += metric * h.delta[a];
      }
    const double x = fudge * distance * volume * volume;
    if (set_.shape == DomainShape::tophat) {
      out.value = static_cast<Real>(x < kTophatEdge ? volume : x - x);
      for (int a = 0; a < 3; ++a) out.by_cells[a] = static_cast<Real>(out.value / in_.cells[a]);
      return out;
    }
    const double value = volume * std::exp(-x / kGaussWidth),
                 by_distance = -value * fudge * volume * volume / kGaussWidth;
    out.value = static_cast<Real>(value);
    for (int a = 0; a < 3; ++a) {
      out.by_delta[a] = static_cast<Real>(by_distance * (row[a] + column[a]));
      out.by_cells[a] = static_cast<Real>(value * (1 - 2 * x / kGaussWidth) / in_.cells[a]);
      for (int b = 0; b < 3; ++b)
        out.by_metric[a][b] = static_cast<Real>(by_distance * 1e-20 * h.delta[a] * h.delta[b]);
    }
    out.by_fudge = static_cast<Real>(-value * distance * volume * volume / kGaussWidth);
    return out;
  }

  bool far_from_the_ends(const Indices& h) const {
    for (int a = 0; a < 3; ++a)
      if (!(h.h[a] >= set_.first_index[a] + 2 && h.h[a] <= set_.first_index[a] + in_.table_shape[a] - 3)) return false;
    return true;
  }

  // F_cell, and where asked for its derivatives in h, k, l (`slope`), or its share of a gradient g (`table`,
  // `standard`).
  Real structure_factor(const Indices& h, bool cubic, Real* slope = nullptr, double* table = nullptr,
                        double* standard = nullptr, Real g = 0) const {
    std::int64_t place[3];
    bool inside = in_.table_shape[0] > 0;
    for (int a = 0; a < 3; ++a) {
      place[a] = static_cast<std::int64_t>(h.nearest[a]) - set_.first_index[a];
      inside = inside && place[a] >= 0 && place[a] < in_.table_shape[a];
    }
    const auto index = [&](std::int64_t i, std::int64_t j, std::int64_t k) {
      return (i * in_.table_shape[1] + j) * in_.table_shape[2] + k;
    };
    if (!cubic || (set_.mode == DiffractionMode::exact && !far_from_the_ends(h))) {
      const std::int64_t at = inside ? index(place[0], place[1], place[2]) : 0;
      if (inside && table != nullptr) table[at] += g;
      if (!inside && standard != nullptr) standard[0] += g;
      return inside ? in_.table[at] : static_cast<Real>(in_.default_factor[0]);
    }
    double weight[3][4], derivative[3][4];
    std::int64_t corner[3];
    for (int a = 0; a < 3; ++a) {
      const double low = std::floor(h.h[a]), t = h.h[a] - low;
      corner[a] = static_cast<std::int64_t>(low) - set_.first_index[a] - 1;
      const double w[4] = {-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2, -(t + 1) * t * (t - 2) / 2,
                           (t + 1) * t * (t - 1) / 6};
      const double dw[4] = {-(3 * t * t - 6 * t + 2) / 6, (3 * t * t - 4 * t - 1) / 2, -(3 * t * t - 2 * t - 2) / 2,
                            (3 * t * t - 1) / 6};
      std::copy(w, w + 4, weight[a]);
      std::copy(dw, dw + 4, derivative[a]);
    }
    Real value = 0, by_h[3] = {0, 0, 0};
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        for (int k = 0; k < 4; ++k) {
          const std::int64_t at = index(corner[0] + i, corner[1] + j, corner[2] + k);
          const double w = weight[0][i] * weight[1][j] * weight[2][k];
          value += static_cast<Real>(w) * in_.table[at];
          by_h[0] += static_cast<Real>(derivative[0][i] * weight[1][j] * weight[2][k]) * in_.table[at];
          by_h[1] += static_cast<Real>(weight[0][i] * derivative[1][j] * weight[2][k]) * in_.table[at];
          by_h[2] += static_cast<Real>(weight[0][i] * weight[1][j] * derivative[2][k]) * in_.table[at];
          if (table != nullptr) table[at] += w * g;
        }
    if (slope != nullptr) std::copy(by_h, by_h + 3, slope);
    return value;
  }

 private:
  // sin(pi N h) / sin(pi h) with its derivatives in delta and N.
  void interference(const Indices& h, int a, Real& value, Real& by_delta, Real& by_cells) const {
    const double n = in_.cells[a], delta = h.delta[a];
    value = 1;
    if (n <= 1) return;
    // The sign of an even number of cells at an odd index; for other N the distance alone counts.
    const bool odd = n == std::rint(n) && std::fmod(n, 2) == 0 && std::fmod(h.nearest[a], 2) != 0;
    const double sign = odd ? -1 : 1;
    if (std::abs(delta) < 1e-6) {
      const double square = kPi * kPi * (n * n - 1) / 6;
      value = static_cast<Real>(sign * n * (1 - square * delta * delta));
      by_delta = static_cast<Real>(-sign * n * square * 2 * delta);
      by_cells = static_cast<Real>(sign * (1 - kPi * kPi * (3 * n * n - 1) / 6 * delta * delta));
      return;
    }
    const double whole = std::rint(n * delta), turn = std::fmod(whole, 2) != 0 ? -sign : sign;
    const double u = std::fma(n, delta, -whole);
    const Real top = static_cast<Real>(turn) * std::sin(static_cast<Real>(kPi * u));
    const Real bottom = std::sin(static_cast<Real>(kPi * delta));
    value = top / bottom;
    const double sine = std::sin(kPi * delta), cosine = turn * std::cos(kPi * u),
                 exact = turn * std::sin(kPi * u) / sine;
    by_delta = static_cast<Real>(kPi * (n * cosine - exact * std::cos(kPi * delta)) / sine);
    by_cells = static_cast<Real>(kPi * delta * cosine / sine);
  }

  const DiffractionInputs<Real>& in_;
  const DiffractionSettings& set_;
};

}  // namespace sem::reference
