// Elementary functions for kernel bodies: additions, multiplications and bit patterns alone, so that every back end
// computes by the same formulas. Accurate to about 1.5 units in the last place on the ranges stated; NaN goes in, NaN
// comes out. The formulas are those of csrc/cpu/vector_math.hpp, one lane at a time.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

inline constexpr float kTwoPi = 6.283185307179586f;
inline constexpr float kNaN = __builtin_nanf("");

SEM_DEVICE std::int32_t bits(float x) { return __builtin_bit_cast(std::int32_t, x); }
SEM_DEVICE float from_bits(std::int32_t x) { return __builtin_bit_cast(float, x); }

SEM_DEVICE float abs(float x) { return from_bits(bits(x) & 0x7fffffff); }
// The larger and the smaller of two numbers; of a NaN and a number, either.
template <class T>
SEM_DEVICE T max(T a, T b) {
  return a < b ? b : a;
}
template <class T>
SEM_DEVICE T min(T a, T b) {
  return b < a ? b : a;
}
SEM_DEVICE bool is_finite(float x) { return (bits(x) & 0x7fffffff) < 0x7f800000; }
#if defined(__SYCL_DEVICE_ONLY__)
SEM_DEVICE float sqrt(float x) { return sycl::sqrt(x); }
#else
SEM_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
#endif

// a b + c, rounded once.
#if defined(__SYCL_DEVICE_ONLY__)
SEM_DEVICE float fma(float a, float b, float c) { return sycl::fma(a, b, c); }
#else
SEM_DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#endif

// Their argument, but not known to be so to the compiler: what follows from it is computed again where it is needed,
// and not kept from an earlier use in registers that are too few.
SEM_DEVICE float recomputed(float x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+f"(x));
#endif
  return x;
}
SEM_DEVICE int recomputed(int x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// Nearest integer as float and as int32, for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa bits.
SEM_DEVICE float round_to_int(float x, std::int32_t& integer) {
  constexpr float kMagic = 12582912.0f;
  const float shifted = x + kMagic;
  integer = bits(shifted) - 0x4b400000;
  return shifted - kMagic;
}

// exp(x); x below -87.3 gives about 1e-38, above 88.3 about 2e38 (no overflow, no denormals).
SEM_DEVICE float exp(float x) {
  x = x < -87.3f ? -87.3f : x;
  x = x > 88.3f ? 88.3f : x;
  std::int32_t n;
  const float k = round_to_int(x * 1.44269504088896341f, n);
  // ln 2 in two parts: the product with the first is exact for |k| < 2^15
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  return p * from_bits((n + 127) << 23);
}

// sin(x) and cos(x) for |x| < kMaxAngle (pi/2 is subtracted in three parts); NaN beyond.
inline constexpr float kMaxAngle = 8000.0f;
SEM_DEVICE void sincos(float x, float& sine, float& cosine) {
  x = abs(x) < kMaxAngle ? x : kNaN;
  std::int32_t n;
  const float k = round_to_int(x * 0.636619772367581343f, n);
  float r = x - k * 1.5703125f;
  r = r - k * 4.837512969970703125e-4f;
  r = r - k * 7.54978995489188e-8f;
  const float r2 = r * r;
  // Taylor series on [-pi/4, pi/4]; the first dropped terms are below 2e-9
  float s = 1.0f / 362880.0f;
  s = s * r2 - 1.0f / 5040.0f;
  s = s * r2 + 1.0f / 120.0f;
  s = s * r2 - 1.0f / 6.0f;
  s = (s * r2) * r + r;
  float c = -1.0f / 3628800.0f;
  c = c * r2 + 1.0f / 40320.0f;
  c = c * r2 - 1.0f / 720.0f;
  c = c * r2 + 1.0f / 24.0f;
  c = c * r2 - 0.5f;
  c = c * r2 + 1.0f;
  const bool swap = (n & 1) != 0;
  sine = from_bits(bits(swap ? c : s) ^ static_cast<std::int32_t>(static_cast<std::uint32_t>(n & 2) << 30));
  cosine = from_bits(bits(swap ? s : c) ^ static_cast<std::int32_t>(static_cast<std::uint32_t>((n + 1) & 2) << 30));
}

// The angle of x + iy as octant * pi/4 + rest, with an integer octant in [-4, 4] and |rest| <= pi/8, so that a multiple
// of the octant can be taken off exactly. x and y not both zero; max(|x|, |y|) in the normal range and below 2^126.
SEM_DEVICE void octant_angle(float x, float y, float& octant, float& rest) {
  const float ax = abs(x), ay = abs(y);
  const float large = max(ax, ay), small = min(ax, ay);
  const bool diagonal = large * 0.414213562373095f < small;
  // atan(t) for t <= tan(pi/8), else pi/4 + atan((t - 1) / (t + 1))
  const float t = (diagonal ? small - large : small) / (diagonal ? small + large : large);
  const float z = t * t;
  // atan(t) / t = 1 + z p(z): least squares on z <= tan(pi/8)^2, relative error 9e-10
  float p = -0.060516978588f;
  p = p * z + 0.10585835162f;
  p = p * z - 0.14242940163f;
  p = p * z + 0.19998478979f;
  p = p * z - 0.33333316335f;
  rest = (p * z) * t + t;
  octant = diagonal ? 1.0f : 0.0f;
  const bool steep = ax < ay;
  octant = steep ? 2.0f - octant : octant;
  rest = steep ? -rest : rest;
  const bool left = x < 0.0f;
  octant = left ? 4.0f - octant : octant;
  rest = left ? -rest : rest;
  const bool below = y < 0.0f;
  octant = below ? -octant : octant;
  rest = below ? -rest : rest;
}

}  // namespace sem::device
