#include "sem/spinor_step.hpp"

#include <cmath>

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"

namespace sem::cpu::SEM_ISA {

void run(const ComplexRmsNormForward<float>& args, Queue queue);
void run(const GatedRotationForward<float>& args, Queue queue);
void run(const CausalConvForward<float>& args, Queue queue);
void run(const StateSpaceForward<float>& args, Queue queue);

namespace {

constexpr std::int64_t kOutputs = 4;  // dot products side by side
constexpr std::int64_t kPiece = 64;   // outputs that one thread takes at a time

// out[b, o] = add[o] + sum_i matrix[o, i] x[b, i]; `add` may be different for each b (add_stride), or null.
struct Affine {
  const float *matrix, *x, *add;
  std::int64_t inputs, outputs, add_stride;

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

  // Memory traffic: the matrix is read once for each b.
  void operator()(std::int64_t batch, float* out, Queue queue) const {
    const Pieces pieces{outputs, kPiece};
    const bool alone = batch * inputs * outputs < (1 << 19);  // less than a team of threads is worth
#pragma omp parallel for schedule(static) num_threads(alone ? 1 : team(queue, pieces.count()))
    for (std::int64_t piece = 0; piece < pieces.count(); ++piece)
      for (std::int64_t b = 0; b < batch; ++b) {
        std::int64_t o = pieces.begin(piece);
        for (; o + kOutputs <= pieces.end(piece); o += kOutputs) dots<kOutputs>(b, o, out);
        for (; o < pieces.end(piece); ++o) dots<1>(b, o, out);
      }
  }
};

}  // namespace

void run(const SpinorStep<float>& args, Queue queue) {
  const std::int64_t wave = args.dim() * 2, kept = args.num_taps - 1;
  const Scratch scratch(static_cast<std::size_t>(args.batch * (4 * wave + args.dim() + 4 * args.groups)));
  float* const normed = scratch.data();
  float* const turned = normed + args.batch * wave;
  float* const gated = turned + args.batch * wave;
  float* const mixed = gated + args.batch * wave;
  float* const logits = mixed + args.batch * wave;
  float* const log_dt = logits + args.batch * args.dim();
  float* const m = log_dt + args.batch * 2 * args.groups;
  float* const p = m + args.batch * args.groups;

  run(args.norm(normed), queue);
  Affine{args.gate, normed, args.gate_bias, wave, args.dim(), 0}(args.batch, logits, queue);
  run(args.rotation(normed, logits, turned), queue);
  run(args.convolution(turned, gated), queue);
  for (std::int64_t b = 0; b < args.batch && kept > 0; ++b) {
    const std::size_t bytes = static_cast<std::size_t>(wave) * sizeof(float);
    float* const after = args.history_after + b * kept * wave;
    std::memcpy(after, args.history + b * kept * wave + wave, static_cast<std::size_t>(kept - 1) * bytes);
    std::memcpy(after + (kept - 1) * wave, turned + b * wave, bytes);
  }
  Affine{args.time_steps, gated, args.time_bias, wave, 2 * args.groups, 0}(args.batch, log_dt, queue);
  for (std::int64_t b = 0; b < args.batch; ++b)
    for (std::int64_t k = 0; k < 2 * args.groups; ++k) {
      const float dt = std::exp(log_dt[b * 2 * args.groups + k]);
      const float held = dt < args.least_dt ? args.least_dt : dt > args.most_dt ? args.most_dt : dt;  // NaN stays NaN
      (k < args.groups ? m + b * args.groups + k : p + (b - 1) * args.groups + k)[0] = held;
    }
  run(args.space(gated, m, p, mixed), queue);
  Affine{args.out_matrix, mixed, args.x, wave, wave, wave}(args.batch, args.out, queue);
}

}  // namespace sem::cpu::SEM_ISA
