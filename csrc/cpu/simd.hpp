// Sixteen float32 lanes, written once with compiler vector types. Every kernel file is compiled once per instruction
// set (see CMakeLists.txt) inside its own namespace SEM_ISA, so no inline function of one set can be linked into
// another.
//
// Each lane is computed by the same instructions whatever the others hold: that is what makes a row's bits independent
// of its neighbours.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define SEM_INLINE inline __attribute__((always_inline))
// For what most calls of a kernel do not come to: inlined, it would be compiled into every kernel of every kind.
#define SEM_OUT_OF_LINE __attribute__((noinline))
// After the parameters of a lambda.
#define SEM_INLINE_LAMBDA __attribute__((always_inline))

namespace sem::cpu::SEM_ISA {

inline constexpr int kLanes = 16;

// The float32 lanes of one register. A compiler vector wider than that lives in memory, so wider ones are halved until
// they fit.
#if defined(__AVX512F__)
inline constexpr int kRegisterLanes = 16;
#elif defined(__AVX__)
inline constexpr int kRegisterLanes = 8;
#else
inline constexpr int kRegisterLanes = 4;
#endif

template <class T, int kCount>
struct Halves;

template <class T, int kCount, bool kFits = (kCount * sizeof(T) <= kRegisterLanes * sizeof(float))>
struct LanesOf {
  typedef T Type __attribute__((vector_size(kCount * sizeof(T))));
};
template <class T, int kCount>
struct LanesOf<T, kCount, false> {
  using Type = Halves<T, kCount>;
};

// kCount lanes of T: a compiler vector where a register holds them, else two halves with the same operators. The result
// of a comparison has all bits set in the lanes where it holds.
template <class T, int kCount>
using Lanes = typename LanesOf<T, kCount>::Type;
using vfloat = Lanes<float, kLanes>;
using vint = Lanes<std::int32_t, kLanes>;

template <class T, int kCount>
struct Halves {
  using Half = Lanes<T, kCount / 2>;
  using Mask = Halves<std::int32_t, kCount>;
  Half low, high;

  SEM_INLINE T operator[](int lane) const { return lane < kCount / 2 ? low[lane] : high[lane - kCount / 2]; }

  friend SEM_INLINE Halves operator-(Halves a) { return {-a.low, -a.high}; }
  friend SEM_INLINE Halves operator~(Halves a) { return {~a.low, ~a.high}; }
  friend SEM_INLINE Halves operator<<(Halves a, int bits) { return {a.low << bits, a.high << bits}; }
  friend SEM_INLINE Halves operator>>(Halves a, int bits) { return {a.low >> bits, a.high >> bits}; }

#define SEM_LANEWISE(Result, op)                                                                          \
  friend SEM_INLINE Result operator op(Halves a, Halves b) { return {a.low op b.low, a.high op b.high}; } \
  friend SEM_INLINE Result operator op(Halves a, T b) { return {a.low op b, a.high op b}; }               \
  friend SEM_INLINE Result operator op(T a, Halves b) { return {a op b.low, a op b.high}; }
#define SEM_LANEWISE_ASSIGNED(op, assign)                                               \
  SEM_LANEWISE(Halves, op)                                                              \
  friend SEM_INLINE Halves& operator assign(Halves& a, Halves b) { return a = a op b; } \
  friend SEM_INLINE Halves& operator assign(Halves& a, T b) { return a = a op b; }
  SEM_LANEWISE_ASSIGNED(+, +=)
  SEM_LANEWISE_ASSIGNED(-, -=)
  SEM_LANEWISE_ASSIGNED(*, *=)
  SEM_LANEWISE_ASSIGNED(/, /=)
  SEM_LANEWISE_ASSIGNED(&, &=)
  SEM_LANEWISE_ASSIGNED(|, |=)
  SEM_LANEWISE_ASSIGNED(^, ^=)
  SEM_LANEWISE(Mask, <)
  SEM_LANEWISE(Mask, <=)
  SEM_LANEWISE(Mask, >)
  SEM_LANEWISE(Mask, >=)
  SEM_LANEWISE(Mask, ==)
  SEM_LANEWISE(Mask, !=)
#undef SEM_LANEWISE_ASSIGNED
#undef SEM_LANEWISE
};

SEM_INLINE int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

SEM_INLINE vfloat broadcast(float value) { return vfloat{} + value; }
SEM_INLINE vint broadcast_int(std::int32_t value) { return vint{} + value; }

template <int kCount = kLanes>
SEM_INLINE Lanes<float, kCount> load(const float* from) {
  if constexpr (kCount > kRegisterLanes) {
    return {load<kCount / 2>(from), load<kCount / 2>(from + kCount / 2)};
  } else {
    Lanes<float, kCount> v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
}

// From here on a function has one form for what a register holds and one that goes into the halves.
template <class Vector>
SEM_INLINE void store(float* to, Vector v) {
  std::memcpy(to, &v, sizeof v);
}
template <int kCount>
SEM_INLINE void store(float* to, Halves<float, kCount> v) {
  store(to, v.low);
  store(to + kCount / 2, v.high);
}

// Lanes in which the mask has all bits set take a, others b.
template <class Mask, class Vector>
SEM_INLINE Vector select(Mask mask, Vector a, Vector b) {
  return mask ? a : b;
}
template <class T, int kCount>
SEM_INLINE Halves<T, kCount> select(Halves<std::int32_t, kCount> mask, Halves<T, kCount> a, Halves<T, kCount> b) {
  return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
}

// The same bits as another type.
template <class Vector>
SEM_INLINE auto as_int(Vector v) {
  return reinterpret_cast<Lanes<std::int32_t, sizeof(Vector) / sizeof(float)>>(v);
}
template <int kCount>
SEM_INLINE Halves<std::int32_t, kCount> as_int(Halves<float, kCount> v) {
  return {as_int(v.low), as_int(v.high)};
}
template <class Vector>
SEM_INLINE auto as_float(Vector v) {
  return reinterpret_cast<Lanes<float, sizeof(Vector) / sizeof(float)>>(v);
}
template <int kCount>
SEM_INLINE Halves<float, kCount> as_float(Halves<std::int32_t, kCount> v) {
  return {as_float(v.low), as_float(v.high)};
}

template <class Vector>
SEM_INLINE Vector vsqrt(Vector a) {
  constexpr int kCount = sizeof(Vector) / sizeof(float);
  Vector out;
  for (int l = 0; l < kCount; ++l) out[l] = std::sqrt(a[l]);
  return out;
}
template <int kCount>
SEM_INLINE Halves<float, kCount> vsqrt(Halves<float, kCount> a) {
  return {vsqrt(a.low), vsqrt(a.high)};
}

template <class Vector>
SEM_INLINE bool any(Vector mask) {
  constexpr int kCount = sizeof(Vector) / sizeof(std::int32_t);
  std::int32_t seen = 0;
  for (int l = 0; l < kCount; ++l) seen |= mask[l];
  return seen != 0;
}
template <int kCount>
SEM_INLINE bool any(Halves<std::int32_t, kCount> mask) {
  return any(mask.low | mask.high);
}

template <class Vector>
SEM_INLINE Vector vmax(Vector a, Vector b) {
  return select(a > b, a, b);
}
template <class Vector>
SEM_INLINE Vector vmin(Vector a, Vector b) {
  return select(a < b, a, b);
}
#ifdef __AVX512F__
// GCC writes the general form as a comparison into a mask and a blend. (Its unmasked functions warn about a value of
// their own that is not initialised.)
SEM_INLINE vfloat vmax(vfloat a, vfloat b) { return _mm512_maskz_max_ps(0xffff, a, b); }
SEM_INLINE vfloat vmin(vfloat a, vfloat b) { return _mm512_maskz_min_ps(0xffff, a, b); }
#endif
SEM_INLINE vfloat vabs(vfloat a) { return as_float(as_int(a) & 0x7fffffff); }

// 1 / sqrt(a), to 1.5 units in the last place, for normal a > 0.
#ifdef __AVX512F__
SEM_INLINE vfloat vrsqrt(vfloat a) {
  const vfloat estimate = _mm512_maskz_rsqrt14_ps(0xffff, a);  // to 2^-14; one Newton step squares the error
  const vfloat defect = 1.0f - a * estimate * estimate;
  return estimate + estimate * (0.5f * defect);
}
#else
SEM_INLINE vfloat vrsqrt(vfloat a) { return 1.0f / vsqrt(a); }
#endif

// The lower and upper eight lanes, and back, in registers: a copy through memory would wait for the store buffer.
using vhalf = Lanes<float, kLanes / 2>;
#ifdef __AVX512F__
SEM_INLINE vhalf lower_half(vfloat v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7); }
SEM_INLINE vhalf upper_half(vfloat v) { return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15); }
SEM_INLINE vfloat join_halves(vhalf low, vhalf high) {
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
#else
SEM_INLINE vhalf lower_half(vfloat v) { return v.low; }
SEM_INLINE vhalf upper_half(vfloat v) { return v.high; }
SEM_INLINE vfloat join_halves(vhalf low, vhalf high) { return {low, high}; }
#endif

// Sum of the sixteen lanes in a fixed order (a balanced tree).
SEM_INLINE float horizontal_sum(vfloat v) {
  typedef float v4 __attribute__((vector_size(16)));
  const vhalf eight = lower_half(v) + upper_half(v);
  v4 quarters[2];
  std::memcpy(quarters, &eight, sizeof eight);
  const v4 four = quarters[0] + quarters[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace sem::cpu::SEM_ISA
