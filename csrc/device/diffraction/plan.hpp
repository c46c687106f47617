// A diffraction image as its kernels see it: the task, what a first launch works out for all pixels, and where both lie
// in the workspace.
//
// Coordinates and Miller indices are built as sums of two floats (two_float.hpp) where the CPU has float64: fast on the
// GPUs whose float64 is slow, possible on those without, and exact enough. Float64 arrays are read by their bits.
#pragma once

#include <cstdint>

#include "device/column_sums.hpp"
#include "device/plan.hpp"
#include "device/two_float.hpp"
#include "sem/diffraction.hpp"

namespace sem::device {

// DiffractionInputs without a float64 in it.
struct DiffractionTask {
  explicit DiffractionTask(const DiffractionInputs<float>& in)
      : slow_pixels(in.settings.slow_pixels),
        fast_pixels(in.settings.fast_pixels),
        fast_first(in.settings.fast_first),
        fast_last(in.settings.fast_last),
        slow_first(in.settings.slow_first),
        slow_last(in.settings.slow_last),
        oversample(in.settings.oversample),
        layers(in.settings.layers),
        first_index{in.settings.first_index[0], in.settings.first_index[1], in.settings.first_index[2]},
        shape(in.settings.shape),
        point_pixel(in.settings.point_pixel),
        curved(in.settings.curved),
        polarised(in.settings.polarised),
        phi_carryover(in.settings.phi_carryover),
        tricubic(in.settings.tricubic),
        exact(in.settings.mode == DiffractionMode::exact),
        subpixel(two_float(in.settings.pixel_size / in.settings.oversample)),
        layer_step(two_float(in.settings.layer_step)),
        pixel_area(two_float(in.settings.pixel_size * in.settings.pixel_size)),
        thickness(static_cast<float>(in.settings.attenuation * in.settings.layer_step)),
        resolution(in.settings.d_min > 0 ? static_cast<float>(1 / in.settings.d_min) : 0),
        sources(in.sources),
        mosaics(in.mosaics),
        orientations(in.positions * in.mosaics),
        table_shape{static_cast<std::int32_t>(in.table_shape[0]), static_cast<std::int32_t>(in.table_shape[1]),
                    static_cast<std::int32_t>(in.table_shape[2])},
        frame(bits_of(in.frame)),
        close_distance(bits_of(in.close_distance)),
        curvature(bits_of(in.curvature)),
        incident(bits_of(in.incident)),
        wavelength(bits_of(in.wavelength)),
        weight(bits_of(in.weight)),
        orientation(bits_of(in.orientation)),
        reciprocal_metric(bits_of(in.reciprocal_metric)),
        cells(bits_of(in.cells)),
        fudge(bits_of(in.fudge)),
        default_factor(bits_of(in.default_factor)),
        kahn(bits_of(in.kahn)),
        polarisation_axis(bits_of(in.polarisation_axis)),
        scale(bits_of(in.scale)),
        background(bits_of(in.background)),
        table(in.table),
        mask(in.mask) {}

  // What most images are: mode nanobragg, a flat detector without absorption, one structure factor, no d_min.
  bool plain() const { return !exact && !curved && thickness == 0 && resolution == 0 && table_shape[0] == 0; }
  bool switches_off() const { return tricubic && !exact; }
  SEM_HOST_DEVICE std::int64_t pixels() const { return std::int64_t{slow_pixels} * fast_pixels; }
  SEM_HOST_DEVICE std::int64_t entries() const {
    return std::int64_t{table_shape[0]} * table_shape[1] * table_shape[2];
  }
  SEM_HOST_DEVICE std::int64_t steps() const { return sources * orientations; }
  SEM_HOST_DEVICE float places_of_a_layer() const {
    return static_cast<float>(oversample) * static_cast<float>(oversample);
  }
  SEM_DEVICE bool computed(std::int64_t pixel) const {
    const std::int64_t row = pixel / fast_pixels, fast = pixel - row * fast_pixels;
    if (row < slow_first || row > slow_last || fast < fast_first || fast > fast_last) return false;
    return mask == nullptr || mask[pixel] != 0;
  }

  std::int32_t slow_pixels, fast_pixels, fast_first, fast_last, slow_first, slow_last, oversample, layers;
  std::int32_t first_index[3];
  DomainShape shape;
  bool point_pixel, curved, polarised, phi_carryover, tricubic, exact;
  TwoFloat subpixel, layer_step, pixel_area;
  float thickness;   // attenuation times layer_step
  float resolution;  // 1 / d_min, or 0
  std::int64_t sources, mosaics, orientations;
  std::int32_t table_shape[3];
  const Float64Bits *frame, *close_distance, *curvature, *incident, *wavelength, *weight, *orientation,
      *reciprocal_metric, *cells, *fudge, *default_factor, *kahn, *polarisation_axis, *scale, *background;
  const float* table;
  const std::uint8_t* mask;

 private:
  static const Float64Bits* bits_of(const double* from) { return reinterpret_cast<const Float64Bits*>(from); }
};

// The same for every pixel.
struct DiffractionCommon {
  TwoFloat axes[4][3];                           // origin, fast, slow, normal
  TwoFloat distance, inverse_distance, beam[3];  // of a curved detector
  TwoFloat pixel_close;
  TwoFloat scale;  // over the number of steps
  TwoFloat cells[3], square_volume, fudge;
  TwoFloat metric[6];  // inverse square Angstroms: aa, bb, cc, ab + ba, ac + ca, bc + cb
  float volume;
  float background, share, default_factor, kahn;  // share: of the background, in mode exact
  std::int64_t first_pixel;                       // that is computed
};

struct DiffractionSource {
  TwoFloat incident[3];
  TwoFloat inverse_wavelength;
  float along[3], across[3];  // E, B
  float sine;                 // of the angle between polarisation axis and beam
  float weight;
  float largest_square;  // of |d - incident|, where d_min is asked for
};

// One source with one orientation: a, b, c over the wavelength.
struct DiffractionStep {
  TwoFloat axes[3][3];
};

// Sums of the gradients, in columns.
struct DiffractionColumns {
  // Of one source: incident (3), wavelength, weight, and six moments of the polarisation.
  static constexpr int kOrientation = 9, kSource = 11;
  // Of the detector and what is one number: frame (12), close, scale, background, constant structure factor.
  static constexpr int kFrame = 16, kClose = 12, kScale = 13, kBackground = 14, kFactor = 15;
  // Of the shape: cells (3), fudge, metric (6).
  static constexpr int kShape = 10, kFudge = 3, kMetric = 4;
  // Of a curved detector: curvature (4), fast and slow axis (6).
  static constexpr int kCurved = 10;

  DiffractionColumns(std::int64_t orientations, std::int64_t source_count)
      : sources(kOrientation * orientations),
        frame(sources + kSource * source_count),
        shape(frame + kFrame),
        curved(shape + kShape),
        count(curved + kCurved) {}

  std::int64_t sources, frame, shape, curved, count;
};

// Offsets into the workspace, in floats.
struct DiffractionLayout {
  static constexpr int kMostThreads = 256;
  static constexpr std::int64_t kMostGroups = 512;  // that sum

  DiffractionLayout(const DiffractionTask& task, const Limits& limits, bool backward)
      : columns(task.orientations, task.sources), backward(backward) {
    group_size = limits.sub_group_size;
    while (2 * group_size <= kMostThreads && 2 * group_size <= limits.group_size) group_size *= 2;
    image_groups = (task.pixels() + group_size - 1) / group_size;
    const std::int64_t shared = backward && task.entries() > task.steps() ? task.entries() : task.steps();
    const std::int64_t filled = (shared + group_size - 1) / group_size;
    shared_groups = filled < kMostGroups ? filled : kMostGroups;
    std::int64_t at = 0;
    const auto take = [&](std::int64_t& offset, std::int64_t bytes) {
      offset = at;
      at += (bytes + kAligned - 1) / kAligned * kAligned / static_cast<std::int64_t>(sizeof(float));
    };
    take(common, sizeof(DiffractionCommon));
    take(sources, task.sources * static_cast<std::int64_t>(sizeof(DiffractionSource)));
    take(steps, task.steps() * static_cast<std::int64_t>(sizeof(DiffractionStep)));
    take(switch_off, sizeof(std::uint64_t));
    if (backward) {
      rows_of_a_group = group_size / limits.sub_group_size;
      // As many groups as 64 MiB of partial sums are, but at least 16.
      const std::int64_t fit = (std::int64_t{1} << 24) / (columns.count * rows_of_a_group);
      std::int64_t most = fit < 16 ? 16 : fit < kMostGroups ? fit : kMostGroups;
      if (limits.summing_groups > 0 && limits.summing_groups < most) most = limits.summing_groups;
      summing_groups = image_groups < most ? image_groups : most;
      take(partial, summing_groups * rows_of_a_group * columns.count * static_cast<std::int64_t>(sizeof(float)));
      take(totals, columns.count * static_cast<std::int64_t>(sizeof(float)));
      take(fixed, task.entries() * static_cast<std::int64_t>(sizeof(std::uint64_t)));
      take(largest, task.entries() * static_cast<std::int64_t>(sizeof(std::uint32_t)));
      // An entry gets one contribution of a pixel's step at most.
      std::int64_t most_terms = task.pixels() * task.steps() * task.oversample * task.oversample * task.layers;
      while (most_terms > 0) most_terms /= 2, ++spare_bits;
    }
    floats = at;
  }

  // Adds up the partial sums.
  ColumnSums sums(float* workspace) const {
    float* const to = workspace + totals;
    return {summing_groups * rows_of_a_group, columns.count, workspace + partial, columns.count, to, to};
  }

  static constexpr std::int64_t kAligned = 16;

  DiffractionColumns columns;
  bool backward;
  int group_size = 0, rows_of_a_group = 0;
  std::int64_t image_groups = 0, summing_groups = 0;
  std::int64_t shared_groups = 0;  // of a launch that shares steps and entries
  std::int64_t common, sources, steps, switch_off, partial = 0, totals = 0, fixed = 0, largest = 0, floats = 0;
  std::int32_t spare_bits = 1;  // of a sum over all contributions beyond one of them; one for the sign
};

// Where the workspace holds what.
struct DiffractionTables {
  SEM_DEVICE DiffractionTables(const DiffractionLayout& layout, float* workspace)
      : common(reinterpret_cast<DiffractionCommon*>(workspace + layout.common)),
        sources(reinterpret_cast<DiffractionSource*>(workspace + layout.sources)),
        steps(reinterpret_cast<DiffractionStep*>(workspace + layout.steps)),
        switch_off(reinterpret_cast<std::uint64_t*>(workspace + layout.switch_off)),
        fixed(reinterpret_cast<std::uint64_t*>(workspace + layout.fixed)),
        largest(reinterpret_cast<std::uint32_t*>(workspace + layout.largest)) {}

  DiffractionCommon* common;
  DiffractionSource* sources;
  DiffractionStep* steps;
  std::uint64_t* switch_off;  // the first step that is not interpolated: pixel, then 28 bits of the step
  std::uint64_t* fixed;       // gradients to the table in fixed point
  std::uint32_t* largest;     // bits of the largest contribution to each
};

}  // namespace sem::device
