#include "sem/wave_gate.hpp"

#include "cpu/rows.hpp"
#include "cpu/vector_math.hpp"

// No entry knows of another, so rows are taken as one array: lanes run across its entries.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr std::int64_t kEntries = 4096;  // that a thread takes at a time

// silu(l) = logit open. Below -80 it is less than 2e-33, and l is taken as -80: sigmoid(l) would be denormal soon, and
// times a large l far from zero.
struct Gate {
  vfloat logit, open;
};

SEM_INLINE Gate gate(const float* logits, std::int64_t count, std::int64_t i) {
  const vfloat logit = vmax(broadcast(-80.0f), load_real(logits, count, i));  // NaN stays NaN in this order
  return {logit, 1.0f / (1.0f + vexp(-logit))};
}

}  // namespace

// Memory traffic: psi and the logits are read once, out written once.
void run(const WaveGateForward<float>& args, Queue queue) {
  const std::int64_t count = args.rows * args.width;
  const Pieces pieces{count, kEntries};
  const float *const psi = args.psi, *const logits = args.logits;
  float* const out = args.out;
#pragma omp parallel for schedule(static) num_threads(team(queue, pieces.count()))
  for (std::int64_t piece = 0; piece < pieces.count(); ++piece)
    for (std::int64_t i = pieces.begin(piece); i < pieces.end(piece); i += kLanes) {
      const Gate of = gate(logits, count, i);
      const vfloat silu = of.logit * of.open;
      const Complex z = load_wave(psi, count, i);
      store_wave(out, count, i, {silu * z.re, silu * z.im});
    }
}

// Memory traffic: psi, the logits and grad_out are read once, grad_psi and grad_logits written once.
void run(const WaveGateBackward<float>& args, Queue queue) {
  const std::int64_t count = args.rows * args.width;
  const Pieces pieces{count, kEntries};
  const float *const psi = args.psi, *const logits = args.logits, *const grad_out = args.grad_out;
  float *const grad_psi = args.grad_psi, *const grad_logits = args.grad_logits;
#pragma omp parallel for schedule(static) num_threads(team(queue, pieces.count()))
  for (std::int64_t piece = 0; piece < pieces.count(); ++piece)
    for (std::int64_t i = pieces.begin(piece); i < pieces.end(piece); i += kLanes) {
      const Gate of = gate(logits, count, i);
      const vfloat silu = of.logit * of.open;
      const vfloat slope = of.open * (1.0f + of.logit * (1.0f - of.open));
      const Complex z = load_wave(psi, count, i), grad = load_wave(grad_out, count, i);
      // an entry without gradient has none to pass on, whatever it holds
      const vint used = (grad.re != 0.0f) | (grad.im != 0.0f);
      store_wave(grad_psi, count, i, {select(used, silu * grad.re, vfloat{}), select(used, silu * grad.im, vfloat{})});
      store_real(grad_logits, count, i, select(used, slope * real_product(z, grad), vfloat{}));
    }
}

}  // namespace sem::cpu::SEM_ISA
