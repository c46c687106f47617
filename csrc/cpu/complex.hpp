// Sixteen complex numbers with their real and imaginary parts apart, from and to memory where the two alternate.
#pragma once

#include <utility>

#include "cpu/simd.hpp"

namespace sem::cpu::SEM_ISA {

template <int kCount>
struct ComplexLanes {
  Lanes<float, kCount> re, im;
};
using Complex = ComplexLanes<kLanes>;

template <int... kLane>
SEM_INLINE auto separate(const float* from, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  const Lanes<float, kCount> a = load<kCount>(from), b = load<kCount>(from + kCount);
  return ComplexLanes<kCount>{__builtin_shufflevector(a, b, (2 * kLane)...),
                              __builtin_shufflevector(a, b, (2 * kLane + 1)...)};
}

template <int kCount, int... kLane>
SEM_INLINE void merge(float* to, ComplexLanes<kCount> z, std::integer_sequence<int, kLane...>) {
  store(to, __builtin_shufflevector(z.re, z.im, (kLane / 2 + (kLane & 1) * kCount)...));
  store(to + kCount, __builtin_shufflevector(z.re, z.im, (kCount / 2 + kLane / 2 + (kLane & 1) * kCount)...));
}

template <int kCount = kLanes>
SEM_INLINE ComplexLanes<kCount> separate(const float* from) {
  if constexpr (kCount > kRegisterLanes) {
    const ComplexLanes<kCount / 2> low = separate<kCount / 2>(from), high = separate<kCount / 2>(from + kCount);
    return {{low.re, high.re}, {low.im, high.im}};
  } else {
    return separate(from, std::make_integer_sequence<int, kCount>());
  }
}

template <int kCount>
SEM_INLINE void merge(float* to, ComplexLanes<kCount> z) {
  if constexpr (kCount > kRegisterLanes) {
    merge(to, ComplexLanes<kCount / 2>{z.re.low, z.im.low});
    merge(to + kCount, ComplexLanes<kCount / 2>{z.re.high, z.im.high});
  } else {
    merge(to, z, std::make_integer_sequence<int, kCount>());
  }
}

}  // namespace sem::cpu::SEM_ISA
