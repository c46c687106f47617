// Products of small complex matrices that lie in cache, the sums in registers.
//
// A lane row is sixteen complex numbers, real parts before imaginary ones: [2][16]. Every sum adds its terms in their
// order whatever the size of the tile that it is computed in, so bits do not depend on how many rows are asked for at
// once.
#pragma once

#include "cpu/complex.hpp"

namespace sem::cpu::SEM_ISA {

inline constexpr int kLaneRow = 2 * kLanes;

SEM_INLINE Complex load_row(const float* row) { return {load(row), load(row + kLanes)}; }
SEM_INLINE void store_row(float* row, Complex z) {
  store(row, z.re);
  store(row + kLanes, z.im);
}

// As many sums as the registers hold beside their operands: 32 registers of 16 lanes, 16 of 8, 16 of 4.
inline constexpr int kTileRows = kRegisterLanes == 16 ? 8 : kRegisterLanes == 8 ? 2 : 1;

// A matrix of scalars in planes, real parts before imaginary ones: [..][2][kPlane] floats. The offsets within a tile
// are constants, so that a multiply-add takes its scalar from memory. kAlong: the rows are what runs along a plane and
// the terms go from plane to plane; otherwise the other way round.
template <int kPlane, bool kAlong>
struct Scalars {
  static constexpr int kImaginary = kPlane, kRow = kAlong ? 1 : 2 * kPlane, kTerm = kAlong ? 2 * kPlane : 1;
  const float* data;
};

template <int kRows, bool kConjugate, class Matrix>
SEM_INLINE void combine_tile(Matrix scalars, const float* lanes, std::int64_t terms, float* out, bool fresh) {
  Complex sum[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sum[i] = fresh ? Complex{} : load_row(out + i * kLaneRow);
  for (std::int64_t k = 0; k < terms; ++k) {
    const Complex z = load_row(lanes + k * kLaneRow);
    const float* at = scalars.data + k * Matrix::kTerm;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const float re = at[i * Matrix::kRow], im = at[i * Matrix::kRow + Matrix::kImaginary];
      sum[i].re += z.re * re;
      sum[i].im += z.re * im;
      if constexpr (kConjugate) {
        sum[i].re += z.im * im;
        sum[i].im -= z.im * re;
      } else {
        sum[i].re -= z.im * im;
        sum[i].im += z.im * re;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) store_row(out + i * kLaneRow, sum[i]);
}

// out[i] = sum_k scalars(i, k) lanes[k] for lane rows, onto what is there unless `fresh`; conj(lanes[k]) on request.
template <bool kConjugate, class Matrix, int kRows = kTileRows>
inline void combine(std::int64_t rows, Matrix scalars, const float* lanes, std::int64_t terms, float* out, bool fresh) {
  for (; rows >= kRows; rows -= kRows) {
    combine_tile<kRows, kConjugate>(scalars, lanes, terms, out, fresh);
    scalars.data += kRows * Matrix::kRow;
    out += kRows * kLaneRow;
  }
  if constexpr (kRows > 1) combine<kConjugate, Matrix, kRows / 2>(rows, scalars, lanes, terms, out, fresh);
}

template <int kRows, int kVectors>
SEM_INLINE void contract_tile(const float* rows, int lanes, const float* matrix, std::int64_t columns, float* out) {
  vfloat sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = load(out + i * columns + v * kLanes);
  for (int lane = 0; lane < lanes; ++lane)
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
      vfloat entries[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) entries[v] = load(matrix + (2 * lane + part) * columns + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[i][v] += entries[v] * rows[i * kLaneRow + part * kLanes + lane];
    }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store(out + i * columns + v * kLanes, sum[i][v]);
}

template <int kVectors, int kRows>
inline void contract_rows(std::int64_t count, const float* rows, int lanes, const float* matrix, std::int64_t columns,
                          float* out) {
  for (; count >= kRows; count -= kRows) {
    contract_tile<kRows, kVectors>(rows, lanes, matrix, columns, out);
    rows += kRows * kLaneRow;
    out += kRows * columns;
  }
  if constexpr (kRows > 1) contract_rows<kVectors, kRows / 2>(count, rows, lanes, matrix, columns, out);
}

// out[i] += sum over the first `lanes` lanes of re rows[i] matrix[lane][0] + im rows[i] matrix[lane][1], for lane rows,
// matrix [16][2][columns] and out [count][columns]; `columns` is a multiple of sixteen.
inline void contract(std::int64_t count, const float* rows, int lanes, const float* matrix, std::int64_t columns,
                     float* out) {
  std::int64_t first = 0;
  for (; first + 2 * kLanes <= columns; first += 2 * kLanes)
    contract_rows<2, kTileRows>(count, rows, lanes, matrix + first, columns, out + first);
  if (first < columns) contract_rows<1, 2 * kTileRows>(count, rows, lanes, matrix + first, columns, out + first);
}

}  // namespace sem::cpu::SEM_ISA
