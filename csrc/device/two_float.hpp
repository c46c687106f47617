// Numbers of 48 bits as the sum of two floats, for the few quantities that float32 is too coarse for, on devices with
// and without float64 alike. A result's relative error is a few 2^-48, where a sum does not cancel.
//
// Products are written as fma: a product that the compiler may contract into a later sum would not be rounded where the
// formulas need it to be.
#pragma once

#include <cstdint>

#include "device/math.hpp"

namespace sem::device {

struct TwoFloat {
  float high = 0, low = 0;  // |low| is at most half a unit in the last place of high
};

// For constants; evaluated by the compiler alone.
SEM_HOST_DEVICE constexpr TwoFloat two_float(double x) {
  const float high = static_cast<float>(x);
  return {high, static_cast<float>(x - static_cast<double>(high))};
}

// a + b exactly; the second where |a| >= |b|.
SEM_DEVICE TwoFloat two_sum(float a, float b) {
  const float sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}
SEM_DEVICE TwoFloat quick_two_sum(float a, float b) {
  const float sum = a + b;
  return {sum, b - (sum - a)};
}
// a b exactly.
SEM_DEVICE TwoFloat two_product(float a, float b) {
  const float product = fma(a, b, 0.0f);
  return {product, fma(a, b, -product)};
}

SEM_DEVICE TwoFloat operator-(TwoFloat a) { return {-a.high, -a.low}; }
SEM_DEVICE TwoFloat operator+(TwoFloat a, TwoFloat b) {
  const TwoFloat sum = two_sum(a.high, b.high);
  return two_sum(sum.high, sum.low + (a.low + b.low));
}
SEM_DEVICE TwoFloat operator-(TwoFloat a, TwoFloat b) { return a + -b; }
SEM_DEVICE TwoFloat operator+(TwoFloat a, float b) {
  const TwoFloat sum = two_sum(a.high, b);
  return quick_two_sum(sum.high, sum.low + a.low);
}
SEM_DEVICE TwoFloat operator*(TwoFloat a, TwoFloat b) {
  const TwoFloat product = two_product(a.high, b.high);
  return quick_two_sum(product.high, fma(a.low, b.high, fma(a.high, b.low, product.low)));
}
SEM_DEVICE TwoFloat operator*(float a, TwoFloat b) {
  const TwoFloat product = two_product(a, b.high);
  return quick_two_sum(product.high, fma(a, b.low, product.low));
}
// The error is of the size of 2^-48 times the largest product, whatever cancels.
SEM_DEVICE TwoFloat dot(const TwoFloat (&a)[3], const TwoFloat (&b)[3]) {
  TwoFloat sum = two_product(a[0].high, b[0].high);
  sum.low = fma(a[0].low, b[0].high, fma(a[0].high, b[0].low, sum.low));
  SEM_UNROLL
  for (int i = 1; i < 3; ++i) {
    const TwoFloat product = two_product(a[i].high, b[i].high), both = two_sum(sum.high, product.high);
    const float low = fma(a[i].low, b[i].high, fma(a[i].high, b[i].low, product.low));
    sum = {both.high, both.low + (sum.low + low)};
  }
  return two_sum(sum.high, sum.low);
}

// One Newton step from float32 each.
SEM_DEVICE TwoFloat reciprocal(TwoFloat a) {
  const float rough = 1.0f / a.high;
  const TwoFloat error = -(rough * a) + 1.0f;
  return quick_two_sum(rough, rough * error.high);
}
SEM_DEVICE TwoFloat inverse_sqrt(TwoFloat a) {
  const float rough = 1.0f / sqrt(a.high);
  const TwoFloat error = -(two_product(rough, rough) * a) + 1.0f;
  return quick_two_sum(rough, rough * 0.5f * error.high);
}
// 0 for 0.
SEM_DEVICE TwoFloat sqrt(TwoFloat a) {
  const float rough = sqrt(a.high);
  const TwoFloat error = a - two_product(rough, rough);
  return quick_two_sum(rough, rough > 0.0f ? error.high * 0.5f / rough : 0.0f * error.high);
}

// The nearest whole number, half way the lower one, and what is left in (-1/2, 1/2]; for |a| < 2^22.
SEM_DEVICE float nearest_whole(TwoFloat a, TwoFloat& rest) {
  std::int32_t unused;
  float whole = round_to_int(a.high, unused);
  rest = two_sum(a.high - whole, a.low);
  if (rest.high > 0.5f || (rest.high == 0.5f && rest.low > 0.0f)) {
    whole += 1.0f;
    rest = rest + -1.0f;
  } else if (rest.high < -0.5f || (rest.high == -0.5f && rest.low <= 0.0f)) {
    whole -= 1.0f;
    rest = rest + 1.0f;
  }
  return whole;
}

// sin and cos for |angle| < 1000.
SEM_DEVICE void sincos(TwoFloat angle, TwoFloat& sine, TwoFloat& cosine) {
  constexpr TwoFloat kHalfPi = two_float(1.57079632679489661923);
  constexpr float kHalfPiRest = -1.7151245e-15f;  // what two floats leave of it
  std::int32_t quarter;
  const float turns = round_to_int(angle.high * 0.636619772367581343f, quarter);
  const TwoFloat r = (angle - turns * kHalfPi) + -(turns * kHalfPiRest);
  const TwoFloat square = r * r;
  // Taylor series on [-pi/4, pi/4]; the first dropped terms are below 1e-15
  constexpr TwoFloat kSine[] = {two_float(-1.0 / 1307674368000.0),
                                two_float(1.0 / 6227020800.0),
                                two_float(-1.0 / 39916800.0),
                                two_float(1.0 / 362880.0),
                                two_float(-1.0 / 5040.0),
                                two_float(1.0 / 120.0),
                                two_float(-1.0 / 6.0)};
  constexpr TwoFloat kCosine[] = {two_float(1.0 / 20922789888000.0),
                                  two_float(-1.0 / 87178291200.0),
                                  two_float(1.0 / 479001600.0),
                                  two_float(-1.0 / 3628800.0),
                                  two_float(1.0 / 40320.0),
                                  two_float(-1.0 / 720.0),
                                  two_float(1.0 / 24.0),
                                  two_float(-1.0 / 2.0)};
  TwoFloat s = kSine[0], c = kCosine[0];
  SEM_UNROLL
  for (int k = 1; k < 7; ++k) s = s * square + kSine[k];
  SEM_UNROLL
  for (int k = 1; k < 8; ++k) c = c * square + kCosine[k];
  s = (s * square) * r + r;
  c = c * square + 1.0f;
  const bool swap = (quarter & 1) != 0;
  sine = swap ? c : s;
  cosine = swap ? s : c;
  if ((quarter & 2) != 0) sine = -sine;
  if (((quarter + 1) & 2) != 0) cosine = -cosine;
}

// 2^exponent for -126 <= exponent <= 127.
SEM_DEVICE float power_of_two(std::int32_t exponent) { return from_bits((exponent + 127) << 23); }
// x 2^exponent for |exponent| <= 252.
SEM_DEVICE float scaled(float x, std::int32_t exponent) {
  return x * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
}

// A float64 is read and written by its bits: a device without float64 arithmetic has it in memory all the same. Reading
// keeps 48 bits of numbers in float32's range and gives 0 below it; writing gives a float32's value.
using Float64Bits = std::uint64_t;

SEM_DEVICE TwoFloat read_float64(Float64Bits x) {
  const std::int32_t exponent = static_cast<std::int32_t>((x >> 52) & 0x7ff) - 1023;
  const Float64Bits fraction = x & 0xfffffffffffffull;
  const float sign = (x >> 63) != 0 ? -1.0f : 1.0f;
  if (exponent == 1024) return {fraction != 0 ? kNaN : sign * from_bits(0x7f800000), 0.0f};
  if (exponent > 127) return {sign * from_bits(0x7f800000), 0.0f};
  if (exponent < -126) return {};
  const Float64Bits all = fraction | 0x10000000000000ull;
  const float high = static_cast<float>(static_cast<std::uint32_t>(all >> 29));
  const float low = static_cast<float>(static_cast<std::uint32_t>(all & 0x1fffffffull));
  return quick_two_sum(sign * scaled(high, exponent - 23), sign * scaled(low, exponent - 52));
}

SEM_DEVICE Float64Bits float64_bits(float x) {
  const auto pattern = static_cast<std::uint32_t>(bits(x));
  const Float64Bits sign = static_cast<Float64Bits>(pattern >> 31) << 63;
  const std::uint32_t exponent = (pattern >> 23) & 0xff, fraction = pattern & 0x7fffff;
  if (exponent == 0) return sign;
  const Float64Bits wide = exponent == 255 ? 0x7ff : exponent - 127 + 1023;
  return sign | (wide << 52) | (static_cast<Float64Bits>(fraction) << 29);
}

}  // namespace sem::device
