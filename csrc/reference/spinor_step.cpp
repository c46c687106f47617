#include "sem/spinor_step.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/run.hpp"

namespace sem::reference {
namespace {

// out[b, o] = bias[o] + sum_i matrix[o, i] x[b, i]
template <class Real>
std::vector<Real> affine(const Real* matrix, const Real* bias, const std::vector<Real>& x, std::int64_t batch,
                         std::int64_t outputs) {
  const std::int64_t inputs = batch > 0 ? static_cast<std::int64_t>(x.size()) / batch : 0;
  std::vector<Real> out(static_cast<std::size_t>(batch * outputs));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t o = 0; o < outputs; ++o) {
      Real sum = bias[o];
      for (std::int64_t i = 0; i < inputs; ++i) sum += matrix[o * inputs + i] * x[b * inputs + i];
      out[b * outputs + o] = sum;
    }
  return out;
}

template <class Real>
void spinor_step(const SpinorStep<Real>& args) {
  const std::int64_t wave = args.dim * 2, kept = args.num_taps - 1;
  std::vector<Real> normed(static_cast<std::size_t>(args.batch * wave)), turned(normed), gated(normed), mixed(normed);
  run(args.norm(normed.data()));
  if (args.num_blocks > 0) {
    const std::vector<Real> logits = affine(args.gate, args.gate_bias, normed, args.batch, args.dim);
    run(args.rotation(normed.data(), logits.data(), turned.data()));
  } else {
    turned = normed;
  }
  run(args.convolution(turned.data(), gated.data()));
  const std::vector<Real> log_dt = affine(args.time_steps, args.time_bias, gated, args.batch, 2 * args.groups);
  std::vector<Real> m, p;
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t k = 0; k < 2 * args.groups; ++k) {
      const Real dt = std::exp(log_dt[b * 2 * args.groups + k]);
      (k < args.groups ? m : p).push_back(std::isnan(dt) ? dt : std::clamp(dt, args.least_dt, args.most_dt));
    }
  run(args.space(gated.data(), m.data(), p.data(), mixed.data()));
  if (args.out_gates > 0) {
    const std::vector<Real> logits = affine(args.out_gate, args.out_gate_bias, normed, args.batch, args.dim);
    run(args.output_gate(mixed.data(), logits.data()));
  }
  std::vector<Real> nothing(static_cast<std::size_t>(wave));
  const std::vector<Real> added = affine(args.out_matrix, nothing.data(), mixed, args.batch, wave);
  for (std::int64_t i = 0; i < args.batch * wave; ++i) args.out[i] = args.x[i] + added[i];
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t i = 0; i < kept * wave; ++i)
      args.history_after[b * kept * wave + i] =
          i < (kept - 1) * wave ? args.history[b * kept * wave + wave + i] : turned[b * wave + i - (kept - 1) * wave];
}

}  // namespace

SEM_REFERENCE(SpinorStep, spinor_step)

}  // namespace sem::reference
