// F_cell of sixteen pixels from the table of structure factors, its derivatives, and gradients back to the table.
#pragma once

#include "cpu/diffraction/plan.hpp"

namespace sem::cpu::SEM_ISA {

// The step from which on nothing is interpolated any more, in the order of pixels and steps.
struct SwitchOff {
  std::int64_t pixel = INT64_MAX;
  std::int32_t step = 0;
};

class CellTable {
 public:
  explicit CellTable(const DiffractionInputs<float>& in)
      : in_(in),
        default_(static_cast<float>(in.default_factor[0])),
        exact_(in.settings.mode == DiffractionMode::exact) {}

  // How many steps of each pixel are interpolated, for the tile whose first pixel is `pixel`.
  vint interpolated_steps(const SwitchOff& off, std::int64_t pixel) const {
    std::int32_t limit[kLanes];
    for (int l = 0; l < kLanes; ++l)
      limit[l] = exact_ || pixel + l < off.pixel ? INT32_MAX : pixel + l == off.pixel ? off.step : 0;
    vint out;
    std::memcpy(&out, limit, sizeof out);
    return out;
  }

  // Lanes at least two from the table's ends along each axis.
  SEM_INLINE vint far_from_the_ends(const TileIndices& h) const {
    vint far = ~vint{};
    for (int a = 0; a < 3; ++a) {
      const float first = static_cast<float>(in_.settings.first_index[a] + 2);
      const float last = static_cast<float>(in_.settings.first_index[a] + in_.table_shape[a] - 3);
      const vfloat n = to_float(h.whole[a]);
      const vfloat floor = select(h.delta[a] < 0.0f, n - 1.0f, n), ceiling = select(h.delta[a] > 0.0f, n + 1.0f, n);
      far = far & (floor >= first) & (ceiling <= last);
    }
    return far;
  }

  struct Place {
    vint inside, index;  // nearest entry, 0 outside
    vint cubic, corner;  // first of the 64 entries, 0 where not interpolated
    bool any_cubic;
    vfloat t[3];  // from the second of four points to the index
  };

  SEM_INLINE Place place(const TileIndices& h, vint limit, std::int32_t step) const {
    Place out;
    vint at[3];
    out.inside = ~vint{};
    for (int a = 0; a < 3; ++a) {
      // half way between two indices the lower one is nearest, where rounding takes the even one
      const vfloat n = to_float(h.whole[a]), nearest = select(h.delta[a] == -0.5f, n - 1.0f, n);
      const vfloat offset = nearest - static_cast<float>(in_.settings.first_index[a]);
      const vint within = (offset >= 0.0f) & (offset < static_cast<float>(in_.table_shape[a]));
      round_to_int(select(within, offset, vfloat{}), at[a]);
      out.inside = out.inside & within;
    }
    out.index = flat(at) & out.inside;
    out.any_cubic = false;
    if (!in_.settings.tricubic) return out;
    out.cubic = (limit > step) & far_from_the_ends(h);
    out.any_cubic = any(out.cubic);
    if (!out.any_cubic) return out;
    for (int a = 0; a < 3; ++a) {
      const auto below = h.delta[a] < 0.0f;
      const vfloat n = to_float(h.whole[a]), floor = select(below, n - 1.0f, n);
      out.t[a] = select(below, h.delta[a] + 1.0f, h.delta[a]);
      const vfloat offset = floor - static_cast<float>(in_.settings.first_index[a] + 1);
      round_to_int(select(out.cubic, offset, vfloat{}), at[a]);
    }
    out.corner = flat(at) & out.cubic;
    return out;
  }

  // F, and dF/d(h, k, l) where `slopes` is not null.
  template <bool kSlopes>
  SEM_INLINE vfloat value(const Place& at, vfloat (&slopes)[3]) const {
    const vfloat nearest = select(at.inside, gather(at.index, 0), broadcast(default_));
    if constexpr (kSlopes)
      for (vfloat& slope : slopes) slope = vfloat{};
    if (!at.any_cubic) return nearest;
    const Place copy = at;  // so that the other one need not lie in memory
    return select(at.cubic, cubic<kSlopes>(copy, slopes), nearest);
  }

  // Adds each lane's gradient to its entries, or to `standard`.
  void scatter(const Place& at, vfloat gradient, double* table, double* standard) const {
    std::int32_t inside[kLanes], index[kLanes], cubic[kLanes] = {}, corner[kLanes] = {};
    float g[kLanes], t[3][kLanes] = {};
    std::memcpy(inside, &at.inside, sizeof inside);
    std::memcpy(index, &at.index, sizeof index);
    std::memcpy(g, &gradient, sizeof g);
    if (at.any_cubic) {
      std::memcpy(cubic, &at.cubic, sizeof cubic);
      std::memcpy(corner, &at.corner, sizeof corner);
      std::memcpy(t, at.t, sizeof t);
    }
    for (int l = 0; l < kLanes; ++l) {
      if (g[l] == 0) continue;
      if (cubic[l] != 0) {
        double w[3][4];
        for (int a = 0; a < 3; ++a) {
          const double x = t[a][l];
          w[a][0] = -x * (x - 1) * (x - 2) / 6;
          w[a][1] = (x + 1) * (x - 1) * (x - 2) / 2;
          w[a][2] = -(x + 1) * x * (x - 2) / 2;
          w[a][3] = (x + 1) * x * (x - 1) / 6;
        }
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j)
            for (int k = 0; k < 4; ++k) table[corner[l] + offset(i, j, k)] += g[l] * w[0][i] * w[1][j] * w[2][k];
      } else if (inside[l] != 0) {
        table[index[l]] += g[l];
      } else {
        *standard += g[l];
      }
    }
  }

 private:
  std::int32_t offset(int i, int j, int k) const {
    return static_cast<std::int32_t>((i * in_.table_shape[1] + j) * in_.table_shape[2] + k);
  }
  SEM_INLINE vint flat(const vint (&at)[3]) const {
    return (at[0] * static_cast<std::int32_t>(in_.table_shape[1]) + at[1]) *
               static_cast<std::int32_t>(in_.table_shape[2]) +
           at[2];
  }
  SEM_INLINE vfloat gather(vint index, std::int32_t offset) const {
    std::int32_t at[kLanes];
    float found[kLanes];
    std::memcpy(at, &index, sizeof at);
    for (int l = 0; l < kLanes; ++l) found[l] = in_.table[at[l] + offset];
    return load(found);
  }

  // Lanes that are not interpolated read the first entries, which the caller drops; the table may be smaller than the
  // 64 entries only where no lane is interpolated.
  template <bool kSlopes>
  SEM_OUT_OF_LINE vfloat cubic(const Place& at, vfloat (&slopes)[3]) const {
    vfloat weight[3][4], derivative[3][4];
    for (int a = 0; a < 3; ++a) {
      const vfloat t = at.t[a], below = t - 1.0f, above = t + 1.0f, far = t - 2.0f;
      weight[a][0] = t * below * far * (-1.0f / 6.0f);
      weight[a][1] = above * below * far * 0.5f;
      weight[a][2] = above * t * far * -0.5f;
      weight[a][3] = above * t * below * (1.0f / 6.0f);
      derivative[a][0] = (3.0f * t * t - 6.0f * t + 2.0f) * (-1.0f / 6.0f);
      derivative[a][1] = (3.0f * t * t - 4.0f * t - 1.0f) * 0.5f;
      derivative[a][2] = (3.0f * t * t - 2.0f * t - 2.0f) * -0.5f;
      derivative[a][3] = (3.0f * t * t - 1.0f) * (1.0f / 6.0f);
    }
    vfloat value{};
    for (int i = 0; i < 4; ++i) {
      vfloat plane{}, plane_k{}, plane_l{};
      for (int j = 0; j < 4; ++j) {
        vfloat line{}, line_l{};
        for (int k = 0; k < 4; ++k) {
          const vfloat entry = gather(at.corner, offset(i, j, k));
          line += weight[2][k] * entry;
          if constexpr (kSlopes) line_l += derivative[2][k] * entry;
        }
        plane += weight[1][j] * line;
        if constexpr (kSlopes) {
          plane_k += derivative[1][j] * line;
          plane_l += weight[1][j] * line_l;
        }
      }
      value += weight[0][i] * plane;
      if constexpr (kSlopes) {
        slopes[0] += derivative[0][i] * plane;
        slopes[1] += weight[0][i] * plane_k;
        slopes[2] += weight[0][i] * plane_l;
      }
    }
    if constexpr (kSlopes)
      for (vfloat& slope : slopes) slope = select(at.cubic, slope, vfloat{});
    return value;
  }

  const DiffractionInputs<float>& in_;
  float default_;
  bool exact_;
};

}  // namespace sem::cpu::SEM_ISA
