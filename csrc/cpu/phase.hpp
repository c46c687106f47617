// Phase factors.
#pragma once

#include "cpu/complex.hpp"
#include "cpu/vector_math.hpp"

namespace sem::cpu::SEM_ISA {

// exp(i phi). Beyond 2^21 float32 has too few bits left for a phase to mean anything: none is taken, and NaN of Inf.
SEM_INLINE Complex turn(vfloat phi) {
  Complex out;
  vsincos(select(vabs(phi) < 0x1p21f, phi, phi * 0.0f), out.im, out.re);
  return out;
}

}  // namespace sem::cpu::SEM_ISA
