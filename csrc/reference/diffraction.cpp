#include "sem/diffraction.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/diffraction_reflection.hpp"
#include "reference/run.hpp"
#include "reference/vectors.hpp"

namespace sem::reference {
namespace {

// The step (layer, subpixel, source, position, mosaic) from which on nothing is interpolated.
struct SwitchOff {
  std::int64_t pixel = std::numeric_limits<std::int64_t>::max();
  std::int64_t step = 0;
};

struct Step {
  std::int32_t layer = 0, sub_slow = 0, sub_fast = 0, source = -1, position = -1, mosaic = -1;
};

struct Position {
  double f, s, o;
  Vector flat, p, d;
  double r;
};

template <class Real>
class Pixel {
 public:
  explicit Pixel(const DiffractionInputs<Real>& in) : in_(in), set_(in.settings), reflection_(in) {
    const auto axes = in.frame;
    origin_ = vector(axes);
    fast_ = vector(axes + 3);
    slow_ = vector(axes + 6);
    normal_ = vector(axes + 9);
    for (std::int64_t s = 0; s < set_.slow_pixels && first_pixel_ < 0; ++s)
      for (std::int64_t f = 0; f < set_.fast_pixels && first_pixel_ < 0; ++f)
        if (computed(s, f)) first_pixel_ = s * set_.fast_pixels + f;
    if (set_.tricubic && set_.mode == DiffractionMode::nanobragg) find_switch_off();
  }

  bool computed(std::int64_t s, std::int64_t f) const {
    if (s < set_.slow_first || s > set_.slow_last || f < set_.fast_first || f > set_.fast_last) return false;
    return in_.mask == nullptr || in_.mask[s * set_.fast_pixels + f] != 0;
  }

  double steps() const {
    return static_cast<double>(in_.sources * in_.positions * in_.mosaics * set_.oversample * set_.oversample);
  }

  Real forward(std::int64_t s, std::int64_t f, std::vector<TracedValue>* trace = nullptr) const {
    const bool exact = set_.mode == DiffractionMode::exact;
    const Real scale = static_cast<Real>(in_.scale[0] / steps());
    const Real even = static_cast<Real>(in_.background[0] / (in_.sources * set_.oversample * set_.oversample));
    Real total = exact ? Real(0) : static_cast<Real>(in_.background[0]);
    Real solid_angle = 0, polarisation = 0, capture = 0;
    std::int64_t number = 0;
    for_each_position(s, f, [&](const Position& at, Step step) {
      const bool first = number == 0;
      if (exact || captures(step)) capture = capture_of(at, step.layer);
      if (first || exact) solid_angle = solid_angle_of(at);
      put(trace, "pixel_pos_meters", step, at.p);
      put(trace, "R_distance_meters", step, at.r);
      put(trace, "diffracted_vec", step, at.d);
      put(trace, "omega_pixel_sr", step, solid_angle_of(at));
      put(trace, "capture_fraction", step, capture_of(at, step.layer));
      for (step.source = 0; step.source < in_.sources; ++step.source) {
        const Vector q = scattering(at, step.source);
        if (exact || (first && step.source == 0)) polarisation = polarisation_of(at, step.source);
        put(trace, "incident_vec", step, vector(in_.incident + 3 * step.source));
        put(trace, "lambda_meters", step, in_.wavelength[step.source]);
        put(trace, "scattering_vec_A_inv", step, 1e-10 * q);
        put(trace, "polar", step, polarisation_of(at, step.source));
        const Real weight = static_cast<Real>(in_.weight[step.source]);
        Real term = exact ? Real(0) : total;
        for_each_orientation(s, f, step, q, [&](const Indices& h, const double*, Step inner) {
          if (resolved(q)) {
            const Lattice<Real> lattice = reflection_.lattice_of(h);
            const Real cell = reflection_.structure_factor(h, interpolates(s, f, number));
            const Real amplitude = cell * lattice.value;
            term += weight * amplitude * amplitude;
            put(trace, "hkl_frac", inner, Vector{h.h[0], h.h[1], h.h[2]});
            put(trace, "hkl_rounded", inner, Vector{h.nearest[0], h.nearest[1], h.nearest[2]});
            if (set_.shape == DomainShape::square) {
              put(trace, "F_latt_a", inner, lattice.axis[0]);
              put(trace, "F_latt_b", inner, lattice.axis[1]);
              put(trace, "F_latt_c", inner, lattice.axis[2]);
            }
            put(trace, "F_latt", inner, lattice.value);
            put(trace, "F_cell", inner, cell);
            put(trace, "I_running", inner, term);
          }
          ++number;
        });
        total = exact ? total + (scale * term + even) * capture * polarisation * solid_angle : term;
      }
    });
    const Step none{-1, 0, 0, -1, -1, -1};
    put(trace, exact ? "I_with_factors" : "I_before_scaling", none, total);
    put(trace, "r_e_sqr_fluence", none, in_.scale[0]);
    put(trace, "steps", none, steps());
    const Real out = exact ? total : scale * total * capture * polarisation * solid_angle;
    put(trace, "I_pixel_final", none, out);
    return out;
  }

  // Adds what this pixel gives to every gradient.
  void backward(std::int64_t s, std::int64_t f, Real grad_out, const DiffractionBackward<Real>& to,
                double* table) const {
    const bool exact = set_.mode == DiffractionMode::exact;
    const double scale = in_.scale[0] / steps(), g = grad_out;
    const double even = in_.background[0] / (in_.sources * set_.oversample * set_.oversample);
    // In mode nanobragg the factors come from the first position and from the one that captures.
    Position first{}, captured{};
    const std::int32_t last_layer = set_.layers - 1;
    bool seen = false;
    for_each_position(s, f, [&](const Position& at, const Step& step) {
      if (!seen) first = at;
      seen = true;
      if (captures(step)) captured = at;
    });
    const double factor = double(capture_of(captured, last_layer)) * polarisation_of(first, 0) * solid_angle_of(first);
    double intensity = in_.background[0];
    std::int64_t number = 0;
    for_each_position(s, f, [&](const Position& at, Step step) {
      Vector by_p{};
      for (step.source = 0; step.source < in_.sources; ++step.source) {
        const Vector q = scattering(at, step.source);
        const double wavelength = in_.wavelength[step.source], weight = in_.weight[step.source];
        const double own =
            !exact ? factor
                   : double(capture_of(at, step.layer)) * polarisation_of(at, step.source) * solid_angle_of(at);
        const double by_intensity = g * scale * own;
        double term = 0;
        Vector by_q{};
        for_each_orientation(s, f, step, q, [&](const Indices& h, const double* axes, const Step&) {
          const bool cubic = interpolates(s, f, number);
          ++number;
          if (!resolved(q)) return;
          const Lattice<Real> lattice = reflection_.lattice_of(h);
          Real slope[3] = {0, 0, 0};
          const double cell = reflection_.structure_factor(h, cubic, slope);
          const double value = lattice.value, amplitude = cell * value;
          term += amplitude * amplitude;
          const double by_amplitude = 2 * by_intensity * weight * amplitude, by_lattice = by_amplitude * cell;
          reflection_.structure_factor(h, cubic, nullptr, table, to.default_factor,
                                       static_cast<Real>(by_amplitude * value));
          double* orientation = to.orientation + (axes - in_.orientation);
          for (int a = 0; a < 3; ++a) {
            const double by_h = by_lattice * lattice.by_delta[a] + by_amplitude * value * slope[a];
            add(orientation + 3 * a, by_h * q);
            by_q = by_q + by_h * vector(axes + 3 * a);
            to.cells[a] += by_lattice * lattice.by_cells[a];
            for (int b = 0; b < 3; ++b) to.reciprocal_metric[3 * a + b] += by_lattice * lattice.by_metric[a][b];
          }
          to.fudge[0] += by_lattice * lattice.by_fudge;
        });
        to.weight[step.source] += by_intensity * term;
        const Vector v = (1 / wavelength) * by_q;
        add(to.incident + 3 * step.source, -1 * v);
        to.wavelength[step.source] -= dot(by_q, q) / wavelength;
        by_p = by_p + (1 / at.r) * (v - dot(v, at.d) * at.d);
        if (exact) {
          const double before = scale * weight * term + even;
          to.scale[0] += g * weight * term * own / steps();
          to.background[0] += g * own / (in_.sources * set_.oversample * set_.oversample);
          by_p = by_p + factor_gradient(at, step.source, step.layer, g * before * own, kAll, to);
        } else {
          intensity += weight * term;
        }
      }
      position_gradient(at, by_p, to);
    });
    if (exact) return;
    const double out = scale * intensity * factor;
    to.scale[0] += g * intensity * factor / steps();
    to.background[0] += g * scale * factor;
    position_gradient(first, factor_gradient(first, 0, 0, g * out, kSolidAngle | kPolarisation, to), to);
    position_gradient(captured, factor_gradient(captured, 0, last_layer, g * out, kCapture, to), to);
  }

 private:
  enum Factor { kSolidAngle = 1, kPolarisation = 2, kCapture = 4, kAll = 7 };

  void put(std::vector<TracedValue>* trace, const char* name, const Step& at, const Vector& v) const {
    if (trace != nullptr) trace->push_back(traced(name, at, 3, v));
  }
  void put(std::vector<TracedValue>* trace, const char* name, const Step& at, double v) const {
    if (trace != nullptr) trace->push_back(traced(name, at, 1, Vector{v, 0, 0}));
  }
  TracedValue traced(const char* name, const Step& at, std::int32_t count, const Vector& v) const {
    const std::int32_t subpixel = at.layer < 0 ? -1 : at.sub_slow * set_.oversample + at.sub_fast;
    return {name, at.layer, subpixel, at.source, at.position, at.mosaic, count, {v[0], v[1], v[2]}};
  }

  template <class Visit>
  void for_each_position(std::int64_t slow, std::int64_t fast, Visit visit) const {
    const double sub = set_.pixel_size / set_.oversample;
    Step step;
    for (step.layer = 0; step.layer < set_.layers; ++step.layer)
      for (step.sub_slow = 0; step.sub_slow < set_.oversample; ++step.sub_slow)
        for (step.sub_fast = 0; step.sub_fast < set_.oversample; ++step.sub_fast) {
          Position at;
          at.f = sub * static_cast<double>(fast * set_.oversample + step.sub_fast) + sub / 2;
          at.s = sub * static_cast<double>(slow * set_.oversample + step.sub_slow) + sub / 2;
          at.o = step.layer * set_.layer_step;
          at.flat = at.f * fast_ + (at.s * slow_ + (at.o * normal_ + origin_));
          at.p = set_.curved ? bent(at.flat) : at.flat;
          at.r = std::sqrt(dot(at.p, at.p));
          at.d = (1 / at.r) * at.p;
          visit(at, step);
        }
  }

  Vector bent(const Vector& flat) const {
    const double distance = in_.curvature[0];
    const Vector start = distance * vector(in_.curvature + 1);
    return rotated(rotated(start, slow_, flat[1] / distance), fast_, flat[2] / distance);
  }

  template <class Visit>
  void for_each_orientation(std::int64_t s, std::int64_t f, Step step, const Vector& q, Visit visit) const {
    const bool first_place = step.layer == 0 && step.sub_slow == 0 && step.sub_fast == 0 && step.source == 0;
    const bool fresh = !set_.phi_carryover || (first_place && s * set_.fast_pixels + f == first_pixel_);
    for (step.position = 0; step.position < in_.positions; ++step.position)
      for (step.mosaic = 0; step.mosaic < in_.mosaics; ++step.mosaic) {
        const std::int64_t position = step.position == 0 && !fresh ? in_.positions - 1 : step.position;
        const double* axes = in_.orientation + 9 * (position * in_.mosaics + step.mosaic);
        Indices h;
        for (int a = 0; a < 3; ++a) {
          h.h[a] = dot(vector(axes + 3 * a), q);
          h.nearest[a] = std::ceil(h.h[a] - 0.5);
          h.delta[a] = h.h[a] - h.nearest[a];
        }
        visit(h, axes, step);
      }
  }

  Vector scattering(const Position& at, std::int64_t source) const {
    return (1 / in_.wavelength[source]) * (at.d - vector(in_.incident + 3 * source));
  }
  // In mode nanobragg: the first subpixel of the last layer.
  bool captures(const Step& at) const { return at.layer == set_.layers - 1 && at.sub_slow == 0 && at.sub_fast == 0; }

  bool resolved(const Vector& q) const { return !(set_.d_min > 0) || dot(q, q) * set_.d_min * set_.d_min <= 1; }

  Real solid_angle_of(const Position& at) const {
    const Real r = static_cast<Real>(at.r), pixel = static_cast<Real>(set_.pixel_size);
    return set_.point_pixel ? 1 / (r * r) : pixel * pixel * static_cast<Real>(in_.close_distance[0]) / (r * r * r);
  }

  Real capture_of(const Position& at, std::int32_t layer) const {
    if (set_.attenuation == 0 || set_.layer_step == 0) return 1;
    const Real path = static_cast<Real>(set_.attenuation * set_.layer_step / dot(at.d, normal_));
    return std::exp(-layer * path) - std::exp(-(layer + 1) * path);
  }

  struct BeamFrame {
    Vector incident, along, across;
    double sine;  // of the angle between axis and beam
  };
  BeamFrame beam_frame(std::int64_t source) const {
    const Vector incident = vector(in_.incident + 3 * source), w = cross(vector(in_.polarisation_axis), incident);
    const double sine = std::sqrt(dot(w, w));
    const Vector across = (1 / sine) * w;
    return {incident, cross(incident, across), across, sine};
  }

  Real polarisation_of(const Position& at, std::int64_t source) const {
    if (!set_.polarised) return 1;
    const BeamFrame beam = beam_frame(source);
    const Real c = static_cast<Real>(dot(at.d, beam.incident)), e = static_cast<Real>(dot(at.d, beam.along));
    const Real b = static_cast<Real>(dot(at.d, beam.across)), kahn = static_cast<Real>(in_.kahn[0]);
    return (1 + c * c - kahn * (e * e - b * b)) / 2;
  }

  // What a gradient g to the logarithms of the named factors gives to everything behind them; returns dL/dp.
  Vector factor_gradient(const Position& at, std::int64_t source, std::int32_t layer, double g, int factors,
                         const DiffractionBackward<Real>& to) const {
    Vector by_d{}, by_p{};
    if (factors & kSolidAngle) {
      by_p = (-(set_.point_pixel ? 2 : 3) * g / at.r) * at.d;
      if (!set_.point_pixel) to.close_distance[0] += g / in_.close_distance[0];
    }
    if ((factors & kCapture) && set_.attenuation != 0 && set_.layer_step != 0) {
      const double rho = dot(at.d, normal_), m = set_.attenuation * set_.layer_step / rho;
      const double near = std::exp(-layer * m), far = std::exp(-(layer + 1) * m);
      const double by_rho = g * (layer * near - (layer + 1) * far) * m / (rho * (near - far));
      by_d = by_d + by_rho * normal_;
      add(to.frame + 9, by_rho * at.d);
    }
    if ((factors & kPolarisation) && set_.polarised) {
      const BeamFrame beam = beam_frame(source);
      const double kahn = in_.kahn[0], own = g / polarisation_of(at, source);
      const double c = dot(at.d, beam.incident), e = dot(at.d, beam.along), b = dot(at.d, beam.across);
      to.kahn[0] -= own * (e * e - b * b) / 2;
      by_d = by_d + own * (c * beam.incident + (-kahn * e) * beam.along + (kahn * b) * beam.across);
      const Vector by_along = (-own * kahn * e) * at.d;
      const Vector by_across = (own * kahn * b) * at.d + cross(by_along, beam.incident);
      const Vector by_w = (1 / beam.sine) * (by_across - dot(by_across, beam.across) * beam.across);
      const Vector axis = vector(in_.polarisation_axis);
      add(to.incident + 3 * source, (own * c) * at.d + cross(beam.across, by_along) + cross(by_w, axis));
      add(to.polarisation_axis, cross(beam.incident, by_w));
    }
    return by_p + (1 / at.r) * (by_d - dot(by_d, at.d) * at.d);
  }

  void position_gradient(const Position& at, Vector by_p, const DiffractionBackward<Real>& to) const {
    if (set_.curved) {
      const double distance = in_.curvature[0];
      const Vector beam = vector(in_.curvature + 1), start = distance * beam;
      const double y = at.flat[1] / distance, z = at.flat[2] / distance;
      const Rotation second = rotation_gradient(rotated(start, slow_, y), fast_, z, by_p);
      const Rotation first = rotation_gradient(start, slow_, y, second.v);
      add(to.frame + 3, second.axis);
      add(to.frame + 6, first.axis);
      add(to.curvature + 1, distance * first.v);
      to.curvature[0] += dot(first.v, beam) - (first.angle * y + second.angle * z) / distance;
      by_p = {0, first.angle / distance, second.angle / distance};
    }
    add(to.frame, by_p);
    add(to.frame + 3, at.f * by_p);
    add(to.frame + 6, at.s * by_p);
    add(to.frame + 9, at.o * by_p);
  }

  bool interpolates(std::int64_t s, std::int64_t f, std::int64_t step) const {
    const std::int64_t pixel = s * set_.fast_pixels + f;
    return set_.tricubic && (pixel < off_.pixel || (pixel == off_.pixel && step < off_.step));
  }

  void find_switch_off() {
    for (std::int64_t s = 0; s < set_.slow_pixels; ++s)
      for (std::int64_t f = 0; f < set_.fast_pixels; ++f) {
        if (!computed(s, f)) continue;
        std::int64_t step = 0;
        for_each_position(s, f, [&](const Position& at, Step place) {
          for (place.source = 0; place.source < in_.sources; ++place.source) {
            const Vector q = scattering(at, place.source);
            for_each_orientation(s, f, place, q, [&](const Indices& h, const double*, const Step&) {
              const bool none = off_.pixel == std::numeric_limits<std::int64_t>::max();
              if (none && resolved(q) && !reflection_.far_from_the_ends(h)) off_ = {s * set_.fast_pixels + f, step};
              ++step;
            });
          }
        });
        if (off_.pixel != std::numeric_limits<std::int64_t>::max()) return;
      }
  }

  const DiffractionInputs<Real>& in_;
  const DiffractionSettings& set_;
  Reflection<Real> reflection_;
  Vector origin_, fast_, slow_, normal_;
  std::int64_t first_pixel_ = -1;
  SwitchOff off_;
};

}  // namespace

template <class Real>
void diffraction_forward(const DiffractionForward<Real>& args) {
  const Pixel<Real> pixel(args.in);
  const DiffractionSettings& set = args.in.settings;
  for (std::int64_t s = 0; s < set.slow_pixels; ++s)
    for (std::int64_t f = 0; f < set.fast_pixels; ++f)
      args.out[s * set.fast_pixels + f] = pixel.computed(s, f) ? pixel.forward(s, f) : Real(0);
}

template <class Real>
void diffraction_backward(const DiffractionBackward<Real>& args) {
  const DiffractionInputs<Real>& in = args.in;
  const DiffractionSettings& set = in.settings;
  const std::int64_t entries = in.table_shape[0] * in.table_shape[1] * in.table_shape[2];
  std::vector<double> table(entries, 0);
  std::fill_n(args.frame, 12, 0.0);
  std::fill_n(args.curvature, 4, 0.0);
  std::fill_n(args.incident, 3 * in.sources, 0.0);
  std::fill_n(args.wavelength, in.sources, 0.0);
  std::fill_n(args.weight, in.sources, 0.0);
  std::fill_n(args.orientation, 9 * in.positions * in.mosaics, 0.0);
  std::fill_n(args.reciprocal_metric, 9, 0.0);
  std::fill_n(args.cells, 3, 0.0);
  std::fill_n(args.polarisation_axis, 3, 0.0);
  for (double* number : {args.close_distance, args.fudge, args.default_factor, args.kahn, args.scale, args.background})
    *number = 0;
  const Pixel<Real> pixel(in);
  for (std::int64_t s = 0; s < set.slow_pixels; ++s)
    for (std::int64_t f = 0; f < set.fast_pixels; ++f)
      if (pixel.computed(s, f)) pixel.backward(s, f, args.grad_out[s * set.fast_pixels + f], args, table.data());
  std::transform(table.begin(), table.end(), args.table, [](double g) { return static_cast<Real>(g); });
}

template <class Real>
void diffraction_trace(const DiffractionTrace<Real>& args) {
  const Pixel<Real> pixel(args.in);
  if (pixel.computed(args.slow, args.fast)) pixel.forward(args.slow, args.fast, args.out);
}

SEM_REFERENCE(DiffractionForward, diffraction_forward)
SEM_REFERENCE(DiffractionBackward, diffraction_backward)
SEM_REFERENCE(DiffractionTrace, diffraction_trace)

}  // namespace sem::reference
