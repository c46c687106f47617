// What phase transport does with one row: the passes of its forward and its backward. The operators over all rows are
// in pit.cpp.
#pragma once

#include <limits>

#include "cpu/circle_density.hpp"
#include "cpu/rows.hpp"
#include "cpu/vector_math.hpp"
#include "sem/pit.hpp"

namespace sem::cpu::SEM_ISA {

inline constexpr float kTwoPi = 6.283185307179586f;
inline constexpr float kSmallest = 7.888609052210118e-31f;  // 2^-100 of the row's largest component: below it, no phase

SEM_INLINE float from_bits(std::int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A power of two that brings a row's largest component to [1, 2), and its reciprocal.
struct PitRowScale {
  bool finite, zero;
  float factor, inverse;
};

inline PitRowScale row_scale(const float* psi, std::int64_t floats) {
  vint most{};
  std::int64_t i = 0;
  for (; i + kLanes <= floats; i += kLanes) {
    const vint bits = as_int(load(psi + i)) & 0x7fffffff;
    most = vmax(bits, most);
  }
  std::int32_t largest = 0;
  for (int l = 0; l < kLanes; ++l) largest = most[l] > largest ? most[l] : largest;
  for (; i < floats; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, psi + i, sizeof bits);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  std::int32_t exponent = largest >> 23;
  const bool finite = exponent < 255;
  exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
  return {finite, largest == 0, from_bits((254 - exponent) << 23), from_bits(exponent << 23)};
}

inline void fill(float* values, std::int64_t count, float value) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = value;
}

// What a call has in common for all rows.
struct PitSettings {
  std::int64_t width;
  std::int32_t bins;
  PitRule rule;
  float strength;
  const float* kerr;  // [width] or null
};

// One row in a thread's memory. Passes work on a copy of this: a store through a float* might change a member of an
// object in memory, as far as the compiler knows, but not a local variable's.
struct PitRow {
  static constexpr int kPlanes = 13;
  static std::int64_t padded(std::int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }
  // Floats from one plane to the next: a cache line more than needed, since lines a power of two apart share a set.
  static std::int64_t stride(std::int64_t width) { return padded(width) + kLanes; }
  static std::int64_t floats(std::int64_t width, std::int32_t bins) {
    return (kPlanes * stride(width) + CircleDensity::floats(bins) + kLanes - 1) / kLanes * kLanes;
  }

  PitRow(float* memory, const PitSettings& settings)
      : width(settings.width),
        bins(static_cast<float>(settings.bins)),
        scale(direction(settings) * settings.strength),
        score_rule(settings.rule == PitRule::score),
        density(memory + kPlanes * stride(settings.width), settings.bins) {
    float** const planes[kPlanes] = {&kerr, &re,   &im,       &offset,   &cell,  &counted, &turn,
                                     &q_re, &q_im, &by_value, &by_slope, &local, &bounded};
    for (float** plane : planes) {
      *plane = memory;
      memory += stride(width);
    }
  }

  // Shift per unit of strength and of f(s).
  static float direction(const PitSettings& settings) {
    return (settings.rule == PitRule::score ? -kTwoPi : kTwoPi) / static_cast<float>(settings.bins);
  }

  // Entries [i, i + 16) of |p|^2 over its mean.
  SEM_INLINE vfloat intensity(std::int64_t i) const {
    const vfloat re_i = load(re + i), im_i = load(im + i);
    return (re_i * re_i + im_i * im_i) * inverse_mean;
  }

  SEM_INLINE vint has_phase(std::int64_t i) const { return load(counted + i) > 0.0f; }

  std::int64_t width;
  float bins;
  float scale;  // -+ strength sigma
  bool score_rule;
  float inverse_mean = 0, uniform = 0;
  float *kerr, *re, *im, *offset, *cell, *counted, *turn;  // cell holds int32 bits, counted 1 or 0
  float *q_re, *q_im, *by_value, *by_slope, *local, *bounded;
  CircleDensity density;
};

// The scaled entries. Returns the sum of their squares.
inline double load_row(PitRow row, const float* psi, float factor) {
  BlockSum square;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const Complex z = load_wave(psi, row.width, i);
    const vfloat re = z.re * factor, im = z.im * factor;
    store(row.re + i, re);
    store(row.im + i, im);
    square.add_product(re, re);
    square.add_product(im, im);
    square.end_of_node(i / kLanes);
  }
  return horizontal_sum(square.total());
}

// A number of turns less the whole ones. Beyond 2^21 float32 has too few bits left for a phase to mean anything.
SEM_INLINE vfloat within_half(vfloat turns) {
  turns = vmax(vmin(turns, broadcast(0x1p21f)), broadcast(-0x1p21f));
  vint whole;
  return turns - round_to_int(turns, whole);
}

// Kerr phases into row.turn, and every phase's cell and offset. Returns how many phases there are.
inline float locate(PitRow row) {
  vfloat count{};
  const std::int32_t cells = 2 * row.density.bins();
  const float bins_per_octant = row.bins * 0.125f, bins_per_radian = row.bins / kTwoPi;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const vfloat kerr_turns = within_half(load(row.kerr + i) * row.intensity(i) * (1.0f / kTwoPi));
    store(row.turn + i, kerr_turns * kTwoPi);
    vfloat octant, rest;
    octant_angle(load(row.re + i), load(row.im + i), octant, rest);
    octant *= bins_per_octant;  // exact
    rest = rest * bins_per_radian + kerr_turns * row.bins;
    vint cell;
    const vfloat nearest = round_to_int((octant + rest) * 2.0f, cell);
    store(row.offset + i, (octant - nearest * 0.5f) + rest);
    cell += (cell >> 31) & cells;  // [-cells, cells] to [0, cells), in two steps
    cell -= (cell >= cells) & cells;
    store(row.cell + i, as_float(cell));
    const vint has_phase = kSmallest < vmax(vabs(load(row.re + i)), vabs(load(row.im + i)));
    const vfloat counted = select(has_phase, broadcast(1.0f), vfloat{});
    store(row.counted + i, counted);
    count += counted;
  }
  return horizontal_sum(count);
}

inline void estimate_density(PitRow row) {
  row.density.clear();
  for (std::int64_t i = 0; i < row.width; i += kLanes)
    row.density.add(row.cell + i, load(row.offset + i), load(row.counted + i));
  row.density.spread();
}

struct PitScore {
  KernelSum density;
  vfloat value;    // a, where s = a / n
  vfloat inverse;  // 1 / sqrt(a^2 + n^2): f(s) = a inverse, f'(s) = (n inverse)^3
};

template <int kDerivatives>
SEM_INLINE PitScore score(const PitRow& row, std::int64_t i) {
  const vint counted = row.has_phase(i);
  PitScore s;
  s.density = row.density.template at<kDerivatives>(row.cell + i, load(row.offset + i));
  s.density.value = select(counted, s.density.value, broadcast(1.0f));
  s.value = select(counted, row.score_rule ? s.density.first : row.uniform - s.density.value, vfloat{});
  s.inverse = vrsqrt(s.value * s.value + s.density.value * s.density.value);
  return s;
}

inline void add_shift(PitRow row) {
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const PitScore s = score<1>(row, i);
    store(row.turn + i, load(row.turn + i) + s.value * s.inverse * row.scale);
  }
}

// Returns the sum of squares after the turn.
inline double turn_row(PitRow row) {
  BlockSum square;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const vfloat re = load(row.re + i), im = load(row.im + i);
    vfloat sine, cosine;
    vsincos(load(row.turn + i), sine, cosine);
    const vfloat turned_re = re * cosine - im * sine;
    const vfloat turned_im = re * sine + im * cosine;
    square.add_product(turned_re, turned_re);
    square.add_product(turned_im, turned_im);
    square.end_of_node(i / kLanes);
    store(row.re + i, turned_re);
    store(row.im + i, turned_im);
  }
  return horizontal_sum(square.total());
}

// How the score acts on each entry: its turn; f(s); and what by_value, by_slope and t_d are per unit of w_d. With
// s = a / n, r = 1 / sqrt(a^2 + n^2) and h_d = scale (n r)^3 w_d:
//   score:          by_slope = h / n = scale n^2 r^3 w,   by_value = -s by_slope,   t = n'' by_slope + n' by_value
//   density_ratio:  by_slope = 0,   by_value = -h n_uniform / n^2 = -scale n r^3 n_uniform w,   t = n' by_value
inline void differentiate_score(PitRow row) {
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const PitScore s = score<2>(row, i);
    const vfloat bounded = s.value * s.inverse, ratio = s.density.value * s.inverse;
    const vfloat slope = ratio * s.inverse * row.scale;
    const vfloat by_slope = row.score_rule ? slope * ratio : vfloat{};
    const vfloat by_value = row.score_rule ? -slope * bounded : -slope * s.inverse * row.uniform;
    store(row.turn + i, load(row.turn + i) + bounded * row.scale);
    store(row.bounded + i, bounded);
    store(row.by_slope + i, by_slope);
    store(row.by_value + i, by_value);
    store(row.local + i, by_slope * s.density.second + by_value * s.density.first);
  }
}

struct PitTurned {
  double radial;    // A
  double strength;  // sum of f(s_d) w_d
};

// q_d; w_d in the place of the turn; and by_value, by_slope and t_d times w_d.
inline PitTurned turn_back(PitRow row, const float* grad_out) {
  BlockSum radial, strength;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const vfloat re = load(row.re + i), im = load(row.im + i);
    vfloat sine, cosine;
    vsincos(load(row.turn + i), sine, cosine);
    const Complex g = load_wave(grad_out, row.width, i);
    const vfloat q_re = cosine * g.re + sine * g.im;
    const vfloat q_im = cosine * g.im - sine * g.re;
    store(row.q_re + i, q_re);
    store(row.q_im + i, q_im);
    radial.add_product(re, q_re);
    radial.add_product(im, q_im);
    radial.end_of_node(i / kLanes);
    const vfloat w = select(row.has_phase(i), re * q_im - im * q_re, vfloat{});
    strength.add_product(load(row.bounded + i), w);
    strength.end_of_node(i / kLanes);
    store(row.turn + i, w);
    store(row.by_value + i, load(row.by_value + i) * w);
    store(row.by_slope + i, load(row.by_slope + i) * w);
    store(row.local + i, load(row.local + i) * w);
  }
  return {horizontal_sum(radial.total()), horizontal_sum(strength.total())};
}

// The gradients to the densities on the bins, and what the phases get of them.
inline void spread_gradient(PitRow row) {
  row.density.clear();
  for (std::int64_t i = 0; i < row.width; i += kLanes)
    row.density.add(row.cell + i, load(row.offset + i), load(row.by_value + i), load(row.by_slope + i));
  row.density.spread();
}

// The gradient to every phase in row.local, kerr_d e_d in row.bounded; adds c e_d I_d to grad_kerr (padded, may be
// null). Returns sum of kerr_d e_d I_d.
inline double gather_gradient(PitRow row, float c, float* grad_kerr) {
  BlockSum sum;
  const float bins_per_radian = row.bins / kTwoPi;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const vfloat by_others = row.density.at<1>(row.cell + i, load(row.offset + i)).first;
    const vfloat by_phase = select(row.has_phase(i), (load(row.local + i) + by_others) * bins_per_radian, vfloat{});
    const vfloat by_kerr_phase = load(row.turn + i) + by_phase;
    const vfloat share = by_kerr_phase * row.intensity(i);
    if (grad_kerr != nullptr) store(grad_kerr + i, load(grad_kerr + i) + share * c);
    const vfloat kerr = load(row.kerr + i);
    sum.add_product(kerr, share);
    sum.end_of_node(i / kLanes);
    store(row.local + i, by_phase);
    store(row.bounded + i, kerr * by_kerr_phase);
  }
  return horizontal_sum(sum.total());
}

// back (q - to_all p + v p + (dL/dtheta / |p|^2) i p)
inline void store_gradient(PitRow row, float to_all, float back, float* grad_psi) {
  constexpr float kLarge = 0x1p40f;  // |p|^2 itself may underflow, |2^40 p|^2 does not for an entry that has a phase
  const float to_kerr = 2.0f * row.inverse_mean;
  for (std::int64_t i = 0; i < row.width; i += kLanes) {
    const vfloat re = load(row.re + i), im = load(row.im + i);
    const vfloat x = re * kLarge, y = im * kLarge;
    const vfloat inverse = 1.0f / select(row.has_phase(i), x * x + y * y, broadcast(1.0f));
    const vfloat turn = load(row.local + i) * kLarge;
    const vfloat along = load(row.bounded + i) * to_kerr - to_all;
    store_wave(grad_psi, row.width, i,
               {(load(row.q_re + i) + along * re - turn * (y * inverse)) * back,
                (load(row.q_im + i) + along * im + turn * (x * inverse)) * back});
  }
}

// One thread's memory and what it does with a row. Lanes run across the entries of one row, so rows cannot touch each
// other; a row of a few hundred entries stays in the first-level cache from its first to its last pass. The passes are
// short on purpose: an iteration of a long one is a chain of a hundred dependent instructions, of which the processor
// cannot hold enough at once to keep its units busy.
class PitKernel {
 public:
  PitKernel(float* memory, const PitSettings& settings) : row_(memory, settings) {
    fill(row_.kerr, PitRow::padded(row_.width), 0.0f);  // no Kerr rotation is one of strength zero
    if (settings.kerr == nullptr) return;
    std::memcpy(row_.kerr, settings.kerr, static_cast<std::size_t>(row_.width) * sizeof(float));
    kerr_finite_ = row_scale(row_.kerr, row_.width).finite;
  }

  void forward(const float* psi, const float* reference_rms, float* out) {
    const PitRowScale scale = row_scale(psi, 2 * row_.width);
    if (scale.zero || !scale.finite || !kerr_finite_) {
      fill(out, 2 * row_.width, scale.zero ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const double square = prepare(psi, scale.factor);
    add_shift(row_);
    const double turned = turn_row(row_);
    const float factor = reference_rms != nullptr
                             ? static_cast<float>(*reference_rms / std::sqrt(turned / static_cast<double>(row_.width)))
                             : static_cast<float>(std::sqrt(square / turned)) * scale.inverse;
    for (std::int64_t i = 0; i < row_.width; i += kLanes)
      store_wave(out, row_.width, i, {load(row_.re + i) * factor, load(row_.im + i) * factor});
  }

  // Adds the row's share to grad_strength, per unit of PitRow::direction, and to grad_kerr (padded; null: not asked
  // for).
  void backward(const float* psi, const float* reference_rms, const float* grad_out, float* grad_psi,
                float* grad_reference, double& grad_strength, float* grad_kerr) {
    const std::int64_t width = row_.width;
    const PitRowScale scale = row_scale(psi, 2 * width);
    if (scale.zero || !scale.finite || !kerr_finite_) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      if (scale.zero && reference_rms == nullptr)
        std::memcpy(grad_psi, grad_out, static_cast<std::size_t>(width) * 2 * sizeof(float));
      else
        fill(grad_psi, 2 * width, scale.zero ? 0.0f : nan);
      if (grad_reference != nullptr) *grad_reference = scale.zero ? 0.0f : nan;
      if (scale.zero) return;
      grad_strength = nan;
      if (grad_kerr != nullptr) fill(grad_kerr, width, nan);
      return;
    }
    // The formulas of sem/pit.hpp on p = psi * scale.factor; `back` turns the bracket of g_psi into dL/dpsi.
    const double square = prepare(psi, scale.factor);
    const double rms = std::sqrt(square / static_cast<double>(width));
    const double c = reference_rms != nullptr ? *reference_rms / rms : scale.inverse;
    const float back = reference_rms != nullptr ? static_cast<float>(c * scale.factor) : 1.0f;

    differentiate_score(row_);
    const PitTurned turned = turn_back(row_, grad_out);
    grad_strength += c * turned.strength;
    if (grad_reference != nullptr) *grad_reference = static_cast<float>(turned.radial / rms);

    spread_gradient(row_);
    const double by_kerr = gather_gradient(row_, static_cast<float>(c), grad_kerr);
    const double by_rms = reference_rms != nullptr ? turned.radial : 0.0;
    store_gradient(row_, static_cast<float>((by_rms + 2 * by_kerr) / square), back, grad_psi);
  }

 private:
  double prepare(const float* psi, float factor) {
    const double square = load_row(row_, psi, factor);
    row_.inverse_mean = static_cast<float>(static_cast<double>(row_.width) / square);
    row_.uniform = kTwoPi / row_.bins * locate(row_);
    estimate_density(row_);
    return square;
  }

  PitRow row_;
  bool kerr_finite_ = true;
};

}  // namespace sem::cpu::SEM_ISA
