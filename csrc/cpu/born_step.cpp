#include "sem/born_step.hpp"

#include <cmath>

#include "cpu/affine.hpp"
#include "cpu/scratch.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

// `parts` are the real and the imaginary parts of the amplitudes, [2][vocab].
void row(const BornStep<float>& args, const float* parts, float* out) {
  constexpr float kLeast = 0x1p-126f;
  const float *re = parts, *im = parts + args.vocab;
  double total = 0;
  for (std::int64_t v = 0; v < args.vocab; ++v) {
    out[v] = re[v] * re[v] + im[v] * im[v];
    total += out[v];
  }
  const float raise = args.floor * static_cast<float>(total / static_cast<double>(args.vocab));
  float most = -HUGE_VALF;
  for (std::int64_t v = 0; v < args.vocab; ++v) {
    const float raised = out[v] + raise;
    out[v] = std::log(raised < kLeast ? kLeast : raised) + args.bias[v];
    if (out[v] > most) most = out[v];
  }
  double sum = 0;
  for (std::int64_t v = 0; v < args.vocab; ++v) sum += std::exp(out[v] - most);
  const float shift = most + static_cast<float>(std::log(sum));  // NaN where any is
  for (std::int64_t v = 0; v < args.vocab; ++v) out[v] -= shift;
}

}  // namespace

// Memory traffic: the matrix is read once for each of batch, the rest once.
void run(const BornStep<float>& args, Queue queue) {
  const std::int64_t wave = 2 * args.dim;
  const Scratch scratch(static_cast<std::size_t>(args.batch * 2 * (wave + args.vocab)));
  float *const turned = scratch.data(), *const parts = turned + args.batch * 2 * wave;
  // Re(W psi) = W . conj(psi) and Im(W psi) = W . i conj(psi), as real vectors
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t d = 0; d < args.dim; ++d) {
      const float re = args.psi[b * wave + 2 * d], im = args.psi[b * wave + 2 * d + 1];
      float* const at = turned + 2 * b * wave + 2 * d;
      at[0] = re;
      at[1] = -im;
      at[wave] = im;
      at[wave + 1] = re;
    }
  Affine{args.matrix, turned, wave, args.vocab}(2 * args.batch, parts, queue);
#pragma omp parallel for schedule(static) num_threads(args.vocab < 4096 ? 1 : team(queue, args.batch))
  for (std::int64_t b = 0; b < args.batch; ++b) row(args, parts + 2 * b * args.vocab, args.out + b * args.vocab);
}

}  // namespace sem::cpu::SEM_ISA
