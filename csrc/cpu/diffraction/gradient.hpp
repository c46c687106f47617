// Where a diffraction image's gradients are summed: sixteen lanes of float32 over a row, then double over a chunk of
// rows, then the chunks in order. How an image is cut into chunks depends on its size alone.
#pragma once

#include "cpu/diffraction/plan.hpp"

namespace sem::cpu::SEM_ISA {

SEM_INLINE void accumulate(float* sum, vfloat term) { store(sum, load(sum) + term); }

// Offsets of the sums that have lanes, in units of one sum.
struct GradientLayout {
  explicit GradientLayout(const DiffractionPlan& plan)
      : plan(plan),
        sources(9 * plan.orientations),
        frame(sources + kSourceSums * plan.in.sources),
        cells(frame + 12),
        fudge(cells + 3),
        metric(fudge + 1),
        constant_factor(metric + 9),
        close(constant_factor + 1),
        scale(close + 1),
        background(scale + 1),
        sums(background + 1),
        entries(plan.in.table_shape[0] * plan.in.table_shape[1] * plan.in.table_shape[2]) {}

  // Of one source: incident (3), wavelength, weight, and six moments of the polarisation.
  static constexpr int kSourceSums = 11;
  // After the sums, in double alone: curvature (4), a curved detector's axes (12), default factor, table.
  std::int64_t doubles() const { return sums + 17 + entries; }
  std::int64_t lane_floats() const { return sums * kLanes; }

  // As many as two images' memory holds, but 4 to 32.
  std::int64_t chunks(std::int64_t rows, std::int64_t pixels) const {
    std::int64_t count =
        2 * pixels * static_cast<std::int64_t>(sizeof(float)) / (doubles() * static_cast<std::int64_t>(sizeof(double)));
    count = count < 4 ? 4 : count > 32 ? 32 : count;
    return rows < count ? (rows > 0 ? rows : 0) : count;
  }

  void finish(double* partials, std::int64_t chunks, const DiffractionBackward<float>& to) const;

  const DiffractionPlan& plan;
  std::int64_t sources, frame, cells, fudge, metric, constant_factor, close, scale, background, sums, entries;
};

// The sums of one chunk of rows.
class GradientSums {
 public:
  // Orientations are metres of 1e-8: their gradients are summed per Angstrom, in float32's range.
  static constexpr double kLength = 1e-10;

  GradientSums(const GradientLayout& layout, float* lanes, double* totals)
      : table(totals + layout.sums + 17),
        default_factor(totals + layout.sums + 16),
        curvature(totals + layout.sums),
        curved_frame(totals + layout.sums + 4),
        layout_(layout),
        lanes_(lanes),
        totals_(totals) {
    std::memset(lanes, 0, static_cast<std::size_t>(layout.lane_floats()) * sizeof(float));
    std::memset(totals, 0, static_cast<std::size_t>(layout.doubles()) * sizeof(double));
  }

  SEM_INLINE float* orientation(std::int64_t o) const { return lanes_ + 9 * o * kLanes; }
  SEM_INLINE float* source(std::int64_t s) const {
    return lanes_ + (layout_.sources + GradientLayout::kSourceSums * s) * kLanes;
  }
  SEM_INLINE float* frame() const { return lanes_ + layout_.frame * kLanes; }
  SEM_INLINE float* cells() const { return lanes_ + layout_.cells * kLanes; }
  SEM_INLINE float* fudge() const { return lanes_ + layout_.fudge * kLanes; }
  SEM_INLINE float* metric() const { return lanes_ + layout_.metric * kLanes; }
  SEM_INLINE float* constant_factor() const { return lanes_ + layout_.constant_factor * kLanes; }
  SEM_INLINE float* close() const { return lanes_ + layout_.close * kLanes; }
  SEM_INLINE float* scale() const { return lanes_ + layout_.scale * kLanes; }
  SEM_INLINE float* background() const { return lanes_ + layout_.background * kLanes; }

  SEM_OUT_OF_LINE void end_row() {
    for (std::int64_t k = 0; k < layout_.sums; ++k) {
      double sum = 0;
      for (int l = 0; l < kLanes; ++l) sum += static_cast<double>(lanes_[k * kLanes + l]);
      totals_[k] += sum;
    }
    std::memset(lanes_, 0, static_cast<std::size_t>(layout_.lane_floats()) * sizeof(float));
  }

  double *table, *default_factor, *curvature, *curved_frame;

 private:
  const GradientLayout& layout_;
  float* lanes_;
  double* totals_;
};

// Adds the chunks into the first, and gives each sum its units and its place.
inline void GradientLayout::finish(double* partials, std::int64_t chunks, const DiffractionBackward<float>& to) const {
  const DiffractionInputs<float>& in = plan.in;
  const ScratchOf<double> none(static_cast<std::size_t>(doubles()));
  double* total = chunks > 0 ? partials : none.data();
  if (chunks == 0) std::memset(total, 0, static_cast<std::size_t>(doubles()) * sizeof(double));
  for (std::int64_t chunk = 1; chunk < chunks; ++chunk)
    for (std::int64_t k = 0; k < doubles(); ++k) total[k] += partials[chunk * doubles() + k];
  const double* extra = total + sums;

  for (std::int64_t k = 0; k < 9 * plan.orientations; ++k) to.orientation[k] = total[k] / GradientSums::kLength;
  for (int k = 0; k < 12; ++k) to.frame[k] = total[frame + k] + extra[4 + k];
  for (int k = 0; k < 4; ++k) to.curvature[k] = extra[k];
  for (int k = 0; k < 3; ++k) to.cells[k] = total[cells + k];
  to.fudge[0] = total[fudge];
  for (int k = 0; k < 9; ++k) to.reciprocal_metric[k] = 1e-20 * total[metric + k];
  to.default_factor[0] = total[constant_factor] + extra[16];
  for (std::int64_t k = 0; k < entries; ++k) to.table[k] = static_cast<float>(extra[17 + k]);
  to.close_distance[0] = total[close] / in.close_distance[0];
  const double steps = static_cast<double>(plan.steps_per_place) * plan.set.oversample * plan.set.oversample;
  const bool exact = plan.set.mode == DiffractionMode::exact;
  const double shares = static_cast<double>(in.sources) * plan.set.oversample * plan.set.oversample;
  to.scale[0] = total[scale] / steps;
  to.background[0] = total[background] * (exact ? 1 / shares : in.scale[0] / steps);

  const double kahn = in.kahn[0];
  to.kahn[0] = 0;
  for (int i = 0; i < 3; ++i) to.polarisation_axis[i] = 0;
  for (std::int64_t s = 0; s < in.sources; ++s) {
    const SourcePlan& beam = plan.source(s);
    const double* sum = total + sources + kSourceSums * s;
    Triple by_incident = triple(sum);
    to.wavelength[s] = sum[3] * beam.inverse_wavelength;
    to.weight[s] = sum[4];
    if (plan.set.polarised) {
      const double cc = sum[5], ee = sum[6], bb = sum[7], ce = sum[8], cb = sum[9], eb = sum[10];
      // sums of (d.u) d for u = i, E, B, in the frame of the beam
      const auto along = [&](double by_i, double by_e, double by_b) {
        return combine(by_i, beam.incident, 1, combine(by_e, beam.along, by_b, beam.across));
      };
      to.kahn[0] -= (ee - bb) / 2;
      const Triple by_along = scaled(-kahn, along(ce, ee, eb));
      const Triple by_across = combine(kahn, along(cb, eb, bb), 1, cross(by_along, beam.incident));
      const Triple by_w = scaled(1 / beam.sine, combine(1, by_across, -dot(by_across, beam.across), beam.across));
      const Triple by_frame = combine(1, cross(beam.across, by_along), 1, cross(by_w, triple(in.polarisation_axis)));
      by_incident = combine(1, by_incident, 1, combine(1, along(cc, ce, cb), 1, by_frame));
      const Triple by_axis = cross(beam.incident, by_w);
      for (int i = 0; i < 3; ++i) to.polarisation_axis[i] += by_axis[i];
    }
    for (int i = 0; i < 3; ++i) to.incident[3 * s + i] = by_incident[i];
  }
}

}  // namespace sem::cpu::SEM_ISA
