// Products of complex numbers, sixteen in two planes or eight as they lie in memory.
#pragma once

#include "cpu/complex.hpp"

namespace sem::cpu::SEM_ISA {

SEM_INLINE Complex times(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
// conj(a) b
SEM_INLINE Complex conjugate_times(Complex a, Complex b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}
SEM_INLINE Complex plus(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }

template <class Vector>
SEM_INLINE auto lanes_of(Vector) {
  return std::make_integer_sequence<int, sizeof(Vector) / sizeof(float)>();
}

// Eight complex numbers as they lie in memory: each of these is one shuffle within a lane of the register, where to
// take them apart and put them together again costs four across. Lane l gets what was in lane (l & kKeep) ^ kFlip.
template <int kKeep, int kFlip, class Vector, int... kLane>
SEM_INLINE Vector rearranged(Vector v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, ((kLane & kKeep) ^ kFlip)...);
}
template <int kKeep, int kFlip, class Vector>
SEM_INLINE Vector rearranged(Vector v) {
  return rearranged<kKeep, kFlip>(v, lanes_of(v));
}
template <int kKeep, int kFlip, int kCount>
SEM_INLINE Halves<float, kCount> rearranged(Halves<float, kCount> v) {
  return {rearranged<kKeep, kFlip>(v.low), rearranged<kKeep, kFlip>(v.high)};
}
// im, re, im, re, ...
SEM_INLINE vfloat swapped(vfloat v) { return rearranged<~0, 1>(v); }
// re, re, ... and im, im, ... of each
SEM_INLINE vfloat real_parts(vfloat v) { return rearranged<~1, 0>(v); }
SEM_INLINE vfloat imaginary_parts(vfloat v) { return rearranged<~1, 1>(v); }

// -1, 1, -1, 1, ...
SEM_INLINE vfloat minus_plus() {
  const float signs[kLanes] = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  return load(signs);
}
// sum + a b, and sum + conj(a) b.
SEM_INLINE vfloat add_product(vfloat sum, vfloat a, vfloat b) {
  sum += real_parts(a) * b;
  return sum + (imaginary_parts(a) * minus_plus()) * swapped(b);
}
SEM_INLINE vfloat add_conjugate_product(vfloat sum, vfloat a, vfloat b) {
  sum += real_parts(a) * b;
  return sum - (imaginary_parts(a) * minus_plus()) * swapped(b);
}

// Each of the first, of the last eight of sixteen numbers twice: what multiplies complex numbers as they lie.
template <int kFrom, class Vector, int... kLane>
SEM_INLINE Vector twice(Vector v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kFrom + kLane / 2)...);
}
template <class Vector>
SEM_INLINE Vector twice_low(Vector v) {
  return twice<0>(v, lanes_of(v));
}
template <class Vector>
SEM_INLINE Vector twice_high(Vector v) {
  return twice<sizeof(Vector) / sizeof(float) / 2>(v, lanes_of(v));
}
template <int kCount>
SEM_INLINE Halves<float, kCount> twice_low(Halves<float, kCount> v) {
  return {twice_low(v.low), twice_high(v.low)};
}
template <int kCount>
SEM_INLINE Halves<float, kCount> twice_high(Halves<float, kCount> v) {
  return {twice_low(v.high), twice_high(v.high)};
}

}  // namespace sem::cpu::SEM_ISA
