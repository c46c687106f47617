// Gradients of a diffraction image. A thread takes a pixel at a time, and a sub-group adds up what its threads have
// found, with its own row of partial sums; csrc/include/sem/diffraction.hpp has the formulas.
//
// Gradients to the table of structure factors go where the reflections are, which no order of additions could be fixed
// for without sorting: they are added as whole numbers, whose sum has no order. A pass before finds the largest
// contribution to every entry, and with it the unit of that entry.
#pragma once

#include "device/diffraction/cell.hpp"
#include "device/diffraction/pixel.hpp"
#include "device/fold.hpp"

namespace sem::device {

struct DiffractionCotangent {
  const float* grad_out;
  // Whether anybody reads the sums of source and frame but for weight, scale, background, factor.
  bool to_detector_and_beam;
};

// Orientations are metres of 1e-8: their gradients are summed per Angstrom, in float32's range.
inline constexpr float kSummedLength = 1e-10f;

// The power of two that contributions to an entry are multiplied by, so that all of them together fit 64 bits.
SEM_DEVICE std::int32_t fixed_point(std::uint32_t largest, std::int32_t spare_bits) {
  const std::int32_t exponent = static_cast<std::int32_t>(largest >> 23) - 127 + 2;  // with a margin of two
  return 62 - spare_bits - exponent;
}

// kMeasure: the pass before, which only finds the largest contributions to the table.
template <DomainShape kShape, bool kPlain, bool kMeasure, class Group>
class DiffractionBackwardPass {
 public:
  SEM_DEVICE DiffractionBackwardPass(const Group& group, const DiffractionTask& task,
                                     const DiffractionCotangent& cotangent, const DiffractionLayout& layout,
                                     float* workspace)
      : group_(group),
        task_(task),
        layout_(layout),
        tables_(layout, workspace),
        common_(*tables_.common),
        optics_(task, tables_),
        lattice_(common_),
        cell_(task, tables_),
        to_detector_and_beam_(cotangent.to_detector_and_beam && !kMeasure),
        grad_out_(cotangent.grad_out),
        row_(workspace + layout.partial +
             (group.id() * layout.rows_of_a_group + group.rank() / group.sub_group_size()) * layout.columns.count) {}

  // All pixels of this group.
  SEM_DEVICE void run() {
    if constexpr (!kMeasure) {
      for (std::int64_t k = group_.rank() % group_.sub_group_size(); k < layout_.columns.count;
           k += group_.sub_group_size())
        row_[k] = 0.0f;
      group_.barrier();
    }
    const std::int64_t end = chunk_begin(layout_.image_groups, layout_.summing_groups, group_.id() + 1);
    for (std::int64_t tile = chunk_begin(layout_.image_groups, layout_.summing_groups, group_.id()); tile < end;
         ++tile) {
      const std::int64_t pixel = tile * group_.size() + group_.rank(), first = common_.first_pixel;
      const bool computed = pixel < task_.pixels() && task_.computed(pixel);
      visit(computed ? pixel : 0, computed && pixel != first, false);
      // The first pixel has orientations of its own, and sums are taken together.
      if (first >= 0 && first / group_.size() == tile) visit(first, pixel == first, true);
    }
  }

 private:
  // The sums of a place, or of a pixel.
  struct FrameSums {
    float values[DiffractionColumns::kFrame] = {};
  };

  SEM_DEVICE void visit(std::int64_t pixel, bool active, bool fresh) {
    const std::int64_t slow = pixel / task_.fast_pixels, fast = pixel - slow * task_.fast_pixels;
    const std::int32_t places = optics_.places();
    const DiffractionPlace capturing = optics_.place(optics_.capturing_place());
    const bool exact = optics_.exact();
    const float grad = active ? grad_out_[pixel] : 0.0f;
    DiffractionPosition at, first, captured;
    FrameSums frame;
    float own = 0.0f, intensity = common_.background;
    optics_.locate(slow, fast, optics_.place(0), first);
    at = captured = first;
    if (!exact) {
      if (capturing.layer > 0) optics_.locate(slow, fast, capturing, captured);
      own = (optics_.capture(captured, capturing.layer) *
             (optics_.polarisation(first, optics_.source(0)) * optics_.solid_angle(first)))
                .high;
    }
    std::int64_t number = 0;
    for (std::int32_t p = 0; p < places; ++p) {
      const DiffractionPlace place = optics_.place(p);
      if (places > 1) optics_.locate(slow, fast, place, at);
      float by_d[3] = {}, by_p[3] = {};
      for (std::int64_t s = 0; s < task_.sources; ++s, number += task_.orientations) {
        const DiffractionSource& source = optics_.source(s);
        TwoFloat x[3];
        optics_.scattering(at, source, x);
        if (exact)
          own = (optics_.capture(at, place.layer) * (optics_.polarisation(at, source) * optics_.solid_angle(at))).high;
        const bool resolved = optics_.resolved(source, x);
        const float by_intensity = resolved ? grad * own * common_.scale.high : 0.0f;
        float by_x[3] = {};
        const float found = reflections(s, x, active, fresh && number == 0, DiffractionCell::time(pixel, number),
                                        by_intensity, by_x, frame.values[DiffractionColumns::kFactor]);
        if constexpr (!kMeasure) {
          const float term = resolved ? found : 0.0f;
          float sums[16] = {};
          for (int i = 0; i < 3; ++i) {
            by_d[i] += by_x[i];
            sums[i] = -by_x[i];
            sums[3] -= by_x[i] * x[i].high;
          }
          sums[4] = by_intensity * term;
          if (exact) {
            const float weighted = source.weight * term, before = common_.scale.high * weighted + common_.share;
            frame.values[DiffractionColumns::kScale] += grad * own * weighted;
            frame.values[DiffractionColumns::kBackground] += grad * own;
            if (to_detector_and_beam_)
              factor_gradients(at, source, place.layer, grad * own * before, true, true, by_d, by_p, frame, sums);
          } else {
            intensity += source.weight * term;
          }
          add(sums, layout_.columns.sources + DiffractionColumns::kSource * s, DiffractionColumns::kSource, active);
        }
      }
      if (to_detector_and_beam_) position_gradient(at, by_d, by_p, active, frame);
    }
    if constexpr (!kMeasure) {
      if (!exact) pixel_gradients(first, captured, capturing.layer, grad * own, intensity, active, frame);
      add(frame.values, layout_.columns.frame, DiffractionColumns::kFrame, active);
    }
  }

  // In mode nanobragg, what the factors of the whole pixel give; `own` is the gradient to its intensity but for scale.
  SEM_DEVICE void pixel_gradients(const DiffractionPosition& first, const DiffractionPosition& captured,
                                  std::int32_t layer, float own, float intensity, bool active, FrameSums& frame) {
    frame.values[DiffractionColumns::kScale] += own * intensity;
    frame.values[DiffractionColumns::kBackground] += own;
    if (!to_detector_and_beam_) return;
    const float by_log = own * intensity * common_.scale.high;
    const bool one_layer = layer == 0;
    float by_d[3] = {}, by_p[3] = {}, sums[16] = {};
    factor_gradients(first, optics_.source(0), 0, by_log, true, one_layer, by_d, by_p, frame, sums);
    position_gradient(first, by_d, by_p, active, frame);
    if (task_.polarised) add(sums, layout_.columns.sources, DiffractionColumns::kSource, active);
    if (one_layer) return;
    float captured_by_d[3] = {}, captured_by_p[3] = {};
    factor_gradients(captured, optics_.source(0), layer, by_log, false, true, captured_by_d, captured_by_p, frame,
                     sums);
    position_gradient(captured, captured_by_d, captured_by_p, active, frame);
  }

  // What one source's reflections give; returns sum F_cell^2 L.
  SEM_DEVICE float reflections(std::int64_t s, const TwoFloat (&x)[3], bool active, bool fresh, std::uint64_t time,
                               float by_intensity, float (&by_x)[3], float& by_factor_sum) {
    const bool tabled = !kPlain && task_.table_shape[0] > 0;
    const DiffractionSource& source = optics_.source(s);
    const float weighted = by_intensity * source.weight;
    const float per_length = kSummedLength * source.inverse_wavelength.high;
    constexpr int kSums = kShape == DomainShape::gauss ? 16 : 4;
    float total = 0.0f, shape[kSums] = {}, standard = 0.0f;
    for (std::int64_t o = 0; o < task_.orientations; ++o) {
      const std::int64_t orientation = optics_.orientation_of(o, fresh);
      const DiffractionStep& step = optics_.step(s, orientation);
      const DiffractionIndices h = optics_.indices(step, x);
      LatticeSlopes slopes;
      lattice_.slopes(h, slopes);
      float f = common_.default_factor, by_index[3] = {};
      if (tabled) {
        const DiffractionCell::Place place = cell_.place(h, time + static_cast<std::uint64_t>(o));
        f = cell_.template value<true>(place, by_index);
        const float by_factor = 2.0f * weighted * f * slopes.value;
        if (active && by_factor != 0.0f) to_table(place, by_factor);
        if (place.index < 0) standard += by_factor;
        for (float& slope : by_index) slope *= by_factor;
      }
      if constexpr (!kMeasure) {
        const float square = f * f, by_lattice = weighted * square;
        total += square * slopes.value;
        float axes[16] = {};
        SEM_UNROLL
        for (int a = 0; a < 3; ++a) {
          const float by_h = by_lattice * slopes.by_delta[a] + by_index[a];
          SEM_UNROLL
          for (int i = 0; i < 3; ++i) {
            axes[3 * a + i] = by_h * (x[i].high * per_length);
            by_x[i] += by_h * step.axes[a][i].high;
          }
          shape[a] += by_lattice * slopes.by_cells[a];
        }
        shape[DiffractionColumns::kFudge] += by_lattice * slopes.by_fudge;
        if constexpr (kShape == DomainShape::gauss)
          for (int k = 0; k < 6; ++k) shape[DiffractionColumns::kMetric + k] += by_lattice * slopes.by_metric[k];
        add(axes, DiffractionColumns::kOrientation * orientation, DiffractionColumns::kOrientation, active);
      }
    }
    if constexpr (!kMeasure) {
      add(shape, layout_.columns.shape, min(kSums, DiffractionColumns::kShape), active);
      // total is F^2 sum L with one F
      if (!tabled && common_.default_factor != 0.0f) standard = weighted * total * (2.0f / common_.default_factor);
      by_factor_sum += standard;
    }
    return total;
  }

  SEM_DEVICE void to_table(const DiffractionCell::Place& place, float gradient) const {
    cell_.spread(place, gradient, [&](std::int64_t entry, float share) {
      if constexpr (kMeasure) {
        atomic_max(tables_.largest + entry, static_cast<std::uint32_t>(bits(abs(share))));
      } else {
        const std::uint32_t largest = tables_.largest[entry];
        if (largest == 0 || largest >= 0x7f800000u) return;  // all are 0, or the sum is not finite
        const float units = scaled(share, fixed_point(largest, layout_.spare_bits));
        atomic_add(tables_.fixed + entry,
                   static_cast<std::uint64_t>(static_cast<std::int64_t>(units + (units < 0.0f ? -0.5f : 0.5f))));
      }
    });
  }

  SEM_DEVICE void factor_gradients(const DiffractionPosition& at, const DiffractionSource& source, std::int32_t layer,
                                   float g, bool seen, bool captured, float (&by_d)[3], float (&by_p)[3],
                                   FrameSums& frame, float (&sums)[16]) const {
    if (seen) {
      optics_.solid_angle_gradient(at, g, by_p, frame.values[DiffractionColumns::kClose]);
      if (task_.polarised) optics_.polarisation_gradient(at, source, g, by_d, sums + 5);
    }
    if (captured && optics_.absorbs()) optics_.capture_gradient(at, layer, g, by_d, frame.values + 9);
  }

  // From gradients at the direction d = p / |p| and at p itself to the detector's frame.
  SEM_DEVICE void position_gradient(const DiffractionPosition& at, const float (&by_d)[3], float (&by_p)[3],
                                    bool active, FrameSums& frame) const {
    const float radial = by_d[0] * at.d[0] + by_d[1] * at.d[1] + by_d[2] * at.d[2];
    for (int i = 0; i < 3; ++i) by_p[i] += at.inverse_r.high * (by_d[i] - radial * at.d[i]);
    if (optics_.curved()) unbend(at, by_p, active);
    for (int i = 0; i < 3; ++i) {
      frame.values[i] += by_p[i];
      frame.values[3 + i] += by_p[i] * at.f;
      frame.values[6 + i] += by_p[i] * at.s;
      frame.values[9 + i] += by_p[i] * at.o;
    }
  }

  struct Turn {
    float v[3], axis[3], angle;
  };
  // Of v turned about an axis: gradients to v, axis and angle.
  static SEM_DEVICE Turn turn_gradient(const TwoFloat (&v)[3], const TwoFloat (&axis)[3], TwoFloat angle,
                                       const float (&g)[3]) {
    float sine, cosine, av = 0.0f, ag = 0.0f, gv = 0.0f, by_angle = 0.0f;
    sincos(angle.high, sine, cosine);
    for (int i = 0; i < 3; ++i) {
      av += axis[i].high * v[i].high;
      ag += axis[i].high * g[i];
      gv += g[i] * v[i].high;
    }
    Turn out;
    for (int i = 0; i < 3; ++i) {
      const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
      const float axis_v = axis[j].high * v[k].high - axis[k].high * v[j].high;
      const float axis_g = axis[j].high * g[k] - axis[k].high * g[j], v_g = v[j].high * g[k] - v[k].high * g[j];
      by_angle += g[i] * axis_v;
      out.axis[i] = sine * v_g + (1.0f - cosine) * (av * g[i] + ag * v[i].high);
      out.v[i] = cosine * g[i] - sine * axis_g + (1.0f - cosine) * ag * axis[i].high;
    }
    out.angle = cosine * by_angle - sine * gv + sine * av * ag;
    return out;
  }

  // Turns a gradient at the bent position into one at the flat one, and adds to that of the axes and the curvature.
  SEM_DEVICE void unbend(const DiffractionPosition& at, float (&by_p)[3], bool active) const {
    const TwoFloat y = at.flat[1] * common_.inverse_distance, z = at.flat[2] * common_.inverse_distance;
    TwoFloat start[3], once[3];
    for (int i = 0; i < 3; ++i) start[i] = common_.distance * common_.beam[i];
    turned(start, common_.axes[2], y, once);
    const Turn second = turn_gradient(once, common_.axes[1], z, by_p);
    const Turn first = turn_gradient(start, common_.axes[2], y, second.v);
    float sums[16] = {};
    sums[0] = -(first.angle * y.high + second.angle * z.high) * common_.inverse_distance.high;
    for (int i = 0; i < 3; ++i) {
      sums[0] += first.v[i] * common_.beam[i].high;
      sums[1 + i] = common_.distance.high * first.v[i];
      sums[4 + i] = second.axis[i];
      sums[7 + i] = first.axis[i];
    }
    add(sums, layout_.columns.curved, DiffractionColumns::kCurved, active);
    by_p[0] = 0.0f;
    by_p[1] = first.angle * common_.inverse_distance.high;
    by_p[2] = second.angle * common_.inverse_distance.high;
  }

  // To this sub-group's sums, from all of its threads.
  template <int kCount>
  SEM_DEVICE void add(float (&values)[kCount], std::int64_t column, int count, bool active) const {
    SEM_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = active ? values[i] : 0.0f;
    fold(group_, values, row_ + column, count);
  }

  const Group& group_;
  const DiffractionTask& task_;
  const DiffractionLayout& layout_;
  const DiffractionTables tables_;
  const DiffractionCommon& common_;
  const DiffractionPixel<kPlain> optics_;
  const DiffractionLattice<kShape> lattice_;
  const DiffractionCell cell_;
  const bool to_detector_and_beam_;
  const float* grad_out_;
  float* row_;
};

}  // namespace sem::device
