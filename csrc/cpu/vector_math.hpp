// Elementary functions on sixteen float32 lanes, accurate to about 1.5 units in the last place on the ranges stated.
// NaN goes in, NaN comes out.
#pragma once

#include "cpu/simd.hpp"

namespace sem::cpu::SEM_ISA {

// Nearest integer as float and as int32, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
SEM_INLINE vfloat round_to_int(vfloat x, vint& integer) {
  constexpr float kMagic = 12582912.0f;
  const vfloat shifted = x + kMagic;
  integer = as_int(shifted) - 0x4b400000;
  return shifted - kMagic;
}

// exp(x) = power (1 + rest) with a power of two and |rest| < 0.42; x below -87.3 is taken as that, above 88.3 likewise.
SEM_INLINE void exp_parts(vfloat x, vfloat& power, vfloat& rest) {
  x = select(x < -87.3f, broadcast(-87.3f), x);
  x = select(x > 88.3f, broadcast(88.3f), x);
  vint n;
  const vfloat k = round_to_int(x * 1.44269504088896341f, n);
  // ln 2 in two parts: the product with the first is exact for |k| < 2^15
  const vfloat r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  vfloat p = broadcast(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  rest = (p * r) * r + r;
  power = as_float((n + 127) << 23);
}

// exp(x); x below -87.3 gives about 1e-38, above 88.3 about 2e38 (no overflow, no denormals).
SEM_INLINE vfloat vexp(vfloat x) {
  vfloat power, rest;
  exp_parts(x, power, rest);
  return (rest + 1.0f) * power;
}

// sin(x) and cos(x) for |x| < 8000 (pi/2 is subtracted in three parts).
SEM_INLINE void vsincos(vfloat x, vfloat& sine, vfloat& cosine) {
  vint n;
  const vfloat k = round_to_int(x * 0.636619772367581343f, n);
  vfloat r = x - k * 1.5703125f;
  r = r - k * 4.837512969970703125e-4f;
  r = r - k * 7.54978995489188e-8f;
  const vfloat r2 = r * r;
  // Taylor series on [-pi/4, pi/4]; the first dropped terms are below 2e-9
  vfloat s = broadcast(1.0f / 362880.0f);
  s = s * r2 - 1.0f / 5040.0f;
  s = s * r2 + 1.0f / 120.0f;
  s = s * r2 - 1.0f / 6.0f;
  s = (s * r2) * r + r;
  vfloat c = broadcast(-1.0f / 3628800.0f);
  c = c * r2 + 1.0f / 40320.0f;
  c = c * r2 - 1.0f / 720.0f;
  c = c * r2 + 1.0f / 24.0f;
  c = c * r2 - 0.5f;
  c = c * r2 + 1.0f;
  const vint swap = -(n & 1);
  const vint sine_sign = (n & 2) << 30;
  const vint cosine_sign = ((n + 1) & 2) << 30;
  sine = as_float(as_int(select(swap, c, s)) ^ sine_sign);
  cosine = as_float(as_int(select(swap, s, c)) ^ cosine_sign);
}

// The angle of x + iy as octant * pi/4 + rest, with an integer octant in [-4, 4] and |rest| <= pi/8, so that a multiple
// of the octant can be taken off exactly; 0 for x = y = 0. Accurate where max(|x|, |y|) is normal and below 2^126.
SEM_INLINE void octant_angle(vfloat x, vfloat y, vfloat& octant, vfloat& rest) {
  const vfloat ax = vabs(x), ay = vabs(y);
  const vfloat large = vmax(vmax(ax, ay), broadcast(0x1p-126f)), small = vmin(ax, ay);
  const vint diagonal = large * 0.414213562373095f < small;
  // atan(t) for t <= tan(pi/8), else pi/4 + atan((t - 1) / (t + 1))
  const vfloat t = select(diagonal, small - large, small) / select(diagonal, small + large, large);
  const vfloat z = t * t;
  // atan(t) / t = 1 + z p(z): least squares on z <= tan(pi/8)^2, relative error 9e-10
  vfloat p = broadcast(-0.060516978588f);
  p = p * z + 0.10585835162f;
  p = p * z - 0.14242940163f;
  p = p * z + 0.19998478979f;
  p = p * z - 0.33333316335f;
  rest = (p * z) * t + t;
  octant = select(diagonal, broadcast(1.0f), vfloat{});
  const vint steep = ax < ay;
  octant = select(steep, 2.0f - octant, octant);
  rest = select(steep, -rest, rest);
  const vint left = x < 0.0f;
  octant = select(left, 4.0f - octant, octant);
  rest = select(left, -rest, rest);
  const vint below = y < 0.0f;
  octant = select(below, -octant, octant);
  rest = select(below, -rest, rest);
}

}  // namespace sem::cpu::SEM_ISA
