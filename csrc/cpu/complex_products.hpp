// Products of sixteen complex numbers.
#pragma once

#include "cpu/complex.hpp"

namespace sem::cpu::SEM_ISA {

SEM_INLINE Complex times(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
// conj(a) b
SEM_INLINE Complex conjugate_times(Complex a, Complex b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}
SEM_INLINE Complex plus(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }

}  // namespace sem::cpu::SEM_ISA
