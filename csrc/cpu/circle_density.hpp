// Density of a row's phases on the circle, and sums of the same kernel against it, by a fast Gauss transform.
//
// A phase u (in bins) lies in cell c = round(2u), half a bin wide, at offset t = u - c/2, |t| <= 1/4. On a cell the
// Gauss kernel seen from a bin m bins away is a polynomial of degree 7 in t, to 3e-10. So one phase costs eight powers
// of t added to its cell's moments; bins then gather moments of the cells around them, and the density at a phase is
// one polynomial again, with coefficients that its cell gathers from the bins around it. Nothing has a phases x bins
// shape.
#pragma once

#include "cpu/tile.hpp"

namespace sem::cpu::SEM_ISA {

// Bins further than this from a phase's cell see less than 4e-9 of the kernel's peak.
inline constexpr int kReach = 6;
inline constexpr int kTerms = 8;

using vterms = vhalf;  // the eight coefficients of one cell
static_assert(kLanes == 2 * kTerms);

// tap[m + kReach][kTerms h + j]: coefficient of t^j in exp(-(t + h/2 - m)^2 / 2), interpolated at Chebyshev nodes.
class Taps {
 public:
  static const Taps& table() {
    static const Taps taps;
    return taps;
  }
  SEM_INLINE vfloat operator()(int m) const { return load(tap_[m + kReach]); }

 private:
  Taps() {
    double node[kTerms];
    for (int i = 0; i < kTerms; ++i) node[i] = 0.25 * std::cos(3.14159265358979323846 * (i + 0.5) / kTerms);
    for (int m = -kReach; m <= kReach; ++m)
      for (int half = 0; half < 2; ++half) {
        double difference[kTerms], power[kTerms] = {};
        for (int i = 0; i < kTerms; ++i) {
          const double x = node[i] + 0.5 * half - m;
          difference[i] = std::exp(-0.5 * x * x);
        }
        for (int order = 1; order < kTerms; ++order)
          for (int i = kTerms - 1; i >= order; --i)
            difference[i] = (difference[i] - difference[i - 1]) / (node[i] - node[i - order]);
        for (int i = kTerms - 1; i >= 0; --i) {  // power = power * (t - node[i]) + difference[i]
          for (int j = kTerms - 1; j > 0; --j) power[j] = power[j - 1] - node[i] * power[j];
          power[0] = difference[i] - node[i] * power[0];
        }
        for (int j = 0; j < kTerms; ++j) tap_[m + kReach][kTerms * half + j] = static_cast<float>(power[j]);
      }
  }

  alignas(64) float tap_[2 * kReach + 1][kLanes];
};

// The values of one row at its phases: sum over bins of bin value times kernel, or its derivatives.
struct KernelSum {
  vfloat value, first, second;
};

// Working memory of one row: moments of the cells, values on the bins, coefficients of the cells; wraps are stored.
class CircleDensity {
 public:
  static std::int64_t floats(std::int64_t bins) { return (2 * bins + 2 * kReach) * kLanes + bins + 2 * kReach; }

  CircleDensity(float* memory, std::int32_t bins)
      : bins_(bins),
        moments_(memory + kReach * kLanes),
        coefficients_(moments_ + (bins + kReach) * kLanes),
        on_bins_(coefficients_ + bins * kLanes + kReach) {}

  std::int32_t bins() const { return bins_; }

  void clear() {
    for (std::int32_t b = 0; b < bins_; ++b) store(moments_ + b * kLanes, vfloat{});
  }

  // Adds, for sixteen phases, by_value * g(u - k) + by_slope * g'(u - k) to every bin k (through the moments).
  SEM_INLINE void add(const float* cells, vfloat offset, vfloat by_value, vfloat by_slope) {
    vfloat term[kTerms];
    vfloat power = broadcast(1.0f);
    term[0] = by_value;
#pragma GCC unroll 8
    for (int j = 1; j < kTerms; ++j) {
      const vfloat slope = power * static_cast<float>(j);
      power *= offset;
      term[j] = by_value * power + by_slope * slope;
    }
    add_terms(cells, term);
  }

  // The same for unit density: `counted` is 1 or 0.
  SEM_INLINE void add(const float* cells, vfloat offset, vfloat counted) {
    vfloat term[kTerms];
    term[0] = counted;
#pragma GCC unroll 8
    for (int j = 1; j < kTerms; ++j) term[j] = term[j - 1] * offset;
    add_terms(cells, term);
  }

  // From moments to values on the bins to coefficients of the cells.
  void spread() {
    const Taps& tap = Taps::table();
    for (std::int32_t i = 0; i < kReach; ++i) {  // in this order: circles of fewer than kReach bins wrap repeatedly
      store(moments_ + (bins_ + i) * kLanes, load(moments_ + i * kLanes));
      store(moments_ - (i + 1) * kLanes, load(moments_ + (bins_ - 1 - i) * kLanes));
    }
    std::int32_t k = 0;
    for (; k + kLanes <= bins_; k += kLanes) {
      vfloat terms[kLanes];
      for (int i = 0; i < kLanes; i += kBlock) gather<kBlock>(tap, k + i, terms + i);
      store(on_bins_ + k, horizontal_sums(terms));
    }
    for (; k < bins_; ++k) {
      vfloat terms[1];
      gather<1>(tap, k, terms);
      on_bins_[k] = horizontal_sum(terms[0]);
    }
    for (std::int32_t i = 0; i < kReach; ++i) {
      on_bins_[bins_ + i] = on_bins_[i];
      on_bins_[-1 - i] = on_bins_[bins_ - 1 - i];
    }
    std::int32_t b = 0;
    for (; b + kBlock <= bins_; b += kBlock) scatter<kBlock>(tap, b);
    for (; b < bins_; ++b) scatter<1>(tap, b);
  }

  // The sum at sixteen phases, with as many derivatives as asked for; the others are not to be read.
  template <int kDerivatives>
  SEM_INLINE KernelSum at(const float* cells, vfloat offset) const {
    vfloat c[kTerms];
    coefficients_at(cells, c);
    KernelSum sum{c[kTerms - 1], vfloat{}, vfloat{}};
#pragma GCC unroll 8
    for (int j = kTerms - 2; j >= 0; --j) {
      if constexpr (kDerivatives >= 2) sum.second = sum.second * offset + sum.first;
      sum.first = sum.first * offset + sum.value;
      sum.value = sum.value * offset + c[j];
    }
    sum.second = sum.second * 2.0f;
    return sum;
  }

 private:
  // Neighbouring bins share all but one of the cells they reach, so several are done at once: each vector loaded feeds
  // kBlock multiply-adds.
  static constexpr int kBlock = kRegisterLanes == kLanes ? 4 : 2;

  // The terms of the values on kCount bins from `first` on, yet to be summed over cells and powers.
  template <int kCount>
  SEM_INLINE void gather(const Taps& tap, std::int32_t first, vfloat* terms) const {
    vfloat sum[kCount] = {};
#pragma GCC unroll 32
    for (int i = -kReach; i < kReach + kCount; ++i) {
      const vfloat moments = load(moments_ + (first + i) * kLanes);
#pragma GCC unroll 4
      for (int n = 0; n < kCount; ++n)
        if (n - i >= -kReach && n - i <= kReach) sum[n] += tap(n - i) * moments;
    }
    for (int n = 0; n < kCount; ++n) terms[n] = sum[n];
  }

  // The coefficients of the cells of kCount bins from `first` on.
  template <int kCount>
  SEM_INLINE void scatter(const Taps& tap, std::int32_t first) {
    vfloat sum[kCount] = {};
#pragma GCC unroll 32
    for (int i = -kReach; i < kReach + kCount; ++i) {
      const vfloat value = broadcast(on_bins_[first + i]);
#pragma GCC unroll 4
      for (int n = 0; n < kCount; ++n)
        if (i - n >= -kReach && i - n <= kReach) sum[n] += tap(i - n) * value;
    }
    for (int n = 0; n < kCount; ++n) store(coefficients_ + (first + n) * kLanes, sum[n]);
  }

  static SEM_INLINE std::int32_t cell(const float* cells, int lane) {
    std::int32_t index;
    std::memcpy(&index, cells + lane, sizeof index);
    return index;
  }

  SEM_INLINE void add_terms(const float* cells, const vfloat (&term)[kTerms]) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      vterms phase[kTerms];
#pragma GCC unroll 8
      for (int j = 0; j < kTerms; ++j) phase[j] = half == 0 ? lower_half(term[j]) : upper_half(term[j]);
      transpose<kTerms>(phase);
#pragma GCC unroll 8
      for (int l = 0; l < kTerms; ++l) {
        float* to = moments_ + cell(cells, half * kTerms + l) * kTerms;
        store(to, load<kTerms>(to) + phase[l]);
      }
    }
  }

  SEM_INLINE void coefficients_at(const float* cells, vfloat (&c)[kTerms]) const {
    vterms phase[2][kTerms];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 8
      for (int l = 0; l < kTerms; ++l)
        phase[half][l] = load<kTerms>(coefficients_ + cell(cells, half * kTerms + l) * kTerms);
      transpose<kTerms>(phase[half]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kTerms; ++j) c[j] = join_halves(phase[0][j], phase[1][j]);
  }

  std::int32_t bins_;
  float* moments_;       // [-kReach, bins + kReach) x [two cells][kTerms]
  float* coefficients_;  // [bins] x [two cells][kTerms]
  float* on_bins_;       // [-kReach, bins + kReach)
};

}  // namespace sem::cpu::SEM_ISA
