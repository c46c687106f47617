#include "sem/state_space.hpp"

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/small_products.hpp"
#include "cpu/tile.hpp"
#include "cpu/transition.hpp"

// Lanes are sixteen states of a group; a block of them takes kCheckpointSteps steps at a time through product, scan and
// product, with everything in cache: the drive and the states, `states / width` times the size of the wave, never go to
// memory. Threads share the (batch row, group) pairs in the forward, in the backward (slice of batch rows, group).
// Multiply-adds per step and group: 4 states width for each product, of which the forward has two and the backward
// five: it computes the drive again.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr std::int64_t kPiece = kCheckpointSteps;
static_assert(kPiece % kLanes == 0);

// Not the standard library's: what this file instantiates of those could be linked into another instruction set's.
SEM_INLINE void copy(const float* from, std::int64_t count, float* to) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = from[i];
}
SEM_INLINE void clear(float* array, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) array[i] = 0.0f;
}
SEM_INLINE std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

struct Sizes {
  std::int64_t blocks, columns, lanes, matrix;

  explicit Sizes(const StateSpaceShape& shape)
      : blocks(tile_count(shape.states)),
        columns(tile_count(2 * shape.width) * kLanes),
        lanes(blocks * shape.width * kLaneRow),
        matrix(blocks * kLanes * 2 * columns) {}
};

SEM_INLINE Complex read_states(const float* states, int count) {
  if (count == kLanes) return separate(states);
  float padded[kLaneRow] = {};
  copy(states, 2 * count, padded);
  return separate(padded);
}

SEM_INLINE void write_states(float* states, int count, Complex z) {
  if (count == kLanes) return merge(states, z);
  float padded[kLaneRow];
  merge(padded, z);
  copy(padded, 2 * count, states);
}

SEM_INLINE vfloat read_lanes(const float* values, int count) {
  if (count == kLanes) return load(values);
  float padded[kLanes] = {};
  copy(values, count, padded);
  return load(padded);
}

// into [states, width, 2] as lane rows [blocks][width], zeros where there is no state. `outward` is for a matrix that
// lies the other way, and gives its conjugate: out_of [width, states, 2] as the matrix of C^H.
void pack_lanes(const StateSpaceShape& shape, const float* matrix, bool outward, float* out) {
  const std::int64_t states = shape.states, width = shape.width;
  clear(out, tile_count(states) * width * kLaneRow);
  for (std::int64_t n = 0; n < states; ++n)
    for (std::int64_t k = 0; k < width; ++k) {
      const float* entry = matrix + 2 * (outward ? k * states + n : n * width + k);
      float* at = out + (n / kLanes * width + k) * kLaneRow + n % kLanes;
      at[0] = entry[0];
      at[kLanes] = outward ? -entry[1] : entry[1];
    }
}

// The real matrices [states][2][columns] that take real and imaginary parts of the states to the real blocks of
// out_of h; of conj(into)^T h for a matrix that lies the other way.
void pack_columns(const StateSpaceShape& shape, const float* matrix, bool outward, float* out) {
  const std::int64_t states = shape.states, width = shape.width, columns = Sizes(shape).columns;
  clear(out, states * 2 * columns);
  for (std::int64_t n = 0; n < states; ++n)
    for (std::int64_t k = 0; k < width; ++k) {
      const float* entry = matrix + 2 * (outward ? k * states + n : n * width + k);
      const float re = entry[0], im = outward ? entry[1] : -entry[1];
      float* at = out + n * 2 * columns + 2 * k;
      at[0] = re;
      at[1] = im;
      at[columns] = -im;
      at[columns + 1] = re;
    }
}

// One batch row of one group.
struct Part {
  const StateSpaceShape& shape;
  std::int64_t row, group;

  std::int64_t step(std::int64_t t) const { return (row * shape.steps + t) * shape.groups + group; }
  std::int64_t wave(std::int64_t t) const { return step(t) * shape.width * 2; }
  std::int64_t state(std::int64_t block) const {
    return ((row * shape.groups + group) * shape.states + block * kLanes) * 2;
  }
  std::int64_t checkpoint(std::int64_t piece, std::int64_t block) const {
    const std::int64_t at = (row * shape.checkpoints() + piece - 1) * shape.groups + group;
    return (at * shape.states + block * kLanes) * 2;
  }
  std::int64_t channel(std::int64_t block) const { return group * shape.states + block * kLanes; }
  int lanes(std::int64_t block) const { return rows_in_tile(shape.states, block); }
  std::int64_t steps_in(std::int64_t piece) const { return least(kPiece, shape.steps - piece * kPiece); }
};

// A piece of a wave as planes [width][2][kPiece] along time.
using Steps = Scalars<kPiece, true>;     // a row for each step
using Entries = Scalars<kPiece, false>;  // a row for each entry of the wave

// Fills the planes, times the step's factor if there is one; what lies behind the last step is not to be used.
void gather(const Part& part, const float* wave, const float* factor, std::int64_t begin, std::int64_t count,
            float* out) {
  const std::int64_t values = 2 * part.shape.width;
  for (std::int64_t first = 0; first < count; first += kLanes) {
    const int rows = rows_in_tile(count, first / kLanes);
    const float* from[kLanes];
    float scale[kLanes];
    for (int l = 0; l < rows; ++l) {
      from[l] = wave + part.wave(begin + first + l);
      scale[l] = factor == nullptr ? 1.0f : factor[part.step(begin + first + l)];
    }
    std::int64_t k = 0;
    for (; k + kLanes <= values; k += kLanes) {
      vfloat block[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) block[l] = l < rows ? scale[l] * load(from[l] + k) : vfloat{};
      transpose<kLanes>(block);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) store(out + (k + l) * kPiece + first, block[l]);
    }
    for (; k < values; ++k)
      for (int l = 0; l < rows; ++l) out[k * kPiece + first + l] = scale[l] * from[l][k];
  }
}

// Calls visit(t, A_t) for the steps of a piece in order.
template <class Args, class Visit>
SEM_INLINE void walk(const Args& args, const Part& part, std::int64_t begin, std::int64_t count,
                     const Transition& transition, Visit visit) {
  const std::int64_t stride = args.shape.groups;
  const float *m = args.dt_mag + part.step(begin), *p = args.dt_phase + part.step(begin);
  std::int64_t t = 0;
  for (; t + 2 <= count; t += 2) {
    Complex a[2];
    transition.two(m + t * stride, p + t * stride, stride, a);
    visit(t, a[0]);
    visit(t + 1, a[1]);
  }
  if (t < count) visit(t, transition(broadcast(m[t * stride]), broadcast(p[t * stride])));
}

struct ForwardScratch {
  float *driven, *y, *states, *last;

  static std::int64_t floats(const Sizes& sizes) {
    return 2 * kPiece * sizes.columns + kPiece * kLaneRow + sizes.blocks * kLaneRow;
  }
  ForwardScratch(const Sizes& sizes, float* memory)
      : driven(memory),
        y(driven + kPiece * sizes.columns),
        states(y + kPiece * sizes.columns),
        last(states + kPiece * kLaneRow) {}
};

// lanes: into; matrix: out_of.
void forward_part(const StateSpaceForward<float>& args, const Part& part, const float* lanes, const float* matrix,
                  const ForwardScratch& scratch) {
  const Sizes sizes(args.shape);
  const std::int64_t width = args.shape.width, columns = sizes.columns;
  for (std::int64_t block = 0; block < sizes.blocks; ++block)
    store_row(scratch.last + block * kLaneRow, read_states(args.initial_state + part.state(block), part.lanes(block)));
  for (std::int64_t piece = 0; piece < args.shape.pieces(); ++piece) {
    const std::int64_t begin = piece * kPiece, count = part.steps_in(piece);
    gather(part, args.x, args.dt_mag, begin, count, scratch.driven);
    clear(scratch.y, count * columns);
    for (std::int64_t block = 0; block < sizes.blocks; ++block) {
      combine<false>(count, Steps{scratch.driven}, lanes + block * width * kLaneRow, width, scratch.states, true);
      const Transition transition(read_lanes(args.decay + part.channel(block), part.lanes(block)),
                                  read_lanes(args.frequency + part.channel(block), part.lanes(block)));
      Complex h = load_row(scratch.last + block * kLaneRow);
      if (args.checkpoints != nullptr && piece > 0)
        write_states(args.checkpoints + part.checkpoint(piece, block), part.lanes(block), h);
      walk(args, part, begin, count, transition, [&](std::int64_t t, Complex a) SEM_INLINE_LAMBDA {
        const Complex d = load_row(scratch.states + t * kLaneRow);
        h = {a.re * h.re + (d.re - a.im * h.im), a.re * h.im + (d.im + a.im * h.re)};
        store_row(scratch.states + t * kLaneRow, h);
      });
      store_row(scratch.last + block * kLaneRow, h);
      contract(count, scratch.states, part.lanes(block), matrix + block * kLanes * 2 * columns, columns, scratch.y);
    }
    for (std::int64_t t = 0; t < count; ++t) copy(scratch.y + t * columns, 2 * width, args.y + part.wave(begin + t));
  }
  for (std::int64_t block = 0; block < sizes.blocks; ++block)
    write_states(args.final_state + part.state(block), part.lanes(block), load_row(scratch.last + block * kLaneRow));
}

// Sums over batch rows go slice by slice, cut by the size of the batch alone.
struct Slices {
  static constexpr std::int64_t kMost = 16;
  std::int64_t rows, count;

  explicit Slices(std::int64_t batch) : rows(batch > kMost ? (batch + kMost - 1) / kMost : 1) {
    count = (batch + rows - 1) / rows;
  }
};

// What a (slice, group) adds up: the gradients to into, conjugated, and to out_of as lane rows [blocks][width], and
// minus those to decay and frequency, [blocks][2][16].
struct Sums {
  float *into, *out_of, *rates;

  static std::int64_t floats(const Sizes& sizes) { return 2 * sizes.lanes + sizes.blocks * kLaneRow; }
  Sums(const Sizes& sizes, float* memory) : into(memory), out_of(into + sizes.lanes), rates(out_of + sizes.lanes) {}
};

struct BackwardScratch {
  float *driven, *grad_y, *back, *states, *transitions, *adjoint, *to_mag, *to_phase, *carried;

  static std::int64_t floats(const Sizes& sizes) {
    return 3 * kPiece * sizes.columns + (3 * kPiece + 1 + sizes.blocks) * kLaneRow + 2 * kPiece * kLanes;
  }
  BackwardScratch(const Sizes& sizes, float* memory)
      : driven(memory),
        grad_y(driven + kPiece * sizes.columns),
        back(grad_y + kPiece * sizes.columns),
        states(back + kPiece * sizes.columns),
        transitions(states + (kPiece + 1) * kLaneRow),
        adjoint(transitions + kPiece * kLaneRow),
        to_mag(adjoint + kPiece * kLaneRow),
        to_phase(to_mag + kPiece * kLanes),
        carried(to_phase + kPiece * kLanes) {}
};

// Forwards again from the state before the piece: keeps A_t, and h_t in the row behind that of h_{t-1}.
SEM_INLINE void advance(const StateSpaceBackward<float>& args, const Part& part, std::int64_t begin, std::int64_t count,
                        const Transition& transition, const BackwardScratch& scratch) {
  Complex h = load_row(scratch.states);
  walk(args, part, begin, count, transition, [&](std::int64_t t, Complex a) SEM_INLINE_LAMBDA {
    const Complex d = load_row(scratch.states + (t + 1) * kLaneRow);
    h = {a.re * h.re + (d.re - a.im * h.im), a.re * h.im + (d.im + a.im * h.re)};
    store_row(scratch.transitions + t * kLaneRow, a);
    store_row(scratch.states + (t + 1) * kLaneRow, h);
  });
}

// Backwards in time: the gradients to h become the adjoint states. Lanes without a state hold zeros, or NaN where the
// whole group is not finite.
SEM_INLINE void retreat(const StateSpaceBackward<float>& args, const Part& part, std::int64_t block, std::int64_t begin,
                        std::int64_t count, vfloat decay, vfloat frequency, const BackwardScratch& scratch,
                        float* rates) {
  Complex carried = load_row(scratch.carried + block * kLaneRow);
  vfloat decay_sum{}, frequency_sum{};
  for (std::int64_t t = count - 1; t >= 0; --t) {
    const std::int64_t step = part.step(begin + t);
    const Complex a = load_row(scratch.transitions + t * kLaneRow), before = load_row(scratch.states + t * kLaneRow);
    const Complex g = load_row(scratch.adjoint + t * kLaneRow);
    const Complex l{g.re + carried.re, g.im + carried.im};
    const Complex moved{a.re * before.re - a.im * before.im, a.re * before.im + a.im * before.re};
    const vfloat w_re = l.re * moved.re + l.im * moved.im;
    const vfloat w_im = l.re * moved.im - l.im * moved.re;
    store_row(scratch.adjoint + t * kLaneRow, l);
    float *to_mag = scratch.to_mag + t * kLanes, *to_phase = scratch.to_phase + t * kLanes;
    store(to_mag, load(to_mag) - decay * w_re);
    store(to_phase, load(to_phase) - frequency * w_im);
    decay_sum += args.dt_mag[step] * w_re;
    frequency_sum += args.dt_phase[step] * w_im;
    carried = {a.re * l.re + a.im * l.im, a.re * l.im - a.im * l.re};
  }
  store_row(scratch.carried + block * kLaneRow, carried);
  const Complex sums = load_row(rates);
  store_row(rates, {sums.re + decay_sum, sums.im + frequency_sum});
}

// rows [kPiece][16]: the sum of each row's lanes in order, to every groups-th element of grad.
void sum_lanes(const float* rows, std::int64_t count, std::int64_t groups, float* grad) {
  for (std::int64_t begin = 0; begin < count; begin += kLanes) {
    vfloat lanes[kLanes];
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) lanes[l] = load(rows + (begin + l) * kLanes);
    transpose<kLanes>(lanes);
    vfloat sum = lanes[0];
    for (int l = 1; l < kLanes; ++l) sum += lanes[l];
    for (int l = 0; l < rows_in_tile(count, begin / kLanes); ++l) grad[(begin + l) * groups] = sum[l];
  }
}

// Steps without gradient contribute nothing to what rows share, whatever they hold (a masked row may be NaN).
bool has_gradient(const StateSpaceBackward<float>& args, const Part& part, std::int64_t begin, std::int64_t count) {
  for (std::int64_t t = begin; t < begin + count; ++t)
    if (!all_zero(args.grad_y + part.wave(t), 2 * args.shape.width)) return true;
  return false;
}

struct BackwardWeights {
  const float *into_lanes, *out_of_lanes, *into_matrix;
};

void backward_part(const StateSpaceBackward<float>& args, const Part& part, const BackwardWeights& weights,
                   const Sums& sums, const BackwardScratch& scratch) {
  const Sizes sizes(args.shape);
  const std::int64_t width = args.shape.width, columns = sizes.columns;
  for (std::int64_t block = 0; block < sizes.blocks; ++block)
    store_row(scratch.carried + block * kLaneRow,
              read_states(args.grad_final_state + part.state(block), part.lanes(block)));
  for (std::int64_t piece = args.shape.pieces() - 1; piece >= 0; --piece) {
    const std::int64_t begin = piece * kPiece, count = part.steps_in(piece);
    gather(part, args.x, args.dt_mag, begin, count, scratch.driven);
    gather(part, args.grad_y, nullptr, begin, count, scratch.grad_y);
    if (!has_gradient(args, part, begin, count) && all_zero(scratch.carried, sizes.blocks * kLaneRow)) {
      for (std::int64_t t = 0; t < count; ++t) {
        clear(args.grad_x + part.wave(begin + t), 2 * width);
        args.grad_dt_mag[part.step(begin + t)] = args.grad_dt_phase[part.step(begin + t)] = 0;
      }
      continue;
    }
    clear(scratch.back, count * columns);
    clear(scratch.to_mag, 2 * kPiece * kLanes);
    for (std::int64_t block = 0; block < sizes.blocks; ++block) {
      const int lanes = part.lanes(block);
      const std::int64_t first = block * width * kLaneRow;
      const vfloat decay = read_lanes(args.decay + part.channel(block), lanes);
      const vfloat frequency = read_lanes(args.frequency + part.channel(block), lanes);
      const float* before =
          piece > 0 ? args.checkpoints + part.checkpoint(piece, block) : args.initial_state + part.state(block);
      store_row(scratch.states, read_states(before, lanes));
      float* states = scratch.states + kLaneRow;
      combine<false>(count, Steps{scratch.driven}, weights.into_lanes + first, width, states, true);
      advance(args, part, begin, count, {decay, frequency}, scratch);
      combine<false>(count, Steps{scratch.grad_y}, weights.out_of_lanes + first, width, scratch.adjoint, true);
      retreat(args, part, block, begin, count, decay, frequency, scratch, sums.rates + block * kLaneRow);
      combine<true>(width, Entries{scratch.grad_y}, states, count, sums.out_of + first, false);
      combine<true>(width, Entries{scratch.driven}, scratch.adjoint, count, sums.into + first, false);
      contract(count, scratch.adjoint, lanes, weights.into_matrix + block * kLanes * 2 * columns, columns,
               scratch.back);
    }
    for (std::int64_t t = 0; t < count; ++t) {
      const float *x = args.x + part.wave(begin + t), *back = scratch.back + t * columns;
      float* grad_x = args.grad_x + part.wave(begin + t);
      const float m = args.dt_mag[part.step(begin + t)];
      vfloat along = load(scratch.to_mag + t * kLanes);
      std::int64_t k = 0;
      for (; k + kLanes <= 2 * width; k += kLanes) {
        along += load(x + k) * load(back + k);
        store(grad_x + k, m * load(back + k));
      }
      store(scratch.to_mag + t * kLanes, along);
      for (std::int64_t lane = 0; k < 2 * width; ++k, ++lane) {
        scratch.to_mag[t * kLanes + lane] += x[k] * back[k];
        grad_x[k] = m * back[k];
      }
    }
    sum_lanes(scratch.to_mag, count, args.shape.groups, args.grad_dt_mag + part.step(begin));
    sum_lanes(scratch.to_phase, count, args.shape.groups, args.grad_dt_phase + part.step(begin));
  }
  for (std::int64_t block = 0; block < sizes.blocks; ++block)
    write_states(args.grad_initial_state + part.state(block), part.lanes(block),
                 load_row(scratch.carried + block * kLaneRow));
}

// Adds the slices in order; the result is in the sums of the first.
void add_slices(const Sizes& sizes, std::int64_t groups, std::int64_t slices, float* memory) {
  const std::int64_t floats = Sums::floats(sizes);
  for (std::int64_t at = 0; at < floats; at += kLanes) {
    vfloat sum{};
    for (std::int64_t slice = 0; slice < slices; ++slice) sum += load(memory + slice * groups * floats + at);
    store(memory + at, sum);
  }
}

void write_sums(const StateSpaceBackward<float>& args, std::int64_t group, const Sums& sums) {
  const std::int64_t states = args.shape.states, width = args.shape.width;
  for (std::int64_t n = 0; n < states; ++n) {
    const std::int64_t channel = group * states + n, lane = n % kLanes;
    const float* rates = sums.rates + n / kLanes * kLaneRow + lane;
    args.grad_decay[channel] = -rates[0];
    args.grad_frequency[channel] = -rates[kLanes];
    for (std::int64_t k = 0; k < width; ++k) {
      const std::int64_t at = (n / kLanes * width + k) * kLaneRow + lane;
      float* into = args.grad_into + 2 * (channel * width + k);
      float* out_of = args.grad_out_of + 2 * ((group * width + k) * states + n);
      into[0] = sums.into[at];
      into[1] = -sums.into[at + kLanes];
      out_of[0] = sums.out_of[at];
      out_of[1] = sums.out_of[at + kLanes];
    }
  }
}

}  // namespace

void run(const StateSpaceForward<float>& args, Queue queue) {
  const StateSpaceShape& shape = args.shape;
  const Sizes sizes(shape);
  const std::int64_t weights = sizes.lanes + sizes.matrix, own = ForwardScratch::floats(sizes);
  const std::int64_t matrix = shape.states * shape.width * 2;
  const Scratch scratch(static_cast<std::size_t>(shape.groups * weights + queue.threads * own));
#pragma omp parallel num_threads(queue.threads)
  {
#pragma omp for schedule(static)
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      pack_lanes(shape, args.into + g * matrix, false, scratch.data() + g * weights);
      pack_columns(shape, args.out_of + g * matrix, true, scratch.data() + g * weights + sizes.lanes);
    }
    const ForwardScratch mine(sizes, scratch.data() + shape.groups * weights + thread_index() * own);
#pragma omp for schedule(static)
    for (std::int64_t index = 0; index < shape.batch * shape.groups; ++index) {
      const float* packed = scratch.data() + index % shape.groups * weights;
      forward_part(args, {shape, index / shape.groups, index % shape.groups}, packed, packed + sizes.lanes, mine);
    }
  }
}

void run(const StateSpaceBackward<float>& args, Queue queue) {
  const StateSpaceShape& shape = args.shape;
  const Sizes sizes(shape);
  const Slices slices(shape.batch);
  const std::int64_t weights = 2 * sizes.lanes + sizes.matrix, own = BackwardScratch::floats(sizes);
  const std::int64_t matrix = shape.states * shape.width * 2, sums = Sums::floats(sizes);
  const std::int64_t kept = (slices.count > 0 ? slices.count : 1) * shape.groups;
  const Scratch scratch(static_cast<std::size_t>(shape.groups * weights + kept * sums + queue.threads * own));
  float *partial = scratch.data() + shape.groups * weights, *private_memory = partial + kept * sums;
#pragma omp parallel num_threads(queue.threads)
  {
#pragma omp for schedule(static)
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      float* packed = scratch.data() + g * weights;
      pack_lanes(shape, args.into + g * matrix, false, packed);
      pack_lanes(shape, args.out_of + g * matrix, true, packed + sizes.lanes);
      pack_columns(shape, args.into + g * matrix, false, packed + 2 * sizes.lanes);
    }
    const BackwardScratch mine(sizes, private_memory + thread_index() * own);
#pragma omp for schedule(static)
    for (std::int64_t index = 0; index < slices.count * shape.groups; ++index) {
      const std::int64_t slice = index / shape.groups, group = index % shape.groups;
      const float* packed = scratch.data() + group * weights;
      clear(partial + index * sums, sums);
      const std::int64_t end = least((slice + 1) * slices.rows, shape.batch);
      for (std::int64_t row = slice * slices.rows; row < end; ++row)
        backward_part(args, {shape, row, group}, {packed, packed + sizes.lanes, packed + 2 * sizes.lanes},
                      {sizes, partial + index * sums}, mine);
    }
#pragma omp for schedule(static)
    for (std::int64_t g = 0; g < shape.groups; ++g) {
      add_slices(sizes, shape.groups, slices.count, partial + g * sums);
      write_sums(args, g, {sizes, partial + g * sums});
    }
  }
}

}  // namespace sem::cpu::SEM_ISA
