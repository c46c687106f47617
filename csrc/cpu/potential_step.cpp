#include "sem/potential_step.hpp"

#include "cpu/phase.hpp"
#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"

// Lanes run across the entries of one row, which stays in the first-level cache from its first pass to its last.
namespace sem::cpu::SEM_ISA {
namespace {

struct MeanIntensity {
  bool held;      // at its least value
  float inverse;  // 1 / m

  MeanIntensity(const float* psi, std::int64_t width) {
    BlockSum sum;
    for (std::int64_t i = 0; i < width; i += kLanes) {
      const Complex z = load_wave(psi, width, i);
      sum.add(real_product(z, z));
      sum.end_of_node(i / kLanes);
    }
    constexpr float kLeast = static_cast<float>(kLeastMeanIntensity);
    const float mean = horizontal_sum(sum.total()) / static_cast<float>(width);
    held = mean < kLeast;  // NaN is not held, and makes the row NaN
    inverse = 1.0f / (held ? kLeast : mean);
  }
};

void forward_row(std::int64_t width, const float* psi, const float* potential, const float* kerr, float* out) {
  const float inverse = MeanIntensity(psi, width).inverse;
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const Complex z = load_wave(psi, width, i);
    const vfloat intensity = real_product(z, z) * inverse;
    const Complex by = turn(load_real(potential, width, i) + load_real(kerr, width, i) * intensity);
    store_wave(out, width, i, {z.re * by.re - z.im * by.im, z.re * by.im + z.im * by.re});
  }
}

// What the first pass finds waits for the second in grad_psi and grad_potential.
void backward_row(std::int64_t width, const float* psi, const float* potential, const float* kerr, const float* grad,
                  float* grad_psi, float* grad_potential, float* grad_kerr) {
  if (all_zero(grad, 2 * width)) {
    std::memset(grad_psi, 0, static_cast<std::size_t>(2 * width) * sizeof(float));
    std::memset(grad_potential, 0, static_cast<std::size_t>(width) * sizeof(float));
    return;
  }
  const MeanIntensity mean(psi, width);
  BlockSum shared;
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const Complex z = load_wave(psi, width, i), g = load_wave(grad, width, i);
    const vfloat intensity = real_product(z, z) * mean.inverse, strength = load_real(kerr, width, i);
    const Complex by = turn(load_real(potential, width, i) + strength * intensity);
    const Complex back{by.re * g.re + by.im * g.im, by.re * g.im - by.im * g.re};
    const vfloat by_phase = z.re * back.im - z.im * back.re, share = by_phase * intensity;
    store_real(grad_potential, width, i, by_phase);
    store_wave(grad_psi, width, i, back);
    store(grad_kerr + i, load(grad_kerr + i) + share);
    shared.add_product(strength, share);
    shared.end_of_node(i / kLanes);
  }
  const float through_mean = mean.held ? 0.0f : horizontal_sum(shared.total()) / static_cast<float>(width);
  const float scale = 2.0f * mean.inverse;
  for (std::int64_t i = 0; i < width; i += kLanes) {
    const Complex z = load_wave(psi, width, i), back = load_wave(grad_psi, width, i);
    const vfloat by_intensity = load_real(grad_potential, width, i) * load_real(kerr, width, i);
    const vfloat along = (by_intensity - through_mean) * scale;
    store_wave(grad_psi, width, i, {back.re + along * z.re, back.im + along * z.im});
  }
}

}  // namespace

// Memory traffic: psi and the potential are read once, out written once.
void run(const PotentialStepForward<float>& args, Queue queue) {
  const Pieces chunks{args.rows};
  const std::int64_t width = args.width;
#pragma omp parallel for schedule(static) num_threads(team(queue, chunks.count()))
  for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk)
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row)
      forward_row(width, args.psi + row * 2 * width, args.potential + row * width, args.kerr,
                  args.out + row * 2 * width);
}

// Memory traffic: psi, the potential and grad_out are read once, grad_psi and grad_potential written once.
void run(const PotentialStepBackward<float>& args, Queue queue) {
  const Pieces chunks{args.rows};
  const std::int64_t width = args.width, stride = padded_to_lanes(width);
  const Scratch partials(static_cast<std::size_t>(chunks.count() * stride));
#pragma omp parallel for schedule(static) num_threads(team(queue, chunks.count()))
  for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
    float* const partial = partials.data() + chunk * stride;
    std::memset(partial, 0, static_cast<std::size_t>(stride) * sizeof(float));
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row)
      backward_row(width, args.psi + row * 2 * width, args.potential + row * width, args.kerr,
                   args.grad_out + row * 2 * width, args.grad_psi + row * 2 * width, args.grad_potential + row * width,
                   partial);
  }
  sum_pieces(partials.data(), chunks.count(), stride, width, args.grad_kerr);
}

}  // namespace sem::cpu::SEM_ISA
