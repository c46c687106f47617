// Complex numbers from and to real blocks.
#pragma once

#include <complex>
#include <cstdint>

namespace sem::reference {

template <class Real>
std::complex<Real> read(const Real* blocks, std::int64_t index) {
  return {blocks[2 * index], blocks[2 * index + 1]};
}

template <class Real>
void write(Real* blocks, std::int64_t index, std::complex<Real> value) {
  blocks[2 * index] = value.real();
  blocks[2 * index + 1] = value.imag();
}

template <class Real>
void add(Real* blocks, std::int64_t index, std::complex<Real> value) {
  blocks[2 * index] += value.real();
  blocks[2 * index + 1] += value.imag();
}

}  // namespace sem::reference
