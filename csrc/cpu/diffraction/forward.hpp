// The image of a tile, and, for a trace, every value on the way to it.
#pragma once

#include <type_traits>

#include "cpu/diffraction/image.hpp"

namespace sem::cpu::SEM_ISA {

// Sum and what its rounding lost, so that thousands of steps stay at float32's precision.
struct Sum {
  vfloat value{}, lost{};

  SEM_INLINE void add(vfloat term) {
    const vfloat corrected = term - lost, next = value + corrected;
    lost = (next - value) - corrected;
    value = next;
  }
};

// A watcher is told every value that a kernel computes on the way to the image; this one compiles to nothing.
struct Unwatched {
  static constexpr bool kWatches = false;
};

template <class Kind>
class ForwardKernel : public ImageKernel<Kind> {
 public:
  using ImageKernel<Kind>::ImageKernel;

  // Two tiles side by side: one alone would wait for its own square root and divisions.
  static constexpr int kPair = 2;

  template <class Watch = Unwatched>
  void forward(const Tile& tile, const Triple* table, bool fresh, vfloat (&image)[kPair], Watch&& watch = {}) const {
    constexpr bool kWatched = std::remove_cvref_t<Watch>::kWatches;
    TilePosition at[kPair];
    Sum total[kPair];
    vdouble own[kPair] = {}, capture[kPair] = {};
    vint limit[kPair];
    both([&](auto t) SEM_INLINE_LAMBDA {
      if (!exact()) total[t].value = broadcast(background_);
      limit[t] = interpolated_steps({tile.row, tile.fast + t * kLanes});
    });
    std::int32_t number = 0;
    plan_.for_each_place([&](const Place& place) SEM_INLINE_LAMBDA {
      const Triple* row = table + plan_.row_table_at(place);
      const bool is_first = place == plan_.first_place(), captures = place == plan_.capturing_place();
      both([&](auto t) SEM_INLINE_LAMBDA {
        plan_.template locate<kPlain>(row, tile.fast + t * kLanes, place, at[t]);
        if (absorbs() && (exact() || captures)) capture[t] = to_double(factors_.capture(at[t], place.layer));
        if constexpr (kWatched) watch.on_place(t, place, at[t], factors_);
      });
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const float weight = plan_.source(s).weight;
        const vfloat constant = broadcast(weight * default_ * default_);
        Sum sum[kPair];
        both([&](auto t) SEM_INLINE_LAMBDA {
          if (exact() || (is_first && s == 0))
            own[t] = factors_.template polarisation<kPlain>(at[t], s) * factors_.solid_angle(at[t]);
          if (!exact()) sum[t] = total[t];
          if constexpr (kWatched) watch.on_source(t, s, at[t], factors_);
        });
        for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
          const std::int64_t orientation = plan_.orientation_of(o, fresh && number == o);
          const StepPlan& step = plan_.step(s, orientation);
          const Triple& start = row[plan_.kHead + s * plan_.orientations + orientation];
          both([&](auto t) SEM_INLINE_LAMBDA {
            const TileIndices h = indices(at[t], step, start);
            const vfloat lattice = lattice_.value(h.rest, h.delta);
            vfloat f = broadcast(default_);
            if constexpr (kPlain) {
              sum[t].add(lattice * constant);
            } else {
              f = cell_value(h, limit[t], number);
              sum[t].add((weight * f * f) * lattice);
            }
            if constexpr (kWatched) watch.on_step(t, o, h, lattice_, lattice, f, sum[t].value);
          });
        }
        both([&](auto t) SEM_INLINE_LAMBDA {
          if (!kPlain && set_.d_min > 0) {
            const vint resolved = factors_.resolved(at[t], s);
            const Sum before = exact() ? Sum{} : total[t];
            sum[t] = {select(resolved, sum[t].value, before.value), select(resolved, sum[t].lost, before.lost)};
          }
          if (exact()) {
            const vdouble factor = absorbs() ? own[t] * capture[t] : own[t];
            total[t].add((scale_ * sum[t].value + share_) * to_float(factor));
          } else {
            total[t] = sum[t];
          }
        });
      }
    });
    both([&](auto t) SEM_INLINE_LAMBDA {
      if (absorbs()) own[t] *= capture[t];
      image[t] = exact() ? total[t].value : to_float(to_double(total[t].value) * (exact_scale_ * own[t]));
      if constexpr (kWatched) watch.on_image(t, total[t].value, image[t]);
    });
  }

 private:
  // For both tiles, with constant indices: arrays that a loop indexes would stay in memory.
  template <class Visit>
  static SEM_INLINE void both(Visit visit) {
    visit(std::integral_constant<int, 0>());
    visit(std::integral_constant<int, 1>());
  }

  using Base = ImageKernel<Kind>;
  using Base::absorbs;
  using Base::background_;
  using Base::cell_value;
  using Base::default_;
  using Base::exact;
  using Base::exact_scale_;
  using Base::factors_;
  using Base::in_;
  using Base::indices;
  using Base::interpolated_steps;
  using Base::kPlain;
  using Base::lattice_;
  using Base::plan_;
  using Base::scale_;
  using Base::set_;
  using Base::share_;
};

}  // namespace sem::cpu::SEM_ISA
