// The last launch of a diffraction image's gradients: gives each sum its units and its place.
#pragma once

#include "device/diffraction/backward.hpp"

namespace sem::device {

struct DiffractionGradients {
  explicit DiffractionGradients(const DiffractionBackward<float>& to)
      : frame(bits_of(to.frame)),
        close_distance(bits_of(to.close_distance)),
        curvature(bits_of(to.curvature)),
        incident(bits_of(to.incident)),
        wavelength(bits_of(to.wavelength)),
        weight(bits_of(to.weight)),
        orientation(bits_of(to.orientation)),
        reciprocal_metric(bits_of(to.reciprocal_metric)),
        cells(bits_of(to.cells)),
        fudge(bits_of(to.fudge)),
        default_factor(bits_of(to.default_factor)),
        kahn(bits_of(to.kahn)),
        polarisation_axis(bits_of(to.polarisation_axis)),
        scale(bits_of(to.scale)),
        background(bits_of(to.background)),
        table(to.table) {}

  Float64Bits *frame, *close_distance, *curvature, *incident, *wavelength, *weight, *orientation, *reciprocal_metric,
      *cells, *fudge, *default_factor, *kahn, *polarisation_axis, *scale, *background;
  float* table;

 private:
  static Float64Bits* bits_of(double* to) { return reinterpret_cast<Float64Bits*>(to); }
};

struct DiffractionFinish {
  DiffractionTask task;
  DiffractionGradients to;
  DiffractionLayout layout;
  float* workspace;

  // By all threads of all groups of a launch.
  template <class Group>
  SEM_DEVICE void run(const Group& group) const {
    const DiffractionTables tables(layout, workspace);
    const float* const total = workspace + layout.totals;
    const std::int64_t own = group.id() * group.size() + group.rank(), all = group.count() * group.size();
    for (std::int64_t k = own; k < DiffractionColumns::kOrientation * task.orientations; k += all)
      to.orientation[k] = float64_bits(total[k] * (1.0f / kSummedLength));
    for (std::int64_t s = own; s < task.sources; s += all) source(tables, total, s);
    for (std::int64_t k = own; k < task.entries(); k += all) {
      const std::uint32_t largest = tables.largest[k];
      const auto sum = static_cast<float>(static_cast<std::int64_t>(tables.fixed[k]));
      to.table[k] = largest == 0             ? 0.0f
                    : largest >= 0x7f800000u ? kNaN
                                             : scaled(sum, -fixed_point(largest, layout.spare_bits));
    }
    if (own == 0) numbers(tables, total);
  }

 private:
  // Gradients of the factor of polarisation to a source's frame (i, E, B), from the source's moments of it.
  struct Frame {
    float by_incident[3], by_axis[3];
  };
  SEM_DEVICE Frame polarisation(const DiffractionTables& tables, const float* sum, std::int64_t s) const {
    const DiffractionSource& beam = tables.sources[s];
    const float cc = sum[5], ee = sum[6], ce = sum[8], cb = sum[9], eb = sum[10];  // bb turns B along itself
    const float kahn = tables.common->kahn, inverse = 1.0f / beam.sine;
    // dL/dB with what comes through E = i x B; and of w = axis x i, whose unit vector is B
    float by_along[3], by_w[3];
    for (int i = 0; i < 3; ++i) {
      by_along[i] = -kahn * (ce * beam.incident[i].high + ee * beam.along[i] + eb * beam.across[i]);
      by_w[i] = kahn * inverse * (cb * beam.incident[i].high + 2.0f * eb * beam.along[i]);
    }
    Frame out;
    for (int i = 0; i < 3; ++i) {
      const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
      const float axis_j = read_float64(task.polarisation_axis[j]).high;
      const float axis_k = read_float64(task.polarisation_axis[k]).high;
      out.by_incident[i] = cc * beam.incident[i].high + ce * beam.along[i] + cb * beam.across[i] +
                           (beam.across[j] * by_along[k] - beam.across[k] * by_along[j]) +
                           (by_w[j] * axis_k - by_w[k] * axis_j);
      out.by_axis[i] = beam.incident[j].high * by_w[k] - beam.incident[k].high * by_w[j];
    }
    return out;
  }
  SEM_DEVICE const float* sums_of(const float* total, std::int64_t s) const {
    return total + layout.columns.sources + DiffractionColumns::kSource * s;
  }

  SEM_DEVICE void source(const DiffractionTables& tables, const float* total, std::int64_t s) const {
    const float* const sum = sums_of(total, s);
    Frame frame{};
    if (task.polarised) frame = polarisation(tables, sum, s);
    for (int i = 0; i < 3; ++i) to.incident[3 * s + i] = float64_bits(sum[i] + frame.by_incident[i]);
    to.wavelength[s] = float64_bits(sum[3] * tables.sources[s].inverse_wavelength.high);
    to.weight[s] = float64_bits(sum[4]);
  }

  // By one thread.
  SEM_DEVICE void numbers(const DiffractionTables& tables, const float* total) const {
    const float* const frame = total + layout.columns.frame;
    const float* const shape = total + layout.columns.shape;
    const float* const curved = total + layout.columns.curved;
    for (int k = 0; k < 12; ++k) to.frame[k] = float64_bits(frame[k] + (k >= 3 && k < 9 ? curved[4 + k - 3] : 0.0f));
    for (int k = 0; k < 4; ++k) to.curvature[k] = float64_bits(curved[k]);
    for (int k = 0; k < 3; ++k) to.cells[k] = float64_bits(shape[k]);
    to.fudge[0] = float64_bits(shape[DiffractionColumns::kFudge]);
    const float* const metric = shape + DiffractionColumns::kMetric;
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b)
        to.reciprocal_metric[3 * a + b] = float64_bits(1e-20f * (a == b ? metric[a] : metric[2 + a + b]));
    to.close_distance[0] = float64_bits(frame[DiffractionColumns::kClose] / read_float64(task.close_distance[0]).high);
    const float places = task.places_of_a_layer(), shares = places * static_cast<float>(task.sources);
    const float steps = shares * static_cast<float>(task.orientations);
    to.scale[0] = float64_bits(frame[DiffractionColumns::kScale] / steps);
    to.background[0] =
        float64_bits(frame[DiffractionColumns::kBackground] * (task.exact ? 1.0f / shares : tables.common->scale.high));
    to.default_factor[0] = float64_bits(frame[DiffractionColumns::kFactor]);
    float kahn = 0.0f, axis[3] = {};
    for (std::int64_t s = 0; task.polarised && s < task.sources; ++s) {
      const float* const sum = sums_of(total, s);
      const Frame of_source = polarisation(tables, sum, s);
      kahn -= 0.5f * (sum[6] - sum[7]);
      for (int i = 0; i < 3; ++i) axis[i] += of_source.by_axis[i];
    }
    to.kahn[0] = float64_bits(kahn);
    for (int i = 0; i < 3; ++i) to.polarisation_axis[i] = float64_bits(axis[i]);
  }
};

}  // namespace sem::device
