// Products of a matrix with a few vectors, for which reading the matrix is most of the work.
#pragma once

#include "cpu/rows.hpp"

namespace sem::cpu::SEM_ISA {

// out[b, o] = sum_i matrix[o, i] x[b, i] + add[b, o], where there is `add`; add_stride 0: the same for each b.
struct Affine {
  const float *matrix, *x;
  std::int64_t inputs, outputs;
  const float* add = nullptr;
  std::int64_t add_stride = 0;

  // Memory traffic: the matrix is read once for each b; its pieces stay in cache.
  void operator()(std::int64_t batch, float* out, Queue queue) const {
    constexpr std::int64_t kPiece = 64, kWorthATeam = 1 << 19;
    const Pieces pieces{outputs, kPiece};
    const int threads = batch * inputs * outputs < kWorthATeam ? 1 : team(queue, pieces.count());
#pragma omp parallel for schedule(static) num_threads(threads)
    for (std::int64_t piece = 0; piece < pieces.count(); ++piece)
      for (std::int64_t b = 0; b < batch; ++b) {
        std::int64_t o = pieces.begin(piece);
        for (; o + kSideBySide <= pieces.end(piece); o += kSideBySide) dots<kSideBySide>(b, o, out);
        for (; o < pieces.end(piece); ++o) dots<1>(b, o, out);
      }
  }

 private:
  static constexpr std::int64_t kSideBySide = 4;

  template <int kCount>
  SEM_INLINE void dots(std::int64_t b, std::int64_t o, float* out) const {
    vfloat sum[kCount] = {};
    for (std::int64_t i = 0; i < inputs; i += kLanes) {
      const vfloat along = load_real(x + b * inputs, inputs, i);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) sum[k] += load_real(matrix + (o + k) * inputs, inputs, i) * along;
    }
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k)
      out[b * outputs + o + k] = horizontal_sum(sum[k]) + (add == nullptr ? 0.0f : add[b * add_stride + o + k]);
  }
};

}  // namespace sem::cpu::SEM_ISA
