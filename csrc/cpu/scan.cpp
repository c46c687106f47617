#include "sem/scan.hpp"

#include "cpu/channel_block.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "cpu/transition.hpp"

// Lanes are sixteen neighbouring channels and the recurrence runs along time in registers, one step after the other, so
// a sequence cut in two with the state handed over gives the bits of the whole. Threads share the (batch row, span of
// channel blocks) pairs; a span takes kLanes steps of one block, then of the next, so that a memory page brought in for
// one block serves its neighbours. That is all the parallelism there is: batch * channels / 16 ways.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr int kSpan = 8;

struct Span {
  std::int64_t row, first_block, blocks;
};

// How the work is cut changes no bit of the result, so it may depend on the number of threads.
class Spans {
 public:
  Spans(const ScanShape& shape, int threads) : blocks_(tile_count(shape.channels)) {
    const std::int64_t fair = shape.batch * blocks_ / (4 * threads);
    width_ = fair < 1 ? 1 : fair > kSpan ? kSpan : fair;
    per_row_ = (blocks_ + width_ - 1) / width_;
    count_ = shape.batch * per_row_;
  }
  std::int64_t count() const { return count_; }
  Span operator[](std::int64_t index) const {
    const std::int64_t first = index % per_row_ * width_;
    return {index / per_row_, first, blocks_ - first < width_ ? blocks_ - first : width_};
  }

 private:
  std::int64_t blocks_, width_, per_row_, count_;
};

struct ForwardBlock {
  ChannelBlock channels;
  Transition transition;
  Complex h;
};

// Memory traffic: x is read once and the states are written once; A never leaves the registers.
void forward_span(const ScanForward<float>& args, Span span) {
  const auto [batch, steps, width, groups] = args.shape;
  ForwardBlock blocks[kSpan];
  for (std::int64_t k = 0; k < span.blocks; ++k) {
    ForwardBlock& block = blocks[k];
    block.channels = ChannelBlock(args.shape, span.first_block + k);
    block.transition = {block.channels.load_real(args.decay), block.channels.load_real(args.frequency)};
    block.h = block.channels.load_complex(args.initial_state + span.row * width * 2);
  }
  for (std::int64_t begin = 0; begin < steps; begin += kLanes) {
    const std::int64_t end = begin + kLanes < steps ? begin + kLanes : steps;
    for (std::int64_t k = 0; k < span.blocks; ++k) {
      const ChannelBlock channels = blocks[k].channels;
      const Transition transition = blocks[k].transition;
      Complex h = blocks[k].h;
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t step = span.row * steps + t;
        const vfloat m = channels.spread(args.dt_mag + step * groups);
        const vfloat p = channels.spread(args.dt_phase + step * groups);
        const Complex a = transition(m, p);
        channels.prefetch(args.x + (step + kLanes) * width * 2);
        const Complex x = channels.load_complex(args.x + step * width * 2);
        h = {a.re * h.re + (m * x.re - a.im * h.im), a.re * h.im + (m * x.im + a.im * h.re)};
        channels.store_complex(args.states + step * width * 2, h);
      }
      blocks[k].h = h;
    }
  }
  for (std::int64_t k = 0; k < span.blocks; ++k)
    blocks[k].channels.store_complex(args.final_state + span.row * width * 2, blocks[k].h);
}

// Where the backward leaves sums that cross blocks or batch rows. A block holds part of one or several groups; (block,
// group) has the slot block + group, which no other pair of neighbours in channel order shares.
struct Partials {
  std::int64_t slots, padded_steps, padded_channels;
  float *dt_mag, *dt_phase;  // [batch, slots, padded_steps]
  float *decay, *frequency;  // [batch, padded_channels]

  explicit Partials(const ScanShape& shape)
      : slots(tile_count(shape.channels) + shape.groups),
        padded_steps(tile_count(shape.steps) * kLanes),
        padded_channels(tile_count(shape.channels) * kLanes) {}
  std::int64_t floats(std::int64_t batch) const { return 2 * batch * (slots * padded_steps + padded_channels); }
  void place(float* memory, std::int64_t batch) {
    dt_mag = memory;
    dt_phase = dt_mag + batch * slots * padded_steps;
    decay = dt_phase + batch * slots * padded_steps;
    frequency = decay + batch * padded_channels;
  }
};

// rows[t] holds sixteen channels of step t: adds the channels of each group, in order, for sixteen steps at once.
SEM_INLINE void sum_groups(vfloat (&rows)[kLanes], const ChannelBlock& channels, std::int64_t padded_steps,
                           float* out) {
  transpose<kLanes>(rows);
  for (int s = 0; s < channels.groups(); ++s) {
    vfloat sum = rows[channels.start(s)];
    for (int lane = channels.start(s) + 1; lane < channels.start(s + 1); ++lane) sum += rows[lane];
    store(out + channels.slot(s) * padded_steps, sum);
  }
}

struct BackwardBlock {
  ChannelBlock channels;
  Transition transition;
  vfloat decay, frequency;
  Complex carried;  // conj(A_{t+1}) l_{t+1}
  BlockSum decay_sum, frequency_sum;
};

// Steps without gradient contribute nothing to what rows share, whatever they hold (a masked row may be NaN).
SEM_INLINE bool has_gradient(const ScanBackward<float>& args, const ChannelBlock& channels, std::int64_t row,
                             std::int64_t begin, std::int64_t end, Complex carried) {
  vint other = (carried.re != 0.0f) | (carried.im != 0.0f);
  for (std::int64_t t = begin; t < end; ++t) {
    const Complex g = channels.load_complex(args.grad_states + (row * args.shape.steps + t) * args.shape.channels * 2);
    other |= (g.re != 0.0f) | (g.im != 0.0f);
  }
  return any(other);
}
void clear_gradient(const ScanBackward<float>& args, const ChannelBlock& channels, std::int64_t row, std::int64_t begin,
                    std::int64_t end) {
  for (std::int64_t t = begin; t < end; ++t)
    channels.store_complex(args.grad_x + (row * args.shape.steps + t) * args.shape.channels * 2, Complex{});
}

// Memory traffic: x, the states and their gradient are read once and the gradient to x is written once.
void backward_span(const ScanBackward<float>& args, const Partials& partials, Span span) {
  const auto [batch, steps, width, groups] = args.shape;
  const float* initial = args.initial_state + span.row * width * 2;
  BackwardBlock blocks[kSpan];
  for (std::int64_t k = 0; k < span.blocks; ++k) {
    BackwardBlock& block = blocks[k];
    block.channels = ChannelBlock(args.shape, span.first_block + k);
    block.decay = block.channels.load_real(args.decay);
    block.frequency = block.channels.load_real(args.frequency);
    block.transition = {block.decay, block.frequency};
    block.carried = block.channels.load_complex(args.grad_final_state + span.row * width * 2);
  }
  for (std::int64_t begin = partials.padded_steps - kLanes; begin >= 0; begin -= kLanes) {
    const std::int64_t end = begin + kLanes < steps ? begin + kLanes : steps;
    for (std::int64_t k = 0; k < span.blocks; ++k) {
      BackwardBlock& block = blocks[k];
      const ChannelBlock channels = block.channels;
      const vfloat decay = block.decay, frequency = block.frequency;
      const Transition transition = block.transition;
      Complex carried = block.carried;
      BlockSum decay_sum = block.decay_sum, frequency_sum = block.frequency_sum;
      vfloat to_mag[kLanes]{}, to_phase[kLanes]{};
      const bool used = has_gradient(args, channels, span.row, begin, end, carried);
      if (!used) clear_gradient(args, channels, span.row, begin, end);
      for (std::int64_t t = end - 1; used && t >= begin; --t) {
        const std::int64_t step = span.row * steps + t;
        const vfloat m = channels.spread(args.dt_mag + step * groups);
        const vfloat p = channels.spread(args.dt_phase + step * groups);
        const Complex a = transition(m, p);
        channels.prefetch(args.x + (step - kLanes) * width * 2);
        channels.prefetch(args.grad_states + (step - kLanes) * width * 2);
        channels.prefetch(args.states + (step - kLanes - 1) * width * 2);
        const Complex x = channels.load_complex(args.x + step * width * 2);
        const Complex g = channels.load_complex(args.grad_states + step * width * 2);
        const Complex before = channels.load_complex(t > 0 ? args.states + (step - 1) * width * 2 : initial);
        const Complex l{g.re + carried.re, g.im + carried.im};
        const Complex moved{a.re * before.re - a.im * before.im, a.re * before.im + a.im * before.re};
        const vfloat w_re = l.re * moved.re + l.im * moved.im;
        const vfloat w_im = l.re * moved.im - l.im * moved.re;
        channels.store_complex(args.grad_x + step * width * 2, {m * l.re, m * l.im});
        to_mag[t - begin] = (l.re * x.re + l.im * x.im) - decay * w_re;
        to_phase[t - begin] = -(frequency * w_im);
        decay_sum.add_product(m, w_re);
        frequency_sum.add_product(p, w_im);
        decay_sum.end_of_node(t);
        frequency_sum.end_of_node(t);
        carried = {a.re * l.re + a.im * l.im, a.re * l.im - a.im * l.re};
      }
      block.carried = carried;
      block.decay_sum = decay_sum;
      block.frequency_sum = frequency_sum;
      const std::int64_t at = span.row * partials.slots * partials.padded_steps + begin;
      sum_groups(to_mag, channels, partials.padded_steps, partials.dt_mag + at);
      sum_groups(to_phase, channels, partials.padded_steps, partials.dt_phase + at);
    }
  }
  for (std::int64_t k = 0; k < span.blocks; ++k) {
    BackwardBlock& block = blocks[k];
    block.channels.store_complex(args.grad_initial_state + span.row * width * 2, block.carried);
    const std::int64_t at = span.row * partials.padded_channels + (span.first_block + k) * kLanes;
    store(partials.decay + at, block.decay_sum.total());
    store(partials.frequency + at, block.frequency_sum.total());
  }
}

// Adds the parts of each group, block after block, for the sixteen steps of one tile of one batch row. `sums` has room
// for [groups][16].
void finish_dt(const ScanShape& shape, const Partials& partials, std::int64_t row, std::int64_t tile,
               const float* partial, float* sums, float* grad) {
  const std::int64_t per_group = shape.channels / shape.groups;
  for (std::int64_t g = 0; g < shape.groups; ++g) {
    const std::int64_t first = g * per_group / kLanes, last = ((g + 1) * per_group - 1) / kLanes;
    const float* part = partial + (row * partials.slots + first + g) * partials.padded_steps + tile * kLanes;
    vfloat sum = load(part);
    for (std::int64_t block = first; block < last; ++block) sum += load(part += partials.padded_steps);
    store(sums + g * kLanes, sum);
  }
  store_tile(grad + row * shape.steps * shape.groups, shape.groups, tile, rows_in_tile(shape.steps, tile), sums);
}

// Minus the sum over batch rows, in order.
void finish_channels(const ScanShape& shape, const Partials& partials, const float* partial, float* grad) {
  for (std::int64_t c = 0; c < shape.channels; ++c) {
    double sum = 0;
    for (std::int64_t row = 0; row < shape.batch; ++row) sum += partial[row * partials.padded_channels + c];
    grad[c] = static_cast<float>(-sum);
  }
}

}  // namespace

void run(const ScanForward<float>& args, Queue queue) {
  const Spans spans(args.shape, queue.threads);
#pragma omp parallel for schedule(static) num_threads(queue.threads)
  for (std::int64_t index = 0; index < spans.count(); ++index) forward_span(args, spans[index]);
}

void run(const ScanBackward<float>& args, Queue queue) {
  const ScanShape& shape = args.shape;
  const Spans spans(shape, queue.threads);
  Partials partials(shape);
  const std::int64_t tiles = tile_count(shape.steps), sums = shape.groups * kLanes;
  const Scratch scratch(static_cast<std::size_t>(partials.floats(shape.batch) + queue.threads * sums));
  partials.place(scratch.data(), shape.batch);
#pragma omp parallel num_threads(queue.threads)
  {
#pragma omp for schedule(static)
    for (std::int64_t index = 0; index < spans.count(); ++index) backward_span(args, partials, spans[index]);
    float* own = scratch.data() + partials.floats(shape.batch) + thread_index() * sums;
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < shape.batch * tiles; ++tile) {
      finish_dt(shape, partials, tile / tiles, tile % tiles, partials.dt_mag, own, args.grad_dt_mag);
      finish_dt(shape, partials, tile / tiles, tile % tiles, partials.dt_phase, own, args.grad_dt_phase);
    }
  }
  finish_channels(shape, partials, partials.decay, args.grad_decay);
  finish_channels(shape, partials, partials.frequency, args.grad_frequency);
}

}  // namespace sem::cpu::SEM_ISA
