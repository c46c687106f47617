// diffraction: the far-field X-ray image of a small crystal.
//
// For every pixel, with p the centre of a subpixel of a layer (coordinates F, S, O along the detector's axes),
// d = p / |p|, and over layers, subpixels, sources, spindle positions and mosaic domains, in that order:
//
//   (h, k, l) = (a, b, c) . (d - incident) / wavelength,   delta = h - h0,   h0 = ceil(h - 1/2) the nearest index
//   I   = background + sum weight F_cell(h, k, l)^2 L(delta)
//   out = scale I / steps * capture * polarisation * solid angle
//
// With V = Na Nb Nc, G the reciprocal metric in inverse square Angstroms, x = fudge V^2 delta.G.delta, L is
//
//   square  product over axes with N > 1 of (sin(pi N delta) / sin(pi delta))^2
//   round   (0.7236 V s(y))^2,  s(y) = 3 (sin r / r - cos r) / r^2,  y = r^2 = pi^2 fudge sum (N delta)^2
//   gauss   (V exp(-x / 0.63))^2
//   tophat  V^2 where x < 0.3969, else 0
//
//   capture       exp(-t m) - exp(-(t + 1) m) for layer t, m = attenuation layer_step / (d . normal)
//   polarisation  (1 + (d.i)^2 - K ((d.E)^2 - (d.B)^2)) / 2,  i = incident, B = unit(axis x i), E = i x B
//   solid angle   pixel^2 close / |p|^3, or 1 / |p|^2 for point pixels
//
// Mode nanobragg takes solid angle and polarisation of the first subpixel, source and layer and the capture of the
// last layer's first subpixel. Mode exact gives every term its own, and the background, averaged over subpixels and
// sources, the same without scale.
//
// Arithmetic: coordinates, indices and delta are built in double (device kernels: as sums of two floats, 48 bits) and
// rounded once to Real; the rest is Real.
#pragma once

#include <vector>

#include "sem/types.hpp"

namespace sem {

// The values of both are part of the Python interface (sem.ops.diffraction).
enum class DomainShape : std::int32_t { square = 0, round = 1, gauss = 2, tophat = 3 };
enum class DiffractionMode : std::int32_t { nanobragg = 0, exact = 1 };

inline constexpr double kRoundHeight = 0.723601254558268;
inline constexpr double kGaussWidth = 0.63;
inline constexpr double kTophatEdge = 0.3969;

struct DiffractionSettings {
  std::int32_t slow_pixels = 0, fast_pixels = 0;
  // Inclusive region of interest; what is outside is 0.
  std::int32_t fast_first = 0, fast_last = -1, slow_first = 0, slow_last = -1;
  std::int32_t oversample = 1, layers = 1;
  bool point_pixel = false, curved = false, polarised = false;
  DomainShape shape = DomainShape::square;
  bool phi_carryover = false;  // position 0 repeats the last one's orientations, but for the first computed step of all
  bool tricubic = false;
  std::int32_t first_index[3] = {0, 0, 0};  // h, k, l of the table's first entry
  DiffractionMode mode = DiffractionMode::nanobragg;
  double pixel_size = 0, layer_step = 0, attenuation = 0;
  double d_min = 0;  // smaller spacings are left out

  template <class Visitor>
  void visit(Visitor& field) {
    field("slow_pixels", slow_pixels);
    field("fast_pixels", fast_pixels);
    field("fast_first", fast_first);
    field("fast_last", fast_last);
    field("slow_first", slow_first);
    field("slow_last", slow_last);
    field("oversample", oversample);
    field("layers", layers);
    field("point_pixel", point_pixel);
    field("curved", curved);
    field("polarised", polarised);
    field("shape", shape);
    field("phi_carryover", phi_carryover);
    field("tricubic", tricubic);
    field("first_h", first_index[0]);
    field("first_k", first_index[1]);
    field("first_l", first_index[2]);
    field("mode", mode);
    field("pixel_size", pixel_size);
    field("layer_step", layer_step);
    field("attenuation", attenuation);
    field("d_min", d_min);
  }

  std::int64_t pixels() const { return std::int64_t{slow_pixels} * fast_pixels; }
};

template <class Real>
struct DiffractionInputs {
  DiffractionSettings settings;
  std::int64_t sources = 0, positions = 0, mosaics = 0;  // S, P, M
  std::int64_t table_shape[3] = {0, 0, 0};               // H, K, L; zero where there is no table
  const double* frame = nullptr;                         // [4, 3]: origin, fast, slow, normal
  const double* close_distance = nullptr;                // [1]
  const double* curvature = nullptr;                     // [4]: distance, beam
  const double* incident = nullptr;                      // [S, 3], unit
  const double* wavelength = nullptr;                    // [S]
  const double* weight = nullptr;                        // [S]
  const double* orientation = nullptr;                   // [P, M, 3, 3]: rows a, b, c in metres
  const double* reciprocal_metric = nullptr;             // [3, 3] 1/metres^2
  const double* cells = nullptr;                         // [3]
  const double* fudge = nullptr;                         // [1]
  const double* default_factor = nullptr;                // [1]
  const Real* table = nullptr;                           // [H, K, L]
  const double* kahn = nullptr;                          // [1]
  const double* polarisation_axis = nullptr;             // [3], unit
  const double* scale = nullptr;                         // [1]
  const double* background = nullptr;                    // [1]
  const std::uint8_t* mask = nullptr;                    // [slow, fast], or null: all pixels

  template <class Visitor>
  void visit(Visitor& field) {
    settings.visit(field);
    field("sources", sources);
    field("positions", positions);
    field("mosaics", mosaics);
    field("table_h", table_shape[0]);
    field("table_k", table_shape[1]);
    field("table_l", table_shape[2]);
    field("frame", frame, 12);
    field("close_distance", close_distance, 1);
    field("curvature", curvature, 4);
    field("incident", incident, 3 * sources);
    field("wavelength", wavelength, sources);
    field("weight", weight, sources);
    field("orientation", orientation, 9 * positions * mosaics);
    field("reciprocal_metric", reciprocal_metric, 9);
    field("cells", cells, 3);
    field("fudge", fudge, 1);
    field("default_factor", default_factor, 1);
    field.optional("table", table, table_size());
    field("kahn", kahn, 1);
    field("polarisation_axis", polarisation_axis, 3);
    field("scale", scale, 1);
    field("background", background, 1);
    field.optional("mask", mask, settings.pixels());
  }

  std::int64_t table_size() const { return table_shape[0] * table_shape[1] * table_shape[2]; }
};

template <class Real>
struct DiffractionForward {
  static constexpr const char* kName = "diffraction_forward";

  DiffractionInputs<Real> in;
  Real* out = nullptr;  // [slow, fast]

  template <class Visitor>
  void visit(Visitor& field) {
    in.visit(field);
    field("out", out, in.settings.pixels());
  }
};

// Gradients of sum(grad_out * out), all exact where out is differentiable; the nearest index, the tophat's edge, d_min
// and mask count as constant. With g = dL/dI of a pixel (in mode exact: of a term), J = g weight F_cell^2:
//
//   dL/d(delta_a) = J dL/d(delta_a) + 2 g weight L F_cell dF_cell/d(h_a)     =: g_a
//   dL/da = sum g_a (d - incident) / wavelength       dL/dd += sum_a g_a a / wavelength =: v
//   dL/d(incident) -= v,   dL/d(wavelength) = -v . (d - incident) / wavelength
//   dL/dp = (v - d (d.v)) / |p| + ...; origin, fast, slow, normal get it times 1, F, S, O
//
//   square, with f = sin(pi N delta) / sin(pi delta), n the integer nearest to N delta and u = N delta - n:
//     d ln f / d delta = pi (N cot(pi u) - cot(pi delta)) = n / (u delta) - pi^2 (N u c(u) - delta c(delta))
//     d ln f / dN      = pi delta cot(pi u)               = delta / u - pi^2 delta u c(u)
//   where x c = 1/x - cot(x) pole-free: the poles of both cotangents cancel in n / (u delta), exactly where n = 0.
//   round:  ds/dy = 3 (sin r / r - s) / (2 y)
//
// Sums over pixels: the CPU takes them row by row in Real, then in double over a fixed number of chunks of rows;
// device/diffraction_backward.hpp says how devices do.
template <class Real>
struct DiffractionBackward {
  static constexpr const char* kName = "diffraction_backward";

  DiffractionInputs<Real> in;
  const Real* grad_out = nullptr;       // [slow, fast]
  double* frame = nullptr;              // [4, 3]
  double* close_distance = nullptr;     // [1]
  double* curvature = nullptr;          // [4]
  double* incident = nullptr;           // [S, 3]
  double* wavelength = nullptr;         // [S]
  double* weight = nullptr;             // [S]
  double* orientation = nullptr;        // [P, M, 3, 3]
  double* reciprocal_metric = nullptr;  // [3, 3]
  double* cells = nullptr;              // [3]
  double* fudge = nullptr;              // [1]
  double* default_factor = nullptr;     // [1]
  Real* table = nullptr;                // [H, K, L]
  double* kahn = nullptr;               // [1]
  double* polarisation_axis = nullptr;  // [3]
  double* scale = nullptr;              // [1]
  double* background = nullptr;         // [1]
  // Whether anybody reads frame, close_distance, curvature, incident, wavelength, kahn and polarisation_axis. Else the
  // kernels leave 0 there.
  bool to_detector_and_beam = true;

  template <class Visitor>
  void visit(Visitor& field) {
    in.visit(field);
    field("grad_out", grad_out, in.settings.pixels());
    field("grad_frame", frame, 12);
    field("grad_close_distance", close_distance, 1);
    field("grad_curvature", curvature, 4);
    field("grad_incident", incident, 3 * in.sources);
    field("grad_wavelength", wavelength, in.sources);
    field("grad_weight", weight, in.sources);
    field("grad_orientation", orientation, 9 * in.positions * in.mosaics);
    field("grad_reciprocal_metric", reciprocal_metric, 9);
    field("grad_cells", cells, 3);
    field("grad_fudge", fudge, 1);
    field("grad_default_factor", default_factor, 1);
    field.optional("grad_table", table, in.table_size());
    field("grad_kahn", kahn, 1);
    field("grad_polarisation_axis", polarisation_axis, 3);
    field("grad_scale", scale, 1);
    field("grad_background", background, 1);
    field("to_detector_and_beam", to_detector_and_beam);
  }
};

// One named quantity of a pixel: a number or a vector, and the step it belongs to (-1 where it belongs to none).
// Reference and kernels name the same quantities.
struct TracedValue {
  const char* name;
  std::int32_t layer, subpixel, source, position, mosaic;  // subpixels slow by slow
  std::int32_t count;                                      // 1 or 3
  double value[3];
};

template <class Real>
struct DiffractionTrace {
  static constexpr const char* kName = "diffraction_trace";

  DiffractionInputs<Real> in;
  std::int32_t slow = 0, fast = 0;
  std::vector<TracedValue>* out = nullptr;

  template <class Visitor>
  void visit(Visitor& field) {
    in.visit(field);
    field("slow", slow);
    field("fast", fast);
  }
};

}  // namespace sem
