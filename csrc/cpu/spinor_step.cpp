#include "sem/spinor_step.hpp"

#include <cmath>

#include "cpu/affine.hpp"
#include "cpu/scratch.hpp"

namespace sem::cpu::SEM_ISA {

void run(const ComplexRmsNormForward<float>& args, Queue queue);
void run(const GatedRotationForward<float>& args, Queue queue);
void run(const CausalConvForward<float>& args, Queue queue);
void run(const StateSpaceForward<float>& args, Queue queue);
void run(const WaveGateForward<float>& args, Queue queue);

void run(const SpinorStep<float>& args, Queue queue) {
  const std::int64_t wave = args.dim * 2, kept = args.num_taps - 1;
  const Scratch scratch(static_cast<std::size_t>(args.batch * (4 * wave + args.dim + 4 * args.groups)));
  float* const normed = scratch.data();
  float* const turned = args.num_blocks > 0 ? normed + args.batch * wave : normed;
  float* const gated = normed + 2 * args.batch * wave;
  float* const mixed = gated + args.batch * wave;
  float* const logits = mixed + args.batch * wave;
  float* const log_dt = logits + args.batch * args.dim;
  float* const m = log_dt + args.batch * 2 * args.groups;
  float* const p = m + args.batch * args.groups;

  run(args.norm(normed), queue);
  if (args.num_blocks > 0) {
    Affine{args.gate, normed, wave, args.dim, args.gate_bias}(args.batch, logits, queue);
    run(args.rotation(normed, logits, turned), queue);
  }
  run(args.convolution(turned, gated), queue);
  for (std::int64_t b = 0; b < args.batch && kept > 0; ++b) {
    const std::size_t bytes = static_cast<std::size_t>(wave) * sizeof(float);
    float* const after = args.history_after + b * kept * wave;
    std::memcpy(after, args.history + b * kept * wave + wave, static_cast<std::size_t>(kept - 1) * bytes);
    std::memcpy(after + (kept - 1) * wave, turned + b * wave, bytes);
  }
  Affine{args.time_steps, gated, wave, 2 * args.groups, args.time_bias}(args.batch, log_dt, queue);
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t k = 0; k < 2 * args.groups; ++k) {
      const float dt = std::exp(log_dt[b * 2 * args.groups + k]);
      const float held = dt < args.least_dt ? args.least_dt : dt > args.most_dt ? args.most_dt : dt;  // NaN stays NaN
      (k < args.groups ? m + b * args.groups + k : p + (b - 1) * args.groups + k)[0] = held;
    }
  run(args.space(gated, m, p, mixed), queue);
  if (args.out_gates > 0) {
    Affine{args.out_gate, normed, wave, args.dim, args.out_gate_bias}(args.batch, logits, queue);
    run(args.output_gate(mixed, logits), queue);
  }
  Affine{args.out_matrix, mixed, wave, wave, args.x, wave}(args.batch, args.out, queue);
}

}  // namespace sem::cpu::SEM_ISA
