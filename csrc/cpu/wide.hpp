// Sixteen float64 lanes beside the sixteen float32 ones, for what has to be built in double and rounded once.
#pragma once

#include "cpu/simd.hpp"

namespace sem::cpu::SEM_ISA {

using vdouble = Lanes<double, kLanes>;

SEM_INLINE vdouble broadcast_double(double value) { return vdouble{} + value; }

namespace wide {

// A float32 vector of kCount lanes that fits one register, whose double does not.
template <int kCount>
SEM_INLINE Lanes<float, kCount> join(Lanes<float, kCount / 2> low, Lanes<float, kCount / 2> high) {
  if constexpr (kCount == 16)
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  else if constexpr (kCount == 8)
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  else
    return __builtin_shufflevector(low, high, 0, 1, 2, 3);
}

template <int kCount>
SEM_INLINE Lanes<float, kCount> narrow(Lanes<double, kCount> v) {
  if constexpr (kCount > kRegisterLanes) {
    return {narrow<kCount / 2>(v.low), narrow<kCount / 2>(v.high)};
  } else if constexpr (kCount == kRegisterLanes) {
    return join<kCount>(narrow<kCount / 2>(v.low), narrow<kCount / 2>(v.high));
  } else {
    return __builtin_convertvector(v, Lanes<float, kCount>);
  }
}

template <int kCount>
SEM_INLINE Lanes<double, kCount> widen(Lanes<float, kCount> v) {
  if constexpr (kCount > kRegisterLanes) {
    return {widen<kCount / 2>(v.low), widen<kCount / 2>(v.high)};
#ifdef __AVX512F__
  } else if constexpr (kCount == 16) {
    // GCC converts eight lanes four by four.
    return {_mm512_maskz_cvtps_pd(0xff, lower_half(v)), _mm512_maskz_cvtps_pd(0xff, upper_half(v))};
#endif
  } else if constexpr (kCount == 8 && kRegisterLanes == 8) {
    return {widen<4>(__builtin_shufflevector(v, v, 0, 1, 2, 3)), widen<4>(__builtin_shufflevector(v, v, 4, 5, 6, 7))};
  } else if constexpr (kCount == 4 && kRegisterLanes == 4) {
    return {widen<2>(__builtin_shufflevector(v, v, 0, 1)), widen<2>(__builtin_shufflevector(v, v, 2, 3))};
  } else {
    return __builtin_convertvector(v, Lanes<double, kCount>);
  }
}

}  // namespace wide

SEM_INLINE vfloat to_float(vdouble v) { return wide::narrow<kLanes>(v); }
SEM_INLINE vdouble to_double(vfloat v) { return wide::widen<kLanes>(v); }

SEM_INLINE vdouble load_wide(const double* from) {
  vdouble v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
SEM_INLINE void store_wide(double* to, vdouble v) { std::memcpy(to, &v, sizeof v); }

// The nearest whole number (ties to even) for |x| < 2^51.
#ifdef __AVX512F__
SEM_INLINE vdouble nearest_whole(vdouble x) {
  return {_mm512_maskz_roundscale_pd(0xff, x.low, 0), _mm512_maskz_roundscale_pd(0xff, x.high, 0)};
}
#else
SEM_INLINE vdouble nearest_whole(vdouble x) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  return (x + kMagic) - kMagic;
}
#endif

}  // namespace sem::cpu::SEM_ISA
