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

// Swaps the off-diagonal kBlock x kBlock parts of two rows.
template <int kBlock, class Vector, int... kLane>
SEM_INLINE void exchange(Vector& upper, Vector& lower, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  const Vector a = upper, b = lower;
  upper = __builtin_shufflevector(a, b, ((kLane & kBlock) ? kCount + (kLane ^ kBlock) : kLane)...);
  lower = __builtin_shufflevector(a, b, ((kLane & kBlock) ? kCount + kLane : (kLane | kBlock))...);
}

// Transposes the 4 x 4 blocks of four rows, by two rounds of shuffles that are one instruction everywhere.
template <class Vector, int... kLane>
SEM_INLINE void transpose_quads(Vector* rows, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = sizeof...(kLane);
  Vector low[2], high[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Vector a = rows[2 * i], b = rows[2 * i + 1];
    low[i] = __builtin_shufflevector(a, b, ((kLane & ~3) + (kLane & 3) / 2 + (kLane & 1) * kCount)...);
    high[i] = __builtin_shufflevector(a, b, ((kLane & ~3) + (kLane & 3) / 2 + 2 + (kLane & 1) * kCount)...);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Vector a = i == 0 ? low[0] : high[0], b = i == 0 ? low[1] : high[1];
    rows[2 * i] = __builtin_shufflevector(a, b, ((kLane & ~3) + (kLane & 1) + (kLane & 2) / 2 * kCount)...);
    rows[2 * i + 1] = __builtin_shufflevector(a, b, ((kLane & ~3) + 2 + (kLane & 1) + (kLane & 2) / 2 * kCount)...);
  }
}

// Transposes kCount rows of kCount lanes, in registers.
template <int kCount>
SEM_INLINE void transpose(Lanes<float, kCount> (&rows)[kCount]) {
  if constexpr (kCount > kRegisterLanes) {
    constexpr int kHalf = kCount / 2;
    Lanes<float, kHalf> part[2][2][kHalf];
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) {
      part[i / kHalf][0][i % kHalf] = rows[i].low;
      part[i / kHalf][1][i % kHalf] = rows[i].high;
    }
    transpose<kHalf>(part[0][0]);
    transpose<kHalf>(part[0][1]);
    transpose<kHalf>(part[1][0]);
    transpose<kHalf>(part[1][1]);
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) rows[i] = {part[0][i / kHalf][i % kHalf], part[1][i / kHalf][i % kHalf]};
  } else {
    constexpr auto kAll = std::make_integer_sequence<int, kCount>();
#pragma GCC unroll 4
    for (int i = 0; i < kCount; i += 4) transpose_quads(rows + i, kAll);
    if constexpr (kCount > 4) {
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i)
        if ((i & 4) == 0) exchange<4>(rows[i], rows[i | 4], kAll);
    }
    if constexpr (kCount > 8) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) exchange<8>(rows[i], rows[i | 8], kAll);
    }
  }
}

// Lane l is the sum of the lanes of rows[l], in a fixed order.
SEM_INLINE vfloat horizontal_sums(const vfloat (&rows)[kLanes]) {
  constexpr int kHalf = kLanes / 2;
  vhalf total[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    vhalf part[kHalf];
#pragma GCC unroll 8
    for (int l = 0; l < kHalf; ++l) part[l] = lower_half(rows[half * kHalf + l]) + upper_half(rows[half * kHalf + l]);
    transpose<kHalf>(part);
    total[half] = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
  }
  return join_halves(total[0], total[1]);
}

// Lanes in which a tile is not zero everywhere, and what is not in them cleared.
inline vint lanes_in_use(const float* tile, std::int64_t width) {
  vint used{};
  for (std::int64_t n = 0; n < width; ++n) used |= load(tile + n * kLanes) != 0.0f;
  return used;
}
inline void keep_lanes(vint lanes, float* tile, std::int64_t width) {
  for (std::int64_t n = 0; n < width; ++n) store(tile + n * kLanes, select(lanes, load(tile + n * kLanes), vfloat{}));
}

// Missing rows (the last tile of an array) are filled with zeros.
inline void load_tile(const float* array, std::int64_t width, std::int64_t tile, int rows, float* out) {
  const float* base = array + tile * kLanes * width;
  std::int64_t column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    vfloat block[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) block[l] = l < rows ? load(base + l * width + column) : vfloat{};
    transpose<kLanes>(block);
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
    transpose<kLanes>(block);
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l)
      if (l < rows) store(base + l * width + column, block[l]);
  }
  for (; column < width; ++column)
    for (int l = 0; l < rows; ++l) base[l * width + column] = in[column * kLanes + l];
}

// Rows of one tile, stored per row rather than per node.
template <class T, class Vector>
SEM_INLINE void store_rows(T* array, std::int64_t tile, int rows, Vector lanes) {
  if (array == nullptr) return;
  for (int l = 0; l < rows; ++l) array[tile * kLanes + l] = lanes[l];
}

// A sum over nodes in blocks: each block is added in float32, the blocks with a compensated sum, so that the error does
// not grow with the number of nodes.
class BlockSum {
 public:
  SEM_INLINE void add(vfloat a) { block_ += a; }
  SEM_INLINE void add_product(vfloat a, vfloat b) { block_ += a * b; }
  // Call once per node.
  SEM_INLINE void end_of_node(std::int64_t node) {
    if ((node & 7) == 7) flush();
  }
  SEM_INLINE vfloat total() {
    flush();
    return high_ + low_;
  }
  // total() - other.total(), more exact than the two.
  SEM_INLINE vfloat minus(BlockSum& other) {
    flush();
    other.flush();
    return (high_ - other.high_) + (low_ - other.low_);
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
