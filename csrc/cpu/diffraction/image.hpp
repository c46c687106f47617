// What every pass over an image shares: tiles of neighbouring pixels, their Miller indices and structure factors, and
// the step from which on nothing is interpolated.
#pragma once

#include "cpu/diffraction/cell.hpp"
#include "cpu/diffraction/factors.hpp"
#include "cpu/diffraction/lattice.hpp"
#include "cpu/diffraction/plan.hpp"

namespace sem::cpu::SEM_ISA {

// Sixteen neighbouring pixels of a row.
struct Tile {
  std::int64_t row, fast;

  std::int64_t pixel(const DiffractionSettings& set) const { return row * set.fast_pixels + fast; }
};

// kPlain is what most images are: mode nanobragg, a flat detector without absorption, one structure factor for every
// reflection and no d_min.
template <DomainShape kShape, bool kPlain>
class ImageKernel {
 public:
  ImageKernel(const DiffractionPlan& plan, const SwitchOff& off)
      : plan_(plan),
        in_(plan.in),
        set_(plan.set),
        block_(plan.in),
        lattice_(block_),
        cell_(plan.in),
        factors_(plan),
        off_(off),
        exact_(plan.set.mode == DiffractionMode::exact),
        exact_scale_(plan.in.scale[0] /
                     (static_cast<double>(plan.steps_per_place) * set_.oversample * set_.oversample)),
        scale_(static_cast<float>(exact_scale_)),
        background_(static_cast<float>(plan.in.background[0])),
        share_(static_cast<float>(plan.in.background[0] /
                                  (static_cast<double>(in_.sources) * set_.oversample * set_.oversample))),
        default_(static_cast<float>(plan.in.default_factor[0])) {}

  // The first step of this tile that cannot be interpolated, if there is one.
  bool find_outside(const Tile& tile, const Triple* table, bool fresh, int first_lane, int last_lane,
                    SwitchOff& off) const {
    TilePosition at;
    std::int32_t earliest[kLanes], number = 0;
    for (std::int32_t& step : earliest) step = -1;
    plan_.for_each_place([&](const Place& place) {
      const Triple* row = table + plan_.row_table_at(place);
      plan_.template locate<kPlain>(row, tile.fast, place, at);
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const vint resolved = factors_.resolved(at, s);
        for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
          const std::int64_t orientation = plan_.orientation_of(o, fresh);
          const std::int64_t step = s * plan_.orientations + orientation;
          const TileIndices h = indices(at, plan_.step(s, orientation), row[plan_.kHead + step]);
          const vint outside = ~cell_.far_from_the_ends(h) & resolved;
          if (!any(outside)) continue;
          for (int l = first_lane; l <= last_lane; ++l)
            if (outside[l] != 0 && earliest[l] < 0) earliest[l] = number;
        }
      }
    });
    const std::int64_t pixel = tile.pixel(set_);
    for (int l = first_lane; l <= last_lane; ++l)
      if (earliest[l] >= 0 && (in_.mask == nullptr || in_.mask[pixel + l] != 0)) {
        off = {pixel + l, earliest[l]};
        return true;
      }
    return false;
  }

 protected:
  SEM_INLINE TileIndices indices(const TilePosition& at, const StepPlan& step, const Triple& start) const {
    TileIndices h;
    for (int a = 0; a < 3; ++a) {
      vdouble along;
      if (!curved())
        along = at.f * step.along_fast[a] + start[a];
      else
        along = at.p[0] * step.axes[a][0] + at.p[1] * step.axes[a][1] + at.p[2] * step.axes[a][2];
      const vdouble exact = along * at.inverse_r - step.at_beam[a];
      h.whole[a] = nearest_whole(exact);
      h.rest[a] = exact - h.whole[a];
      h.delta[a] = to_float(h.rest[a]);
    }
    return h;
  }

  bool exact() const { return !kPlain && exact_; }
  bool absorbs() const { return !kPlain && !factors_.captures_all(); }
  bool curved() const { return !kPlain && set_.curved; }

  vint interpolated_steps(const Tile& tile) const {
    return !kPlain && set_.tricubic ? cell_.interpolated_steps(off_, tile.pixel(set_)) : vint{};
  }

  SEM_INLINE vfloat cell_value(const TileIndices& h, vint limit, std::int32_t number) const {
    if (in_.table_shape[0] == 0) return broadcast(default_);
    vfloat unused[3];
    return cell_.template value<false>(cell_.place(h, limit, number), unused);
  }

  const DiffractionPlan& plan_;
  const DiffractionInputs<float>& in_;
  const DiffractionSettings& set_;
  const BlockShape block_;
  const LatticeFactor<kShape> lattice_;
  const CellTable cell_;
  const Factors factors_;
  const SwitchOff off_;
  const bool exact_;
  const double exact_scale_;
  const float scale_, background_;
  const float share_;  // of the background, in mode exact
  const float default_;
};

// Which lanes of a tile are computed.
struct LaneRange {
  int first, last;
};
template <int kPixels>
LaneRange lanes_of(const DiffractionSettings& set, std::int64_t fast) {
  const std::int64_t first = set.fast_first - fast, last = set.fast_last - fast;
  return {first > 0 ? static_cast<int>(first) : 0, last < kPixels - 1 ? static_cast<int>(last) : kPixels - 1};
}
inline bool chosen(const DiffractionInputs<float>& in, std::int64_t pixel) {
  return in.mask == nullptr || in.mask[pixel] != 0;
}

// Calls visit(tile, lanes) for the tiles of a row that hold a pixel to compute, from left to right, until it returns
// false. Tiles begin at multiples of their size, so that a pixel's lane does not depend on the region.
template <int kPixels, class Visit>
void for_each_tile(const DiffractionInputs<float>& in, std::int64_t row, Visit visit) {
  const DiffractionSettings& set = in.settings;
  for (std::int64_t fast = set.fast_first / kPixels * kPixels; fast <= set.fast_last; fast += kPixels) {
    const LaneRange lanes = lanes_of<kPixels>(set, fast);
    bool needed = in.mask == nullptr;
    for (int l = lanes.first; l <= lanes.last; ++l) needed = needed || chosen(in, row * set.fast_pixels + fast + l);
    if (needed && !visit(Tile{row, fast}, lanes)) return;
  }
}

// The lane of the first pixel, which no orientation is carried over to, or -1.
template <int kPixels>
int fresh_lane(const DiffractionPlan& plan, const Tile& tile) {
  const std::int64_t lane = plan.first_pixel - tile.pixel(plan.set);
  return plan.set.phi_carryover && lane >= 0 && lane < kPixels ? static_cast<int>(lane) : -1;
}

template <DomainShape kShape, bool kPlain>
SwitchOff find_switch_off(const DiffractionPlan& plan, Triple* tables, Queue queue) {
  SwitchOff off;
  const DiffractionSettings& set = plan.set;
  if (!set.tricubic || set.mode == DiffractionMode::exact) return off;
  const ImageKernel<kShape, kPlain> kernel(plan, off);
  std::int64_t earliest_row = INT64_MAX;
#pragma omp parallel num_threads(queue.threads)
  {
    Triple* table = tables + thread_index() * plan.row_table_size();
#pragma omp for schedule(dynamic, 4)
    for (std::int64_t row = set.slow_first; row <= set.slow_last; ++row) {
      std::int64_t known;
#pragma omp atomic read
      known = earliest_row;
      if (row > known) continue;
      plan.fill_row_table(row, table);
      for_each_tile<kLanes>(plan.in, row, [&](const Tile& tile, LaneRange lanes) {
        SwitchOff found;
        const int lone = fresh_lane<kLanes>(plan, tile);
        bool any_found = false;
        if (lone >= 0) any_found = kernel.find_outside(tile, table, true, lone, lone, found);
        if (!any_found)
          any_found = kernel.find_outside(tile, table, false, lone < 0 ? lanes.first : lone + 1, lanes.last, found);
        if (!any_found) return true;
#pragma omp critical(sem_diffraction_switch_off)
        {
          if (found.pixel < off.pixel) off = found;
#pragma omp atomic write
          earliest_row = off.pixel / set.fast_pixels;
        }
        return false;
      });
    }
  }
  return off;
}

// Calls run.operator()<shape, plain>() with those of the plan.
template <class Run>
void by_kind(const DiffractionPlan& plan, Run run) {
  const auto with_shape = [&]<DomainShape kShape>() {
    const DiffractionSettings& set = plan.set;
    const bool absorbs = set.attenuation != 0 && set.layer_step != 0;
    const bool plain = set.mode == DiffractionMode::nanobragg && !set.curved && !absorbs && !(set.d_min > 0) &&
                       plan.in.table_shape[0] == 0;
    plain ? run.template operator()<kShape, true>() : run.template operator()<kShape, false>();
  };
  switch (plan.set.shape) {
    case DomainShape::square:
      return with_shape.template operator()<DomainShape::square>();
    case DomainShape::round:
      return with_shape.template operator()<DomainShape::round>();
    case DomainShape::gauss:
      return with_shape.template operator()<DomainShape::gauss>();
    case DomainShape::tophat:
      return with_shape.template operator()<DomainShape::tophat>();
  }
}

}  // namespace sem::cpu::SEM_ISA
