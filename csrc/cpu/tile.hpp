// A tile is sixteen rows of a [rows, width] array turned so that lanes run across rows: [width][16]. A [rows, nodes, 2]
// array therefore becomes [nodes][real, imaginary][16]: the two components of a node lie side by side and one neighbour
// index or weight serves both.
#pragma once

#include <cstddef>
#include <utility>

#include "cpu/simd.hpp"

namespace sem::cpu::SEM_ISA {

SEM_INLINE std::int64_t tile_count(std::int64_t rows) { return (rows + kLanes - 1) / kLanes; }

SEM_INLINE int rows_in_tile(std::int64_t rows, std::int64_t tile) {
  const std::int64_t left = rows - tile * kLanes;
  return left < kLanes ? static_cast<int>(left) : kLanes;
}

#ifdef __AVX512F__
// One exchange of the 16 x 16 transposition: swaps the off-diagonal kBlock x kBlock parts of two rows.
template <int kBlock, int... kLane>
SEM_INLINE void exchange(vfloat& upper, vfloat& lower, std::integer_sequence<int, kLane...>) {
  const vfloat a = upper, b = lower;
  upper = __builtin_shufflevector(a, b, ((kLane & kBlock) ? 16 + (kLane ^ kBlock) : kLane)...);
  lower = __builtin_shufflevector(a, b, ((kLane & kBlock) ? 16 + kLane : (kLane | kBlock))...);
}

template <int kBlock>
SEM_INLINE void exchange_all(vfloat (&rows)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    if ((i & kBlock) == 0)
      exchange<kBlock>(rows[i], rows[i | kBlock], std::make_integer_sequence<int, kLanes>());
}

SEM_INLINE void transpose(vfloat (&rows)[kLanes]) {
  exchange_all<8>(rows);
  exchange_all<4>(rows);
  exchange_all<2>(rows);
  exchange_all<1>(rows);
}
#else
SEM_INLINE void transpose(vfloat (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float held = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = held;
    }
}
#endif

// Missing rows (the last tile of an array) are filled with zeros.
inline void load_tile(const float* array, std::int64_t width, std::int64_t tile, int rows, float* out) {
  const float* base = array + tile * kLanes * width;
  std::int64_t column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    vfloat block[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) block[l] = l < rows ? load(base + l * width + column) : vfloat{};
    transpose(block);
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) store(out + (column + l) * kLanes, block[l]);
  }
  for (; column < width; ++column)
    for (int l = 0; l < kLanes; ++l) out[column * kLanes + l] = l < rows ? base[l * width + column] : 0.0f;
}

inline void store_tile(float* array, std::int64_t width, std::int64_t tile, int rows, const float* in) {
  float* base = array + tile * kLanes * width;
  std::int64_t column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    vfloat block[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) block[l] = load(in + (column + l) * kLanes);
    transpose(block);
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l)
      if (l < rows) store(base + l * width + column, block[l]);
  }
  for (; column < width; ++column)
    for (int l = 0; l < rows; ++l) base[l * width + column] = in[column * kLanes + l];
}

// Rows of one tile, stored per row rather than per node.
template <class T, class Vector>
SEM_INLINE void store_lanes(T* array, std::int64_t tile, int rows, Vector lanes) {
  if (array == nullptr) return;
  for (int l = 0; l < rows; ++l) array[tile * kLanes + l] = lanes[l];
}

// A sum over nodes in blocks: each block is added in float32, the blocks with a compensated sum, so that the error does
// not grow with the number of nodes.
class BlockSum {
 public:
  SEM_INLINE void add_product(vfloat a, vfloat b) { block_ += a * b; }
  // Call once per node.
  SEM_INLINE void end_of_node(std::int64_t node) {
    if ((node & 7) == 7) flush();
  }
  SEM_INLINE vfloat total() {
    flush();
    return high_ + low_;
  }

 private:
  SEM_INLINE void flush() {
    const vfloat sum = high_ + block_;
    const vfloat part = sum - high_;
    low_ += (high_ - (sum - part)) + (block_ - part);
    high_ = sum;
    block_ = vfloat{};
  }
  vfloat block_{}, high_{}, low_{};
};

}  // namespace sem::cpu::SEM_ISA
