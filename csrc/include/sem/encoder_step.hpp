// encoder_step: one token of each sequence through the encoder (sem/encoder), for models that decode: online entropic
// transport behind the rows that left their sums, the plan made sparse, lifted to a wave and turned by its position.
//
//   before_km = loads_km + lost_km + n0 / M,    w_0 = kernel,    total_k = sum_m w_km
//   w_(k+1)m  = kernel_m (n0 + position + 1) / M / (before_km + kernel_m / total_k)
//
// until total moves by a factor of at most e^tol, in round s, or rounds are over; from then on total_k = total_s. With
// the w that follows from the last round's sums and total_s, plan = w / sum w, and p its excess over its sparsity-th
// largest entry, at least 0:
//
//   wave_d = (sum_m (lift_d0m + i lift_d1m) p_m) e^(i position rate_d)
//   loads_after_k = loads_k + (lost_k + kernel / total_k),  with what rounding takes from it in lost_after_k (Kahan).
//
// No gradients: it continues a sequence whose parameters are what they are.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct EncoderStep {
  static constexpr const char* kName = "encoder_step";

  std::int64_t batch = 0;
  std::int64_t rounds = 1;
  std::int64_t columns = 1;  // M
  std::int64_t dim = 1;
  Real prior_rows = 1;  // n0 > 0
  Real tol = 0;
  std::int32_t sparsity = 1;        // 1 to M
  const Real* kernel = nullptr;     // [batch, columns], >= 0
  const Real* positions = nullptr;  // [batch], how many tokens came before
  const Real* loads = nullptr;      // [batch, rounds, columns]
  const Real* lost = nullptr;       // [batch, rounds, columns]
  const Real* lift = nullptr;       // [dim, 2, columns]
  const Real* rates = nullptr;      // [dim]
  Real* wave = nullptr;             // [batch, dim, 2]
  Real* loads_after = nullptr;      // [batch, rounds, columns]
  Real* lost_after = nullptr;       // [batch, rounds, columns]

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch);
    field("rounds", rounds);
    field("columns", columns);
    field("dim", dim);
    field("prior_rows", prior_rows);
    field("tol", tol);
    field("sparsity", sparsity);
    field("kernel", kernel, batch * columns);
    field("positions", positions, batch);
    field("loads", loads, batch * rounds * columns);
    field("lost", lost, batch * rounds * columns);
    field("lift", lift, dim * 2 * columns);
    field("rates", rates, dim);
    field("wave", wave, batch * dim * 2);
    field("loads_after", loads_after, batch * rounds * columns);
    field("lost_after", lost_after, batch * rounds * columns);
  }
};

}  // namespace sem
