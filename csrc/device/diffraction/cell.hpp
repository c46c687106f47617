// F_cell of a pixel from the table of structure factors, its derivatives, and gradients back to the table.
#pragma once

#include "device/atomics.hpp"
#include "device/diffraction/lattice.hpp"

namespace sem::device {

class DiffractionCell {
 public:
  static constexpr int kStepBits = 28;

  SEM_DEVICE DiffractionCell(const DiffractionTask& task, const DiffractionTables& tables)
      : task_(task), default_(tables.common->default_factor), switch_off_(*tables.switch_off) {}

  // When a step is computed: pixels first, then the steps of a pixel.
  static SEM_DEVICE std::uint64_t time(std::int64_t pixel, std::int64_t step) {
    constexpr std::int64_t kLast = (std::int64_t{1} << kStepBits) - 1;
    return static_cast<std::uint64_t>(pixel) << kStepBits | static_cast<std::uint64_t>(min(step, kLast));
  }

  // At least two from the table's ends along each axis.
  static SEM_DEVICE bool far_from_the_ends(const DiffractionTask& task, const DiffractionIndices& h) {
    bool far = true;
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const float first = static_cast<float>(task.first_index[a] + 2);
      const float last = static_cast<float>(task.first_index[a] + task.table_shape[a] - 3);
      far = far && floor(h, a) >= first && floor(h, a) + (h.rest[a].high != 0.0f ? 1.0f : 0.0f) <= last;
    }
    return far;
  }

  struct Place {
    std::int64_t index;  // the nearest entry, or the first of the 64 that are interpolated; -1 outside
    bool cubic;
    float t[3];  // from the second of four points to the index
  };

  SEM_DEVICE Place place(const DiffractionIndices& h, std::uint64_t time) const {
    Place out{};
    out.cubic = task_.tricubic && time < switch_off_ && far_from_the_ends(task_, h);
    bool inside = true;
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      const float entry = (out.cubic ? floor(h, a) - 1.0f : h.whole[a]) - static_cast<float>(task_.first_index[a]);
      inside = inside && entry >= 0.0f && entry < static_cast<float>(task_.table_shape[a]);
      out.index = out.index * task_.table_shape[a] + (inside ? static_cast<std::int32_t>(entry) : 0);
      out.t[a] = h.rest[a].high + (h.rest[a].high < 0.0f ? 1.0f : 0.0f);
    }
    if (!inside) out.index = -1;
    return out;
  }

  // F, and dF/d(h, k, l).
  template <bool kSlopes>
  SEM_DEVICE float value(const Place& at, float (&slopes)[3]) const {
    slopes[0] = slopes[1] = slopes[2] = 0.0f;
    if (at.index < 0) return default_;
    return at.cubic ? cubic<kSlopes>(at, slopes) : task_.table[at.index];
  }

  // Calls visit(entry, share) with the entries that F depends on and their gradients, from that to F.
  template <class Visit>
  SEM_DEVICE void spread(const Place& at, float gradient, Visit visit) const {
    if (at.index < 0) return;
    if (!at.cubic) return visit(at.index, gradient);
    float weight[3][4];
    for (int a = 0; a < 3; ++a) weights(at.t[a], weight[a]);
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        for (int k = 0; k < 4; ++k)
          visit(at.index + offset(i, j, k), gradient * (weight[0][i] * weight[1][j] * weight[2][k]));
  }

 private:
  static SEM_DEVICE float floor(const DiffractionIndices& h, int a) {
    return h.whole[a] - (h.rest[a].high < 0.0f ? 1.0f : 0.0f);
  }
  SEM_DEVICE std::int64_t offset(int i, int j, int k) const {
    return (static_cast<std::int64_t>(i) * task_.table_shape[1] + j) * task_.table_shape[2] + k;
  }
  static SEM_DEVICE void weights(float t, float (&w)[4]) {
    const float below = t - 1.0f, above = t + 1.0f, far = t - 2.0f;
    w[0] = t * below * far * (-1.0f / 6.0f);
    w[1] = above * below * far * 0.5f;
    w[2] = above * t * far * -0.5f;
    w[3] = above * t * below * (1.0f / 6.0f);
  }
  static SEM_DEVICE void derivatives(float t, float (&w)[4]) {
    w[0] = (3.0f * t * t - 6.0f * t + 2.0f) * (-1.0f / 6.0f);
    w[1] = (3.0f * t * t - 4.0f * t - 1.0f) * 0.5f;
    w[2] = (3.0f * t * t - 2.0f * t - 2.0f) * -0.5f;
    w[3] = (3.0f * t * t - 1.0f) * (1.0f / 6.0f);
  }

  template <bool kSlopes>
  SEM_DEVICE float cubic(const Place& at, float (&slopes)[3]) const {
    float weight[3][4], derivative[3][4];
    SEM_UNROLL
    for (int a = 0; a < 3; ++a) {
      weights(at.t[a], weight[a]);
      derivatives(at.t[a], derivative[a]);
    }
    float value = 0.0f;
    SEM_UNROLL
    for (int i = 0; i < 4; ++i) {
      float plane = 0.0f, plane_k = 0.0f, plane_l = 0.0f;
      SEM_UNROLL
      for (int j = 0; j < 4; ++j) {
        float line = 0.0f, line_l = 0.0f;
        SEM_UNROLL
        for (int k = 0; k < 4; ++k) {
          const float entry = task_.table[at.index + offset(i, j, k)];
          line += weight[2][k] * entry;
          line_l += derivative[2][k] * entry;
        }
        plane += weight[1][j] * line;
        plane_k += derivative[1][j] * line;
        plane_l += weight[1][j] * line_l;
      }
      value += weight[0][i] * plane;
      if constexpr (kSlopes) {
        slopes[0] += derivative[0][i] * plane;
        slopes[1] += weight[0][i] * plane_k;
        slopes[2] += weight[0][i] * plane_l;
      }
    }
    return value;
  }

  const DiffractionTask& task_;
  float default_;
  std::uint64_t switch_off_;
};

}  // namespace sem::device
