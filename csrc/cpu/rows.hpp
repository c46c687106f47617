// Rows of numbers, sixteen entries at a time, and sums over rows whose bits do not depend on the number of threads.
#pragma once

#include "cpu/complex.hpp"
#include "sem/types.hpp"

namespace sem::cpu::SEM_ISA {

inline constexpr std::int64_t kRowChunk = 64;  // rows whose share of a parameter's gradient is summed in one piece

SEM_INLINE std::int64_t padded_to_lanes(std::int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// [0, total) in pieces of `size`, the last of which may be shorter.
struct Pieces {
  std::int64_t total, size = kRowChunk;

  std::int64_t count() const { return (total + size - 1) / size; }
  std::int64_t begin(std::int64_t piece) const { return piece * size; }
  std::int64_t end(std::int64_t piece) const { return piece * size + size < total ? piece * size + size : total; }
};

// No more threads than pieces of work; a single one starts no team.
inline int team(Queue queue, std::int64_t pieces) {
  if (pieces < 1) return 1;
  return pieces < queue.threads ? static_cast<int>(pieces) : queue.threads;
}

// Entries [i, i + 16) of a row; zeros past its end.
SEM_INLINE vfloat load_real(const float* row, std::int64_t width, std::int64_t i) {
  if (i + kLanes <= width) return load(row + i);
  float padded[kLanes] = {};
  std::memcpy(padded, row + i, static_cast<std::size_t>(width - i) * sizeof(float));
  return load(padded);
}

SEM_INLINE void store_real(float* row, std::int64_t width, std::int64_t i, vfloat v) {
  if (i + kLanes <= width) return store(row + i, v);
  float padded[kLanes];
  store(padded, v);
  std::memcpy(row + i, padded, static_cast<std::size_t>(width - i) * sizeof(float));
}

// The same of a complex row, as two planes.
SEM_INLINE Complex load_wave(const float* row, std::int64_t width, std::int64_t i) {
  if (i + kLanes <= width) return separate(row + 2 * i);
  float padded[2 * kLanes] = {};
  std::memcpy(padded, row + 2 * i, static_cast<std::size_t>(width - i) * 2 * sizeof(float));
  return separate(padded);
}

SEM_INLINE void store_wave(float* row, std::int64_t width, std::int64_t i, Complex z) {
  if (i + kLanes <= width) return merge(row + 2 * i, z);
  float padded[2 * kLanes];
  merge(padded, z);
  std::memcpy(row + 2 * i, padded, static_cast<std::size_t>(width - i) * 2 * sizeof(float));
}

// Whether all are zero: a row without gradient contributes nothing to what rows share, whatever it holds (a masked row
// may be NaN).
SEM_INLINE bool all_zero(const float* values, std::int64_t count) {
  vint other{};
  for (std::int64_t i = 0; i < count; i += kLanes) other |= load_real(values, count, i) != 0.0f;
  return !any(other);
}

// Re(conj(a) b).
SEM_INLINE vfloat real_product(Complex a, Complex b) { return a.re * b.re + a.im * b.im; }

// out[c] = sum of partials[piece * stride + c] over the pieces, in order and in double.
inline void sum_pieces(const float* partials, std::int64_t pieces, std::int64_t stride, std::int64_t count,
                       float* out) {
  constexpr std::int64_t kColumns = 64;
  for (std::int64_t first = 0; first < count; first += kColumns) {
    const std::int64_t columns = count - first < kColumns ? count - first : kColumns;
    double sums[kColumns] = {};
    for (std::int64_t piece = 0; piece < pieces; ++piece)
      for (std::int64_t c = 0; c < columns; ++c) sums[c] += partials[piece * stride + first + c];
    for (std::int64_t c = 0; c < columns; ++c) out[first + c] = static_cast<float>(sums[c]);
  }
}

}  // namespace sem::cpu::SEM_ISA
