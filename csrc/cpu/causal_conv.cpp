#include "sem/causal_conv.hpp"

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/vector_math.hpp"

// Lanes are sixteen neighbouring channels. A piece of work is a span of positions of one batch row; it goes through its
// channels sixteen at a time, so that taps and sums stay in the first-level cache. What a position needs of others it
// computes again, so spans do not wait for each other.
namespace sem::cpu::SEM_ISA {
namespace {

// The positions in pieces, batch row by batch row.
struct Spans {
  std::int64_t batch;
  Pieces steps;

  std::int64_t count() const { return batch * steps.count(); }
  std::int64_t row(std::int64_t span) const { return span / steps.count(); }
  std::int64_t begin(std::int64_t span) const { return steps.begin(span % steps.count()); }
  std::int64_t end(std::int64_t span) const { return steps.end(span % steps.count()); }
};

// Position t of a batch row in the input, which begins with the history.
template <class Float>
SEM_INLINE Float* position(const ConvShape& shape, Float* x, Float* history, std::int64_t row, std::int64_t t) {
  const std::int64_t at = t < 0 ? (row + 1) * (shape.taps - 1) + t : row * shape.steps + t;
  return (t < 0 ? history : x) + at * shape.channels * 2;
}

SEM_INLINE void add_product(Complex& sum, Complex a, Complex b) {
  sum.re = (sum.re + a.re * b.re) - a.im * b.im;
  sum.im = (sum.im + a.re * b.im) + a.im * b.re;
}

SEM_INLINE void add_conj_product(Complex& sum, Complex conjugated, Complex b) {
  sum.re = (sum.re + conjugated.re * b.re) + conjugated.im * b.im;
  sum.im = (sum.im + conjugated.re * b.im) - conjugated.im * b.re;
}

// 1 - exp(-x) and exp(-x), each to its own last digits.
SEM_INLINE void gate(vfloat x, vfloat& passed, vfloat& kept) {
  vfloat power, rest;
  exp_parts(-x, power, rest);
  passed = (1.0f - power) - rest * power;
  kept = power + rest * power;
}

// What sixteen channels share along time. `taps` is memory for as many.
struct Channels {
  std::int64_t first, count;
  Complex bias;
  vfloat rate{};  // e^theta
  Complex* taps;

  template <class Args>
  SEM_INLINE Channels(const Args& args, std::int64_t first, Complex* taps)
      : first(first), count(args.shape.channels), bias(load_wave(args.bias, count, first)), taps(taps) {
    for (std::int64_t k = 0; k < args.shape.taps; ++k) taps[k] = load_wave(args.taps + k * count * 2, count, first);
    if (args.theta != nullptr) rate = vexp(load_real(args.theta, count, first));
  }

  template <class Args>
  SEM_INLINE Complex input(const Args& args, std::int64_t row, std::int64_t t) const {
    return load_wave(position(args.shape, args.x, args.history, row, t), count, first);
  }

  template <class Args>
  SEM_INLINE Complex convolved(const Args& args, std::int64_t row, std::int64_t t) const {
    Complex v = bias;
    for (std::int64_t k = 0; k < args.shape.taps; ++k)
      add_product(v, taps[k], input(args, row, t + k - args.shape.taps + 1));
    return v;
  }
};

void forward_channels(const CausalConvForward<float>& args, const Spans& spans, std::int64_t span, std::int64_t first,
                      Complex* memory) {
  const Channels channels(args, first, memory);
  const std::int64_t row = spans.row(span);
  for (std::int64_t t = spans.begin(span); t < spans.end(span); ++t) {
    Complex v = channels.convolved(args, row, t);
    if (args.theta != nullptr) {
      vfloat passed, kept;
      gate(real_product(v, v) * channels.rate, passed, kept);
      v = {v.re * passed, v.im * passed};
    }
    store_wave(args.out + (row * args.shape.steps + t) * channels.count * 2, channels.count, first, v);
  }
}

// Sums over the positions of a span: [taps + 1] complex planes (the taps, then the bias), then theta's.
struct Sums {
  std::int64_t channels;
  float* data;

  static std::int64_t floats(const ConvShape& shape) { return (2 * shape.taps + 3) * padded_to_lanes(shape.channels); }
  float* plane(std::int64_t index) const { return data + index * padded_to_lanes(channels); }
};

std::int64_t backward_vectors(const ConvShape& shape) {
  return 3 * shape.taps + (kRowChunk < shape.taps ? shape.taps : kRowChunk);
}

// The gradient to positions [from, to) of the input (the history's are negative), and the sums over those of them that
// have an output. `memory` holds backward_vectors().
void backward_channels(const CausalConvBackward<float>& args, std::int64_t row, std::int64_t from, std::int64_t to,
                       std::int64_t first, Complex* memory, const Sums* sums) {
  const auto [batch, steps, width, taps] = args.shape;
  const Channels channels(args, first, memory);
  Complex* const grad_taps = memory + taps;  // and the bias
  Complex* const grad_v = grad_taps + taps + 1;
  for (std::int64_t k = 0; k <= taps; ++k) grad_taps[k] = Complex{};
  vfloat grad_theta{};
  for (std::int64_t t = from; t < to + taps - 1; ++t) {
    Complex& g = grad_v[t - from] = Complex{};
    if (t < 0 || t >= steps) continue;
    g = load_wave(args.grad_out + (row * steps + t) * width * 2, width, first);
    // without gradient, a position contributes nothing, whatever it holds
    if (!any((g.re != 0.0f) | (g.im != 0.0f))) continue;
    vfloat to_theta{};
    if (args.theta != nullptr) {
      const Complex v = channels.convolved(args, row, t);
      const vfloat power = real_product(v, v);
      vfloat passed, kept;
      gate(power * channels.rate, passed, kept);
      const vfloat held = channels.rate * kept * real_product(v, g);
      to_theta = held * power;
      g = {passed * g.re + 2.0f * held * v.re, passed * g.im + 2.0f * held * v.im};
    }
    if (sums == nullptr || t >= to) continue;
    grad_theta += to_theta;
    for (std::int64_t k = 0; k < taps; ++k)
      add_conj_product(grad_taps[k], channels.input(args, row, t + k - taps + 1), g);
    grad_taps[taps].re += g.re;
    grad_taps[taps].im += g.im;
  }
  for (std::int64_t t = from; t < to; ++t) {
    Complex back{};
    for (std::int64_t k = 0; k < taps; ++k) add_conj_product(back, channels.taps[k], grad_v[t - from + taps - 1 - k]);
    store_wave(position(args.shape, args.grad_x, args.grad_history, row, t), width, first, back);
  }
  if (sums == nullptr) return;
  for (std::int64_t k = 0; k <= taps; ++k) merge(sums->plane(2 * k) + 2 * first, grad_taps[k]);
  store(sums->plane(2 * taps + 2) + first, grad_theta);
}

}  // namespace

// Memory traffic: x is read once, out written once.
void run(const CausalConvForward<float>& args, Queue queue) {
  const Spans spans{args.shape.batch, {args.shape.steps}};
  const int threads = team(queue, spans.count());
  const std::int64_t memory = args.shape.taps;
  const ScratchOf<Complex> scratch(static_cast<std::size_t>(threads * memory));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t span = 0; span < spans.count(); ++span)
    for (std::int64_t first = 0; first < args.shape.channels; first += kLanes)
      forward_channels(args, spans, span, first, scratch.data() + thread_index() * memory);
}

// Memory traffic: x and grad_out are read once, grad_x written once. The convolution is computed again, and at the
// seams of two spans twice.
void run(const CausalConvBackward<float>& args, Queue queue) {
  const std::int64_t batch = args.shape.batch, channels = args.shape.channels, taps = args.shape.taps;
  const Spans spans{batch, {args.shape.steps}};
  const int threads = team(queue, spans.count());
  const std::int64_t memory = backward_vectors(args.shape), floats = Sums::floats(args.shape);
  const ScratchOf<Complex> scratch(static_cast<std::size_t>(threads * memory));
  const Scratch partials(static_cast<std::size_t>((spans.count() + 1) * floats));
#pragma omp parallel num_threads(threads)
  {
    Complex* const own = scratch.data() + thread_index() * memory;
#pragma omp for schedule(static)
    for (std::int64_t span = 0; span < spans.count(); ++span) {
      const Sums sums{channels, partials.data() + span * floats};
      for (std::int64_t first = 0; first < channels; first += kLanes)
        backward_channels(args, spans.row(span), spans.begin(span), spans.end(span), first, own, &sums);
    }
#pragma omp for schedule(static)
    for (std::int64_t row = 0; row < batch; ++row)
      for (std::int64_t first = 0; first < channels; first += kLanes)
        backward_channels(args, row, 1 - taps, 0, first, own, nullptr);
  }
  const Sums total{channels, partials.data() + spans.count() * floats};
  sum_pieces(partials.data(), spans.count(), floats, floats, total.data);
  for (std::int64_t k = 0; k < taps; ++k)
    std::memcpy(args.grad_taps + 2 * k * channels, total.plane(2 * k),
                static_cast<std::size_t>(2 * channels) * sizeof(float));
  std::memcpy(args.grad_bias, total.plane(2 * taps), static_cast<std::size_t>(2 * channels) * sizeof(float));
  if (args.theta != nullptr)
    std::memcpy(args.grad_theta, total.plane(2 * taps + 2), static_cast<std::size_t>(channels) * sizeof(float));
}

}  // namespace sem::cpu::SEM_ISA
