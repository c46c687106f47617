#include "sem/complex_rms_norm.hpp"

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"

// Lanes run across the entries of one row, which stays in the first-level cache between its two passes.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr float kActive = static_cast<float>(kActivePower);
constexpr float kLeastMean = static_cast<float>(kLeastMeanPower);

// Sum of |z|^2 over a row, and how many entries are active.
struct RowPower {
  BlockSum power;
  vfloat active{};

  SEM_INLINE void add(Complex z, std::int64_t i) {
    const vfloat here = real_product(z, z);
    power.add(here);
    power.end_of_node(i / kLanes);
    active += select(here > kActive, broadcast(1.0f), vfloat{});
  }
};

struct RowScale {
  float scale, slope;

  RowScale(RowPower& sums, float eps) {
    const float active = horizontal_sum(sums.active), count = active < 1.0f ? 1.0f : active;
    const float mean = horizontal_sum(sums.power.total()) / count;
    const float rms = std::sqrt(mean < kLeastMean ? kLeastMean : mean);  // NaN stays NaN
    scale = 1.0f / (rms + eps);
    slope = mean < kLeastMean ? 0.0f : scale * scale / (count * rms);
  }
};

void forward_row(const ComplexRmsNormForward<float>& args, const float* z, float* out) {
  RowPower sums;
  for (std::int64_t i = 0; i < args.width; i += kLanes) sums.add(load_wave(z, args.width, i), i);
  const float scale = RowScale(sums, args.eps).scale;
  for (std::int64_t i = 0; i < args.width; i += kLanes) {
    const Complex entry = load_wave(z, args.width, i);
    const vfloat factor = load_real(args.gamma, args.width, i) * scale;
    store_wave(out, args.width, i, {entry.re * factor, entry.im * factor});
  }
}

void backward_row(const ComplexRmsNormBackward<float>& args, const float* z, const float* grad, float* grad_z,
                  float* grad_gamma) {
  if (all_zero(grad, 2 * args.width)) {
    std::memset(grad_z, 0, static_cast<std::size_t>(2 * args.width) * sizeof(float));
    return;
  }
  RowPower sums;
  BlockSum along_sum;
  for (std::int64_t i = 0; i < args.width; i += kLanes) {
    const Complex entry = load_wave(z, args.width, i), g = load_wave(grad, args.width, i);
    sums.add(entry, i);
    along_sum.add_product(load_real(args.gamma, args.width, i), real_product(entry, g));
    along_sum.end_of_node(i / kLanes);
  }
  const RowScale of(sums, args.eps);
  const float pull = of.slope * horizontal_sum(along_sum.total());
  for (std::int64_t i = 0; i < args.width; i += kLanes) {
    const Complex entry = load_wave(z, args.width, i), g = load_wave(grad, args.width, i);
    const vfloat factor = load_real(args.gamma, args.width, i) * of.scale;
    store(grad_gamma + i, load(grad_gamma + i) + of.scale * real_product(entry, g));
    store_wave(grad_z, args.width, i, {factor * g.re - pull * entry.re, factor * g.im - pull * entry.im});
  }
}

}  // namespace

// Memory traffic: z is read once, out written once.
void run(const ComplexRmsNormForward<float>& args, Queue queue) {
  const Pieces chunks{args.rows};
  const std::int64_t floats = 2 * args.width;
#pragma omp parallel for schedule(static) num_threads(team(queue, chunks.count()))
  for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk)
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row)
      forward_row(args, args.z + row * floats, args.out + row * floats);
}

// Memory traffic: z and grad_out are read once, grad_z written once.
void run(const ComplexRmsNormBackward<float>& args, Queue queue) {
  const Pieces chunks{args.rows};
  const std::int64_t floats = 2 * args.width, stride = padded_to_lanes(args.width);
  const Scratch partials(static_cast<std::size_t>(chunks.count() * stride));
#pragma omp parallel for schedule(static) num_threads(team(queue, chunks.count()))
  for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
    float* partial = partials.data() + chunk * stride;
    std::memset(partial, 0, static_cast<std::size_t>(stride) * sizeof(float));
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row)
      backward_row(args, args.z + row * floats, args.grad_out + row * floats, args.grad_z + row * floats, partial);
  }
  sum_pieces(partials.data(), chunks.count(), stride, args.width, args.grad_gamma);
}

}  // namespace sem::cpu::SEM_ISA
