// What is the same for every pixel of an image, in double; and the coordinates of sixteen pixels of a row.
//
// Miller indices are h = (a.p) / (wavelength |p|) - a.incident / wavelength. Along a row p is linear in the fast
// coordinate, so a.p is one multiply-add in double: exact indices cost less than rounded ones by three products each.
#pragma once

#include "cpu/scratch.hpp"
#include "cpu/vector_math.hpp"
#include "cpu/wide.hpp"
#include "sem/diffraction.hpp"

namespace sem::cpu::SEM_ISA {

struct Triple {
  double x[3];

  SEM_INLINE double operator[](int i) const { return x[i]; }
};
inline Triple triple(const double* from) { return {{from[0], from[1], from[2]}}; }
inline double dot(const Triple& a, const Triple& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
inline Triple cross(const Triple& a, const Triple& b) {
  return {{a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}};
}
inline Triple combine(double s, const Triple& a, double t, const Triple& b) {
  return {{s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]}};
}
inline Triple scaled(double s, const Triple& a) { return combine(s, a, 0, a); }

// Rodrigues' rotation about a unit axis.
inline Triple rotated(const Triple& v, const Triple& axis, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  return combine(1, combine(c, v, s, cross(axis, v)), (1 - c) * dot(axis, v), axis);
}

struct SourcePlan {
  Triple incident, along, across;   // i, E, B
  double along_fast;                // incident . fast
  double inverse_wavelength, sine;  // sine of the angle between polarisation axis and beam
  float weight;
  float largest_square;  // of |d - incident|, where d_min is asked for
};

// One source with one orientation; a, b, c over the wavelength.
struct StepPlan {
  Triple axes[3];
  Triple at_beam, along_fast;  // axes . incident, axes . fast
  float axes_float[3][3];
};

// The pixels' coordinates at one subpixel and layer.
struct TilePosition {
  Triple start;  // of the row: position of fast coordinate 0
  vdouble f, inverse_r;
  vdouble p[3];
  vfloat d[3], inverse_r_float;
};

// Miller indices of sixteen pixels: the nearest whole ones, and what is left in double and in float.
struct TileIndices {
  vdouble whole[3], rest[3];
  vfloat delta[3];
};

struct Place {
  std::int32_t layer, sub_slow, sub_fast;

  bool operator==(const Place&) const = default;
};

class DiffractionPlan {
 public:
  explicit DiffractionPlan(const DiffractionInputs<float>& in)
      : in(in),
        set(in.settings),
        orientations(in.positions * in.mosaics),
        steps_per_place(in.sources * orientations),
        sources_(static_cast<std::size_t>(in.sources)),
        steps_(static_cast<std::size_t>(steps_per_place)) {
    for (int a = 0; a < 4; ++a) axes[a] = triple(in.frame + 3 * a);
    sub = set.pixel_size / set.oversample;
    fast_square_ = dot(axes[1], axes[1]);
    double offsets[kLanes];
    for (int l = 0; l < kLanes; ++l) offsets[l] = set.pixel_size * l;
    std::memcpy(&lane_offsets_, offsets, sizeof offsets);
    for (std::int64_t s = 0; s < in.sources; ++s) plan_source(s);
    const std::int64_t from_row = set.slow_first, to_row = set.slow_last;
    for (std::int64_t s = from_row; s <= to_row && first_pixel < 0; ++s)
      for (std::int64_t f = set.fast_first; f <= set.fast_last && first_pixel < 0; ++f)
        if (in.mask == nullptr || in.mask[s * set.fast_pixels + f] != 0) first_pixel = s * set.fast_pixels + f;
  }

  const SourcePlan& source(std::int64_t s) const { return sources_.data()[s]; }
  const StepPlan& step(std::int64_t source, std::int64_t orientation) const {
    return steps_.data()[source * orientations + orientation];
  }

  // Which orientation step number `o` of a source uses; `fresh` for the first source of the first pixel's first place.
  SEM_INLINE std::int64_t orientation_of(std::int64_t o, bool fresh) const {
    return set.phi_carryover && !fresh && o < in.mosaics ? o + orientations - in.mosaics : o;
  }

  // Layers and subpixels, in the order of the sums.
  Place first_place() const { return {0, 0, 0}; }
  // In mode nanobragg: the first subpixel of the last layer.
  Place capturing_place() const { return {set.layers - 1, 0, 0}; }
  bool one_place() const { return set.layers == 1 && set.oversample == 1; }
  template <class Visit>
  SEM_INLINE void for_each_place(Visit visit) const {
    for (std::int32_t layer = 0; layer < set.layers; ++layer)
      for (std::int32_t sub_slow = 0; sub_slow < set.oversample; ++sub_slow)
        for (std::int32_t sub_fast = 0; sub_fast < set.oversample; ++sub_fast) visit(Place{layer, sub_slow, sub_fast});
  }
  double slow_coordinate(std::int64_t row, const Place& at) const {
    return sub * static_cast<double>(row * set.oversample + at.sub_slow) + sub / 2;
  }

  // What is the same for all pixels of a row, for each layer and row of subpixels: first a head, the position p of fast
  // coordinate 0 and then |p|^2 and 2 p . fast, after it axes . p of every source and orientation.
  static constexpr int kHead = 2;
  std::int64_t row_table_size() const { return std::int64_t{set.layers} * set.oversample * (kHead + steps_per_place); }
  SEM_OUT_OF_LINE void fill_row_table(std::int64_t row, Triple* table) const {
    for (std::int32_t layer = 0; layer < set.layers; ++layer)
      for (std::int32_t sub_slow = 0; sub_slow < set.oversample; ++sub_slow) {
        const Triple start = row_start(row, {layer, sub_slow, 0});
        *table++ = start;
        *table++ = {{dot(start, start), 2 * dot(start, axes[1]), 0}};
        for (std::int64_t k = 0; k < steps_per_place; ++k, ++table)
          for (int a = 0; a < 3; ++a) table->x[a] = dot(steps_.data()[k].axes[a], start);
      }
  }
  SEM_INLINE std::int64_t row_table_at(const Place& at) const {
    return (std::int64_t{at.layer} * set.oversample + at.sub_slow) * (kHead + steps_per_place);
  }

  // Position of fast coordinate 0.
  Triple row_start(std::int64_t row, const Place& at) const {
    const double s = slow_coordinate(row, at), o = at.layer * set.layer_step;
    return combine(s, axes[2], 1, combine(o, axes[3], 1, axes[0]));
  }

  // `row` is the place's part of the row's table; kFlat: the detector is known not to be curved.
  template <bool kFlat>
  SEM_INLINE void locate(const Triple* row, std::int64_t fast, const Place& at, TilePosition& out) const {
    const Triple &start = row[0], &squares = row[1];
    out.start = start;
    const double first = static_cast<double>(fast * set.oversample + at.sub_fast);
    out.f = lane_offsets_ + (sub * first + sub / 2);
    for (int i = 0; i < 3; ++i) out.p[i] = out.f * axes[1][i] + start[i];
    vdouble square;
    if (!kFlat && set.curved) {
      double p[3][kLanes];
      std::memcpy(p, out.p, sizeof p);
      bend(p);
      std::memcpy(out.p, p, sizeof p);
      square = out.p[0] * out.p[0] + out.p[1] * out.p[1] + out.p[2] * out.p[2];
    } else {
      square = out.f * (out.f * fast_square_ + squares[1]) + squares[0];
    }
    // One Newton step from float32: relative error 3e-14.
    const vdouble rough = to_double(vrsqrt(to_float(square)));
    out.inverse_r = rough * (1.5 - (0.5 * square) * (rough * rough));
    out.inverse_r_float = to_float(out.inverse_r);
    for (int i = 0; i < 3; ++i) out.d[i] = to_float(out.p[i] * out.inverse_r);
  }

  // `start` is the row table's of this step.
  template <bool kFlat>
  SEM_INLINE TileIndices indices(const TilePosition& at, const StepPlan& step, const Triple& start) const {
    TileIndices h;
    for (int a = 0; a < 3; ++a) {
      vdouble along;
      if (kFlat || !set.curved)
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

  // Turns a gradient at the bent positions into one at the flat ones, and adds to that of the axes and the curvature.
  void unbend(const TilePosition& at, std::int64_t row, const Place& place, vfloat (&by_p)[3], double* frame,
              double* curvature) const;

  const DiffractionInputs<float>& in;
  const DiffractionSettings& set;
  std::int64_t orientations, steps_per_place;
  Triple axes[4];  // origin, fast, slow, normal
  double sub;
  std::int64_t first_pixel = -1;

 private:
  void plan_source(std::int64_t s) {
    SourcePlan& plan = sources_.data()[s];
    plan.incident = triple(in.incident + 3 * s);
    plan.along_fast = dot(plan.incident, axes[1]);
    plan.inverse_wavelength = 1 / in.wavelength[s];
    plan.weight = static_cast<float>(in.weight[s]);
    const double largest = set.d_min > 0 ? in.wavelength[s] / set.d_min : 0;
    plan.largest_square = static_cast<float>(largest * largest);
    const Triple w = cross(triple(in.polarisation_axis), plan.incident);
    plan.sine = std::sqrt(dot(w, w));
    plan.across = scaled(set.polarised ? 1 / plan.sine : 0, w);
    plan.along = cross(plan.incident, plan.across);
    for (std::int64_t o = 0; o < orientations; ++o) {
      StepPlan& step = steps_.data()[s * orientations + o];
      for (int a = 0; a < 3; ++a) {
        step.axes[a] = scaled(plan.inverse_wavelength, triple(in.orientation + 9 * o + 3 * a));
        step.at_beam.x[a] = dot(step.axes[a], plan.incident);
        step.along_fast.x[a] = dot(step.axes[a], axes[1]);
        for (int i = 0; i < 3; ++i) step.axes_float[a][i] = static_cast<float>(step.axes[a][i]);
      }
    }
  }

  SEM_OUT_OF_LINE void bend(double (&p)[3][kLanes]) const {
    const double distance = in.curvature[0];
    const Triple start = scaled(distance, triple(in.curvature + 1));
    for (int l = 0; l < kLanes; ++l) {
      const Triple bent = rotated(rotated(start, axes[2], p[1][l] / distance), axes[1], p[2][l] / distance);
      for (int i = 0; i < 3; ++i) p[i][l] = bent[i];
    }
  }

  vdouble lane_offsets_;
  double fast_square_;
  ScratchOf<SourcePlan> sources_;
  ScratchOf<StepPlan> steps_;
};

inline void DiffractionPlan::unbend(const TilePosition& at, std::int64_t row, const Place& place, vfloat (&by_p)[3],
                                    double* frame, double* curvature) const {
  const double distance = in.curvature[0];
  const Triple beam = triple(in.curvature + 1), start = scaled(distance, beam), origin = row_start(row, place);
  double f[kLanes];
  float g[3][kLanes];
  std::memcpy(f, &at.f, sizeof f);
  std::memcpy(g, by_p, sizeof g);
  // of rotated(v, axis, angle): gradients to v, axis and angle
  const auto turn_back = [](const Triple& v, const Triple& axis, double angle, Triple& grad, Triple& by_axis) {
    const double c = std::cos(angle), s = std::sin(angle), av = dot(axis, v), ag = dot(axis, grad);
    by_axis = combine(s, cross(v, grad), 1 - c, combine(av, grad, ag, v));
    const double by_angle = c * dot(grad, cross(axis, v)) - s * dot(grad, v) + s * av * ag;
    grad = combine(1, combine(c, grad, -s, cross(axis, grad)), (1 - c) * ag, axis);
    return by_angle;
  };
  for (int l = 0; l < kLanes; ++l) {
    const double y = (f[l] * axes[1][1] + origin[1]) / distance, z = (f[l] * axes[1][2] + origin[2]) / distance;
    Triple grad{{g[0][l], g[1][l], g[2][l]}}, by_fast, by_slow;
    const double by_z = turn_back(rotated(start, axes[2], y), axes[1], z, grad, by_fast);
    const double by_y = turn_back(start, axes[2], y, grad, by_slow);
    for (int i = 0; i < 3; ++i) {
      frame[3 + i] += by_fast[i];
      frame[6 + i] += by_slow[i];
      curvature[1 + i] += distance * grad[i];
    }
    curvature[0] += dot(grad, beam) - (by_y * y + by_z * z) / distance;
    g[0][l] = 0;
    g[1][l] = static_cast<float>(by_y / distance);
    g[2][l] = static_cast<float>(by_z / distance);
  }
  std::memcpy(by_p, g, sizeof g);
}

}  // namespace sem::cpu::SEM_ISA
