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

// What is known of an image when its kernel is compiled. Plain is what most images are: mode nanobragg, a flat detector
// without absorption, one structure factor for every reflection and no d_min. Of Any not even the shape is known: one
// kernel for all, where speed does not matter.
template <DomainShape kShape>
struct Plain {
  static constexpr bool kPlain = true;
  using Lattice = LatticeFactor<kShape>;
};
template <DomainShape kShape>
struct General {
  static constexpr bool kPlain = false;
  using Lattice = LatticeFactor<kShape>;
};
struct Any {
  static constexpr bool kPlain = false;
  using Lattice = AnyLatticeFactor;
};

template <class Kind>
class ImageKernel {
 public:
  ImageKernel(const DiffractionPlan& plan, const SwitchOff& off)
      : plan_(plan),
        in_(plan.in),
        set_(plan.set),
        block_(plan.in),
        lattice_(block_, plan.set.shape),
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

 protected:
  static constexpr bool kPlain = Kind::kPlain;

  SEM_INLINE TileIndices indices(const TilePosition& at, const StepPlan& step, const Triple& start) const {
    return plan_.template indices<kPlain>(at, step, start);
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
  const typename Kind::Lattice lattice_;
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

SEM_OUT_OF_LINE inline bool any_set(const std::uint8_t* mask, LaneRange lanes) {
  for (int l = lanes.first; l <= lanes.last; ++l)
    if (mask[l] != 0) return true;
  return false;
}

// Calls visit(tile, lanes) for the tiles of a row that hold a pixel to compute, from left to right, until it returns
// false. Tiles begin at multiples of their size, so that a pixel's lane does not depend on the region.
template <int kPixels, class Visit>
void for_each_tile(const DiffractionInputs<float>& in, std::int64_t row, Visit visit) {
  const DiffractionSettings& set = in.settings;
  for (std::int64_t fast = set.fast_first / kPixels * kPixels; fast <= set.fast_last; fast += kPixels) {
    const LaneRange lanes = lanes_of<kPixels>(set, fast);
    const Tile tile{row, fast};
    if (in.mask != nullptr && !any_set(in.mask + tile.pixel(set), lanes)) continue;
    if (!visit(tile, lanes)) return;
  }
}

// The lane of the first pixel, to whose first step no orientation is carried over, or -1.
template <int kPixels>
int fresh_lane(const DiffractionPlan& plan, const Tile& tile) {
  const std::int64_t lane = plan.first_pixel - tile.pixel(plan.set);
  return plan.set.phi_carryover && lane >= 0 && lane < kPixels ? static_cast<int>(lane) : -1;
}

// The step from which on this image is not interpolated; `tables` holds a row's table for each thread.
SwitchOff find_switch_off(const DiffractionPlan& plan, Triple* tables, Queue queue);

// Calls run.operator()<Kind>() with that of the plan.
template <class Run>
void by_kind(const DiffractionPlan& plan, Run run) {
  const DiffractionSettings& set = plan.set;
  const bool absorbs = set.attenuation != 0 && set.layer_step != 0;
  const bool plain = set.mode == DiffractionMode::nanobragg && !set.curved && !absorbs && !(set.d_min > 0) &&
                     plan.in.table_shape[0] == 0;
  const auto with_shape = [&]<DomainShape kShape>() {
    plain ? run.template operator()<Plain<kShape>>() : run.template operator()<General<kShape>>();
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
