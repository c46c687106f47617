// Complex numbers, and complex arrays stored as real blocks [..., 2].
#pragma once

#include <cstdint>

#include "device/group.hpp"
#include "device/math.hpp"

namespace sem::device {

struct Complex {
  float re = 0, im = 0;
};

SEM_DEVICE Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
SEM_DEVICE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
SEM_DEVICE Complex operator*(float a, Complex b) { return {a * b.re, a * b.im}; }
SEM_DEVICE Complex conj(Complex a) { return {a.re, -a.im}; }

// a b, conj(a) b and |a|^2, rounded in one way by every compiler and in every kernel.
SEM_DEVICE Complex times(Complex a, Complex b) {
  return {fma(a.re, b.re, -(a.im * b.im)), fma(a.re, b.im, a.im * b.re)};
}
SEM_DEVICE Complex conjugate_times(Complex a, Complex b) {
  return {fma(a.re, b.re, a.im * b.im), fma(a.re, b.im, -(a.im * b.re))};
}
SEM_DEVICE float squared_modulus(Complex a) { return fma(a.re, a.re, a.im * a.im); }

// Real blocks are pairs of floats, aligned to eight bytes by torch and by every allocator of a device.
struct alignas(8) Block {
  float re, im;
};
SEM_DEVICE Complex load(const float* blocks, std::int64_t index) {
  const Block block = reinterpret_cast<const Block*>(blocks)[index];
  return {block.re, block.im};
}
SEM_DEVICE void store(float* blocks, std::int64_t index, Complex z) {
  reinterpret_cast<Block*>(blocks)[index] = {z.re, z.im};
}

}  // namespace sem::device
