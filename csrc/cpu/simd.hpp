// Sixteen float32 lanes, written once with compiler vector types. Every kernel file is compiled once per instruction
// set (see CMakeLists.txt) inside its own namespace SEM_ISA, so no inline function of one set can be linked into another.
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

#define SEM_INLINE inline __attribute__((always_inline))

namespace sem::cpu::SEM_ISA {

inline constexpr int kLanes = 16;

typedef float vfloat __attribute__((vector_size(64)));
typedef std::int32_t vint __attribute__((vector_size(64)));

SEM_INLINE int thread_index() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

SEM_INLINE vfloat broadcast(float value) { return vfloat{} + value; }
SEM_INLINE vint broadcast_int(std::int32_t value) { return vint{} + value; }

SEM_INLINE vfloat load(const float* from) {
  vfloat v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
SEM_INLINE void store(float* to, vfloat v) { std::memcpy(to, &v, sizeof v); }

// less(a, b): all ones in lanes where a < b. select: lanes of a mask that are all ones take a, others b.
#ifdef __AVX512F__
SEM_INLINE vint less(vfloat a, vfloat b) { return a < b; }
SEM_INLINE vfloat select(vint mask, vfloat a, vfloat b) { return mask ? a : b; }
#else
// The compiler takes comparisons and choices that are wider than a register apart lane by lane; here, by register.
#ifdef __AVX__
inline constexpr int kRegisterBytes = 32;
#else
inline constexpr int kRegisterBytes = 16;
#endif
inline constexpr int kRegisters = static_cast<int>(sizeof(vfloat)) / kRegisterBytes;
typedef float rfloat __attribute__((vector_size(kRegisterBytes)));
typedef std::int32_t rint __attribute__((vector_size(kRegisterBytes)));

SEM_INLINE vint less(vfloat a, vfloat b) {
  rfloat x[kRegisters], y[kRegisters];
  rint out[kRegisters];
  std::memcpy(x, &a, sizeof a);
  std::memcpy(y, &b, sizeof b);
#pragma GCC unroll 4
  for (int r = 0; r < kRegisters; ++r) out[r] = x[r] < y[r];
  vint mask;
  std::memcpy(&mask, out, sizeof mask);
  return mask;
}

SEM_INLINE vfloat select(vint mask, vfloat a, vfloat b) {
  rfloat x[kRegisters], y[kRegisters];
  rint m[kRegisters];
  std::memcpy(x, &a, sizeof a);
  std::memcpy(y, &b, sizeof b);
  std::memcpy(m, &mask, sizeof mask);
#pragma GCC unroll 4
  for (int r = 0; r < kRegisters; ++r) x[r] = m[r] ? x[r] : y[r];
  std::memcpy(&a, x, sizeof a);
  return a;
}
#endif

SEM_INLINE vfloat vmax(vfloat a, vfloat b) { return select(less(b, a), a, b); }
SEM_INLINE vfloat vmin(vfloat a, vfloat b) { return select(less(a, b), a, b); }
SEM_INLINE vfloat vabs(vfloat a) { return reinterpret_cast<vfloat>(reinterpret_cast<vint>(a) & 0x7fffffff); }

SEM_INLINE vfloat vsqrt(vfloat a) {
  vfloat out;
  for (int l = 0; l < kLanes; ++l) out[l] = std::sqrt(a[l]);
  return out;
}

SEM_INLINE bool any(vint mask) {
  std::int32_t seen = 0;
  for (int l = 0; l < kLanes; ++l) seen |= mask[l];
  return seen != 0;
}

// Sum of the sixteen lanes in a fixed order (a balanced tree).
SEM_INLINE float horizontal_sum(vfloat v) {
  typedef float v8 __attribute__((vector_size(32)));
  typedef float v4 __attribute__((vector_size(16)));
  v8 halves[2];
  std::memcpy(halves, &v, sizeof v);
  const v8 eight = halves[0] + halves[1];
  v4 quarters[2];
  std::memcpy(quarters, &eight, sizeof eight);
  const v4 four = quarters[0] + quarters[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace sem::cpu::SEM_ISA
