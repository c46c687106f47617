// transport_row: online entropic transport (sem/encoder/transport.py) by one row of each sequence, behind the rows that
// left their sums.
//
//   before_km = loads_km + lost_km + n0 / M,    w_0 = kernel,    total_k = sum_m w_km
//   w_(k+1)m  = kernel_m (seen / M) / (before_km + kernel_m / total_k)
//
// until total moves by a factor of at most e^tol, in round s, or rounds are over; from then on total_k = total_s.
//   plan = w / sum w  with the w that follows from the last round's sums and total_s
//   loads_after_k = loads_k + (lost_k + kernel / total_k),  with what rounding takes from it in lost_after_k (Kahan).
// No gradients: it continues a sequence whose parameters are what they are.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct TransportRow {
  static constexpr const char* kName = "transport_row";

  std::int64_t batch = 0;
  std::int64_t rounds = 0;   // at least 1
  std::int64_t columns = 0;  // M
  Real prior_rows = 0;       // n0 > 0
  Real tol = 0;
  const Real* kernel = nullptr;  // [batch, columns], >= 0
  const Real* seen = nullptr;    // [batch], n0 and the rows up to this one, itself among them
  const Real* loads = nullptr;   // [batch, rounds, columns]
  const Real* lost = nullptr;    // [batch, rounds, columns]
  Real* plan = nullptr;          // [batch, columns]
  Real* loads_after = nullptr;   // [batch, rounds, columns]
  Real* lost_after = nullptr;    // [batch, rounds, columns]

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch);
    field("rounds", rounds);
    field("columns", columns);
    field("prior_rows", prior_rows);
    field("tol", tol);
    field("kernel", kernel, batch * columns);
    field("seen", seen, batch);
    field("loads", loads, batch * rounds * columns);
    field("lost", lost, batch * rounds * columns);
    field("plan", plan, batch * columns);
    field("loads_after", loads_after, batch * rounds * columns);
    field("lost_after", lost_after, batch * rounds * columns);
  }
};

}  // namespace sem
