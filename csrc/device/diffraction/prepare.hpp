// The first launch of a diffraction image: what is the same for all pixels.
#pragma once

#include "device/diffraction/plan.hpp"

namespace sem::device {

SEM_DEVICE void read_vector(const Float64Bits* from, TwoFloat (&to)[3]) {
  for (int i = 0; i < 3; ++i) to[i] = read_float64(from[i]);
}
SEM_DEVICE TwoFloat cross_component(const TwoFloat (&a)[3], const TwoFloat (&b)[3], int i) {
  const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
  return a[j] * b[k] - a[k] * b[j];
}

SEM_DEVICE void prepare_common(const DiffractionTask& task, DiffractionCommon& to) {
  for (int a = 0; a < 4; ++a) read_vector(task.frame + 3 * a, to.axes[a]);
  to.distance = read_float64(task.curvature[0]);
  to.inverse_distance = reciprocal(to.distance);
  read_vector(task.curvature + 1, to.beam);
  to.pixel_close = task.pixel_area * read_float64(task.close_distance[0]);
  const float places = task.places_of_a_layer();
  const TwoFloat places_of_sources = places * TwoFloat{static_cast<float>(task.sources), 0.0f};
  to.scale = read_float64(task.scale[0]) *
             reciprocal(places_of_sources * TwoFloat{static_cast<float>(task.orientations), 0.0f});
  read_vector(task.cells, to.cells);
  const TwoFloat volume = to.cells[0] * to.cells[1] * to.cells[2];
  to.volume = volume.high;
  to.square_volume = volume * volume;
  to.fudge = read_float64(task.fudge[0]);
  constexpr TwoFloat kSquareAngstrom = two_float(1e-20);
  for (int a = 0; a < 3; ++a) {
    const int b = a == 2 ? 1 : 0, c = a == 0 ? 1 : 2;  // ab, ac, bc
    to.metric[a] = kSquareAngstrom * read_float64(task.reciprocal_metric[4 * a]);
    to.metric[3 + a] = kSquareAngstrom * (read_float64(task.reciprocal_metric[3 * b + c]) +
                                          read_float64(task.reciprocal_metric[3 * c + b]));
  }
  const TwoFloat background = read_float64(task.background[0]);
  to.background = background.high;
  to.share = (background * reciprocal(places_of_sources)).high;
  to.default_factor = read_float64(task.default_factor[0]).high;
  to.kahn = read_float64(task.kahn[0]).high;
}

SEM_DEVICE void prepare_source(const DiffractionTask& task, std::int64_t s, DiffractionSource& to) {
  read_vector(task.incident + 3 * s, to.incident);
  const TwoFloat wavelength = read_float64(task.wavelength[s]);
  to.inverse_wavelength = reciprocal(wavelength);
  to.weight = read_float64(task.weight[s]).high;
  to.largest_square = (wavelength.high * task.resolution) * (wavelength.high * task.resolution);
  TwoFloat axis[3], across[3];
  read_vector(task.polarisation_axis, axis);
  for (int i = 0; i < 3; ++i) across[i] = cross_component(axis, to.incident, i);
  const TwoFloat square = dot(across, across), sine = sqrt(square), inverse = reciprocal(sine);
  to.sine = sine.high;
  for (int i = 0; i < 3; ++i) {
    across[i] = task.polarised ? across[i] * inverse : TwoFloat{};
    to.across[i] = across[i].high;
  }
  for (int i = 0; i < 3; ++i) to.along[i] = cross_component(to.incident, across, i).high;
}

// The first pixel that is computed, where that matters, or -1; called by a whole group.
template <class Group>
SEM_DEVICE std::int64_t first_computed_pixel(const Group& group, const DiffractionTask& task) {
  if (!task.phi_carryover || task.pixels() == 0) return -1;
  const std::int64_t begin = std::int64_t{task.slow_first} * task.fast_pixels + task.fast_first;
  const std::int64_t end = std::int64_t{task.slow_last} * task.fast_pixels + task.fast_last + 1;
  for (std::int64_t pixel = begin; pixel < end; pixel += group.size()) {
    const std::int64_t own = pixel + group.rank();
    const bool found = own < end && task.computed(own);
    if (!group.any(found)) continue;
    for (std::int64_t p = pixel;; ++p)
      if (task.computed(p)) return p;
  }
  return -1;
}

// Groups of the launch share the steps and, for the gradients, the entries of the table.
template <class Group>
SEM_DEVICE void diffraction_prepare(const Group& group, const DiffractionTask& task, const DiffractionLayout& layout,
                                    float* workspace) {
  const DiffractionTables tables(layout, workspace);
  if (group.id() == 0) {
    const std::int64_t first = first_computed_pixel(group, task);
    if (group.rank() == 0) {
      prepare_common(task, *tables.common);
      tables.common->first_pixel = first;
      *tables.switch_off = ~std::uint64_t{0};
    }
    for (std::int64_t s = group.rank(); s < task.sources; s += group.size()) prepare_source(task, s, tables.sources[s]);
  }
  const std::int64_t own = group.id() * group.size() + group.rank(), all = group.count() * group.size();
  for (std::int64_t k = own; k < task.steps(); k += all) {
    const std::int64_t s = k / task.orientations, o = k - s * task.orientations;
    const TwoFloat inverse_wavelength = reciprocal(read_float64(task.wavelength[s]));
    for (int a = 0; a < 3; ++a)
      for (int i = 0; i < 3; ++i)
        tables.steps[k].axes[a][i] = inverse_wavelength * read_float64(task.orientation[9 * o + 3 * a + i]);
  }
  for (std::int64_t k = own; layout.backward && k < task.entries(); k += all) {
    tables.fixed[k] = 0;
    tables.largest[k] = 0;
  }
}

}  // namespace sem::device
