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

// Eight complex numbers as they lie in memory: each of these is one shuffle within a lane of the register, where to
// take them apart and put them together again costs four across.
template <class Vector, int... kLane>
SEM_INLINE Vector swapped(Vector v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane ^ 1)...);
}
template <class Vector, int... kLane>
SEM_INLINE Vector real_parts(Vector v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane & ~1)...);
}
template <class Vector, int... kLane>
SEM_INLINE Vector imaginary_parts(Vector v, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(v, v, (kLane | 1)...);
}
template <class Vector>
SEM_INLINE auto lanes_of(Vector) {
  return std::make_integer_sequence<int, sizeof(Vector) / sizeof(float)>();
}

// im, re, im, re, ...
template <class Vector>
SEM_INLINE Vector swapped(Vector v) {
  return swapped(v, lanes_of(v));
}
template <int kCount>
SEM_INLINE Halves<float, kCount> swapped(Halves<float, kCount> v) {
  return {swapped(v.low), swapped(v.high)};
}
// re, re, ... and im, im, ... of each
template <class Vector>
SEM_INLINE Vector real_parts(Vector v) {
  return real_parts(v, lanes_of(v));
}
template <int kCount>
SEM_INLINE Halves<float, kCount> real_parts(Halves<float, kCount> v) {
  return {real_parts(v.low), real_parts(v.high)};
}
template <class Vector>
SEM_INLINE Vector imaginary_parts(Vector v) {
  return imaginary_parts(v, lanes_of(v));
}
template <int kCount>
SEM_INLINE Halves<float, kCount> imaginary_parts(Halves<float, kCount> v) {
  return {imaginary_parts(v.low), imaginary_parts(v.high)};
}

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
