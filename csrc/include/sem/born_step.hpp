// born_step: log-probabilities of the Born head (sem/sampler) for a few waves, for models that decode.
//
//   q_v = |sum_d W_vd psi_d|^2,    r_v = (q_v + floor mean q) e^bias_v,    out_v = log r_v - log sum r
//
// q_v + floor mean q is taken as at least the smallest normal number. No gradients: training has a loss of its own.
#pragma once

#include "sem/types.hpp"

namespace sem {

template <class Real>
struct BornStep {
  static constexpr const char* kName = "born_step";

  std::int64_t batch = 0;
  std::int64_t vocab = 1;
  std::int64_t dim = 1;
  Real floor = 0;
  const Real* psi = nullptr;     // [batch, dim, 2]
  const Real* matrix = nullptr;  // W [vocab, dim, 2]
  const Real* bias = nullptr;    // [vocab]
  Real* out = nullptr;           // [batch, vocab]

  template <class Visitor>
  void visit(Visitor& field) {
    field("batch", batch);
    field("vocab", vocab);
    field("dim", dim);
    field("floor", floor);
    field("psi", psi, batch * dim * 2);
    field("matrix", matrix, vocab * dim * 2);
    field("bias", bias, vocab);
    field("out", out, batch * vocab);
  }
};

}  // namespace sem
