// Node by node, a tile of waves: sixteen complex numbers, lane l of row l.
#pragma once

#include "cpu/complex.hpp"
#include "cpu/tile.hpp"

namespace sem::cpu::SEM_ISA {

SEM_INLINE Complex wave_at(const float* tile, std::int64_t j) {
  return {load(tile + 2 * kLanes * j), load(tile + 2 * kLanes * j + kLanes)};
}

SEM_INLINE void put(float* tile, std::int64_t j, Complex z) {
  store(tile + 2 * kLanes * j, z.re);
  store(tile + 2 * kLanes * j + kLanes, z.im);
}

}  // namespace sem::cpu::SEM_ISA
