// The image: a thread computes one pixel, its steps in order.
#pragma once

#include "device/diffraction/cell.hpp"
#include "device/diffraction/pixel.hpp"

namespace sem::device {

// Sum and what its rounding lost, so that thousands of steps stay at float32's precision.
struct CompensatedSum {
  float value = 0, lost = 0;

  SEM_DEVICE void add(float term) {
    const float corrected = term - lost, next = value + corrected;
    lost = (next - value) - corrected;
    value = next;
  }
};

template <DomainShape kShape, bool kPlain>
SEM_DEVICE float diffraction_pixel(const DiffractionTask& task, const DiffractionTables& tables, std::int64_t pixel) {
  const DiffractionPixel<kPlain> optics(task, tables);
  const DiffractionCommon& common = *tables.common;
  const DiffractionLattice<kShape> lattice(common);
  const std::int64_t slow = pixel / task.fast_pixels, fast = pixel - slow * task.fast_pixels;
  const bool fresh = pixel == common.first_pixel, exact = optics.exact();
  const std::int32_t places = optics.places();
  CompensatedSum total;
  if (!exact) total.value = common.background;
  TwoFloat own{};
  float capture = 1.0f;
  DiffractionPosition at;
  std::int64_t number = 0;
  for (std::int32_t p = 0; p < places; ++p) {
    const DiffractionPlace place = optics.place(p);
    optics.locate(slow, fast, place, at);
    if (exact || p == optics.capturing_place()) capture = optics.capture(at, place.layer);
    if (!exact && p == 0) own = optics.polarisation(at, optics.source(0)) * optics.solid_angle(at);
    for (std::int64_t s = 0; s < task.sources; ++s) {
      const DiffractionSource& source = optics.source(s);
      TwoFloat x[3];
      optics.scattering(at, source, x);
      const float constant = source.weight * common.default_factor * common.default_factor;
      CompensatedSum sum = exact ? CompensatedSum{} : total;
      const CompensatedSum before = sum;
      for (std::int64_t o = 0; o < task.orientations; ++o, ++number) {
        const DiffractionIndices h = optics.indices(optics.step(s, optics.orientation_of(o, fresh && number == o)), x);
        float factor = constant;
        if (!kPlain && task.table_shape[0] > 0) {
          const DiffractionCell cell(task, tables);
          float unused[3];
          const float f = cell.template value<false>(cell.place(h, DiffractionCell::time(pixel, number)), unused);
          factor = source.weight * f * f;
        }
        sum.add(lattice.value(h) * factor);
      }
      if (!optics.resolved(source, x)) sum = before;
      if (exact) {
        const TwoFloat factor = capture * (optics.polarisation(at, source) * optics.solid_angle(at));
        total.add((common.scale.high * sum.value + common.share) * factor.high);
      } else {
        total = sum;
      }
    }
  }
  return exact ? total.value : (total.value * (common.scale * (capture * own))).high;
}

template <DomainShape kShape, bool kPlain, class Group>
SEM_DEVICE void diffraction_forward(const Group& group, const DiffractionTask& task, const DiffractionLayout& layout,
                                    float* workspace, float* out) {
  const std::int64_t pixel = group.id() * group.size() + group.rank();
  if (pixel >= task.pixels()) return;
  out[pixel] = task.computed(pixel)
                   ? diffraction_pixel<kShape, kPlain>(task, DiffractionTables(layout, workspace), pixel)
                   : 0.0f;
}

// Finds the first step, in the order pixels and steps are computed in, that cannot be interpolated.
template <class Group>
SEM_DEVICE void diffraction_switch_off(const Group& group, const DiffractionTask& task, const DiffractionLayout& layout,
                                       float* workspace) {
  const std::int64_t pixel = group.id() * group.size() + group.rank();
  if (pixel >= task.pixels() || !task.computed(pixel)) return;
  const DiffractionTables tables(layout, workspace);
  if (atomic_load(tables.switch_off) < DiffractionCell::time(pixel, 0)) return;
  const DiffractionPixel<false> optics(task, tables);
  const std::int64_t slow = pixel / task.fast_pixels, fast = pixel - slow * task.fast_pixels;
  const bool fresh = pixel == tables.common->first_pixel;
  std::int64_t number = 0;
  for (std::int32_t p = 0; p < optics.places(); ++p) {
    DiffractionPosition at;
    optics.locate(slow, fast, optics.place(p), at);
    for (std::int64_t s = 0; s < task.sources; ++s) {
      TwoFloat x[3];
      optics.scattering(at, optics.source(s), x);
      const bool resolved = optics.resolved(optics.source(s), x);
      for (std::int64_t o = 0; o < task.orientations; ++o, ++number) {
        const DiffractionIndices h = optics.indices(optics.step(s, optics.orientation_of(o, fresh && number == o)), x);
        if (!resolved || DiffractionCell::far_from_the_ends(task, h)) continue;
        return atomic_min(tables.switch_off, DiffractionCell::time(pixel, number));
      }
    }
  }
}

}  // namespace sem::device
