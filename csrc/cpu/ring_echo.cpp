#include "sem/ring_echo.hpp"

#include <cstring>

#include "cpu/phase.hpp"
#include "cpu/ring_solve.hpp"
#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"

// Lanes run across rows, sixteen of which stay in the second-level cache from the first step to the last.
namespace sem::cpu::SEM_ISA {
namespace {

// The moves forward and back, U = 2 A^-1 - I.
class Ring {
 public:
  Ring(std::int64_t width, const float* edge_weight, float half_dt)
      : ahead_(
            width, [&](std::int64_t j) { return edge_weight[j]; }, half_dt),
        back_(width, [&](std::int64_t j) { return edge_weight[j]; }, -half_dt) {}

  // use(j, z, y): z = U x and y = A^-1 x at node j, for every node in order; x_j and work_j are not read again.
  template <class Use>
  SEM_INLINE void ahead(const float* x, float* work, Use use) const {
    move(ahead_, x, work, use);
  }
  template <class Use>
  SEM_INLINE void back(const float* x, float* work, Use use) const {
    move(back_, x, work, use);
  }

 private:
  template <class Use>
  static SEM_INLINE void move(const RingSolve& solve, const float* x, float* work, Use use) {
    solve.apply(x, work, [&](std::int64_t j, Complex y) SEM_INLINE_LAMBDA {
      const Complex before = wave_at(x, j);
      use(j, Complex{2.0f * y.re - before.re, 2.0f * y.im - before.im}, y);
    });
  }

  const RingSolve ahead_, back_;
};

SEM_INLINE Complex product(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
// conj(a) b
SEM_INLINE Complex adjoint_product(Complex a, Complex b) {
  return {a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re};
}

// The squared norm of every row; rows so large or small that it may not be taken are multiplied by `down`, a power of
// two, before. A row with NaN or Inf has NaN or Inf.
struct RowSize {
  BlockSum norm2;
  vfloat down = broadcast(1.0f), up = broadcast(1.0f);

  RowSize(float* psi, std::int64_t width) {
    measure(psi, width);
    const vfloat found = norm2.total();
    const vint outside = ~((found == 0.0f) | ((found > 0x1p-80f) & (found < 0x1p80f)));
    if (!any(outside)) return;
    vint largest{};
    for (std::int64_t n = 0; n < 2 * width; ++n) largest = vmax(as_int(vabs(load(psi + n * kLanes))), largest);
    const vint exponent = vmin(vmax(largest >> 23, broadcast_int(1)), broadcast_int(253));
    down = select(outside, as_float((254 - exponent) << 23), down);
    up = select(outside, as_float(exponent << 23), up);
    for (std::int64_t n = 0; n < 2 * width; ++n) store(psi + n * kLanes, load(psi + n * kLanes) * down);
    norm2 = BlockSum();
    measure(psi, width);
  }

  // 1 / m of the row as it is now, its mean held at its least value where the row of before was below it.
  vfloat inverse_mean(std::int64_t width, vint& held) {
    const vfloat mean = norm2.total() / static_cast<float>(width);
    const vfloat least = (static_cast<float>(kLeastMeanIntensity) * down) * down;
    held = mean < least;
    return 1.0f / select(held, least, mean);
  }

 private:
  void measure(const float* psi, std::int64_t width) {
    for (std::int64_t j = 0; j < width; ++j) {
      const Complex z = wave_at(psi, j);
      norm2.add_product(z.re, z.re);
      norm2.add_product(z.im, z.im);
      norm2.end_of_node(j);
    }
  }
};

void forward_tile(const Ring& ring, std::int64_t width, const float* kerr, const float* potential, float* psi,
                  float* work) {
  RowSize size(psi, width);
  vint held;
  const vfloat inverse = size.inverse_mean(width, held);
  ring.ahead(psi, work, [&](std::int64_t j, Complex u, Complex) SEM_INLINE_LAMBDA {
    const vfloat intensity = real_product(u, u) * inverse;
    put(psi, j, product(turn(load(potential + kLanes * j) + kerr[j] * intensity), u));
  });
  BlockSum norm2;
  ring.back(psi, work, [&](std::int64_t j, Complex out, Complex) SEM_INLINE_LAMBDA {
    put(psi, j, out);
    norm2.add_product(out.re, out.re);
    norm2.add_product(out.im, out.im);
    norm2.end_of_node(j);
  });
  // to the norm of before: sqrt(1 + d) - 1 = d / (1 + sqrt(1 + d)), which does not round off as the factor itself would
  const vfloat found = norm2.total();
  const vfloat d = select(found == 0.0f, vfloat{}, size.norm2.minus(norm2) / found);
  const vfloat grow = d / (1.0f + vsqrt(1.0f + d));
  for (std::int64_t n = 0; n < 2 * width; ++n) {
    const vfloat value = load(psi + n * kLanes);
    store(psi + n * kLanes, (value + value * grow) * size.up);
  }
}

// Tiles of one thread, and sums over the rows of a chunk: per node, a lane for every row of a tile.
struct Tiles {
  float *psi, *out, *grad, *work, *z, *potential, *by_kerr, *currents;

  static std::int64_t floats(std::int64_t width) { return 13 * width * kLanes; }

  Tiles(float* memory, std::int64_t width) {
    const std::int64_t real = width * kLanes, wave = 2 * real;
    psi = memory;
    out = psi + wave;
    grad = out + wave;
    work = grad + wave;
    z = work + wave;
    potential = z + wave;
    by_kerr = potential + real;
    currents = by_kerr + real;
  }
};

// Clears the rows without gradient, which contribute nothing to what rows share, whatever they hold.
void drop_unused_lanes(const float* grad, const Tiles& t, std::int64_t width) {
  const vint used = lanes_in_use(grad, 2 * width);
  if (!any(~used)) return;
  keep_lanes(used, t.psi, 2 * width);
  keep_lanes(used, t.out, 2 * width);
  keep_lanes(used, t.potential, width);
}

// Turns `grad` into the gradient to psi and `potential` into that to the potential, and adds to the sums.
void backward_tile(const Ring& ring, std::int64_t width, const float* kerr, const Tiles& t) {
  drop_unused_lanes(t.grad, t, width);
  RowSize size(t.psi, width);
  vint held;
  const vfloat inverse = size.inverse_mean(width, held);
  // u into work, y into psi
  ring.ahead(t.psi, t.work, [&](std::int64_t j, Complex u, Complex y) SEM_INLINE_LAMBDA {
    put(t.work, j, u);
    put(t.psi, j, y);
  });
  // z' into z, y' into out
  BlockSum shared;
  ring.ahead(t.grad, t.z, [&](std::int64_t j, Complex h, Complex z) SEM_INLINE_LAMBDA {
    const Complex u = wave_at(t.work, j), out = wave_at(t.out, j);
    const vfloat intensity = real_product(u, u) * inverse;
    const Complex by = turn(load(t.potential + kLanes * j) + kerr[j] * intensity), w = product(by, u);
    const vfloat by_phase = (w.re * h.im - w.im * h.re) * size.up, share = by_phase * intensity;
    put(t.z, j, z);
    put(t.out, j, {0.5f * (out.re * size.down + w.re), 0.5f * (out.im * size.down + w.im)});
    put(t.grad, j, adjoint_product(by, h));
    store(t.potential + kLanes * j, by_phase);
    store(t.by_kerr + kLanes * j, load(t.by_kerr + kLanes * j) + share);
    shared.add_product(broadcast(kerr[j]), share);
    shared.end_of_node(j);
  });
  const vfloat through_mean = select(held, vfloat{}, shared.total() / static_cast<float>(width));
  const vfloat scale = (2.0f * inverse) * size.down;
  for (std::int64_t j = 0; j < width; ++j) {
    const vfloat along = (load(t.potential + kLanes * j) * kerr[j] - through_mean) * scale;
    const Complex u = wave_at(t.work, j), back = wave_at(t.grad, j);
    put(t.grad, j, {back.re + along * u.re, back.im + along * u.im});
  }
  // z into work
  ring.back(t.grad, t.work, [&](std::int64_t j, Complex grad_psi, Complex z) SEM_INLINE_LAMBDA {
    put(t.grad, j, grad_psi);
    put(t.work, j, z);
  });
  for (std::int64_t j = 0; j < width; ++j) {
    const std::int64_t next = j + 1 == width ? 0 : j + 1;
    const auto flow = [&](const float* z, const float* y) SEM_INLINE_LAMBDA {
      const Complex z0 = wave_at(z, j), z1 = wave_at(z, next), y0 = wave_at(y, j), y1 = wave_at(y, next);
      return (z0.re - z1.re) * (y0.im - y1.im) - (z0.im - z1.im) * (y0.re - y1.re);
    };
    float* const at = t.currents + kLanes * j;
    store(at, load(at) + (flow(t.work, t.psi) - flow(t.z, t.out)) * size.up);
  }
}

}  // namespace

// Memory traffic: psi and the potential are read once, out written once.
void run(const RingEchoForward<float>& args, Queue queue) {
  const std::int64_t width = args.width, tiles = tile_count(args.rows), floats = 5 * width * kLanes;
  const Ring ring(width, args.edge_weight, *args.half_dt);
  const int threads = team(queue, tiles);
  const Scratch scratch(static_cast<std::size_t>(threads * floats));
#pragma omp parallel num_threads(threads)
  {
    float* const psi = scratch.data() + thread_index() * floats;
    float *const work = psi + 2 * width * kLanes, *const potential = work + 2 * width * kLanes;
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const int rows = rows_in_tile(args.rows, tile);
      load_tile(args.psi, 2 * width, tile, rows, psi);
      load_tile(args.potential, width, tile, rows, potential);
      forward_tile(ring, width, args.kerr, potential, psi, work);
      store_tile(args.out, 2 * width, tile, rows, psi);
    }
  }
}

// Memory traffic: the four arrays given are read once, the two gradients written once.
void run(const RingEchoBackward<float>& args, Queue queue) {
  static_assert(kRowChunk % kLanes == 0);
  const std::int64_t width = args.width, floats = Tiles::floats(width);
  const Ring ring(width, args.edge_weight, *args.half_dt);
  const Pieces chunks{tile_count(args.rows), kRowChunk / kLanes};
  const int threads = team(queue, chunks.count());
  const Scratch scratch(static_cast<std::size_t>(threads * floats));
  const Scratch partials(static_cast<std::size_t>(chunks.count() * 2 * width));
#pragma omp parallel num_threads(threads)
  {
    const Tiles t(scratch.data() + thread_index() * floats, width);
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
      std::memset(t.by_kerr, 0, static_cast<std::size_t>(2 * width * kLanes) * sizeof(float));
      for (std::int64_t tile = chunks.begin(chunk); tile < chunks.end(chunk); ++tile) {
        const int rows = rows_in_tile(args.rows, tile);
        load_tile(args.psi, 2 * width, tile, rows, t.psi);
        load_tile(args.potential, width, tile, rows, t.potential);
        load_tile(args.out, 2 * width, tile, rows, t.out);
        load_tile(args.grad_out, 2 * width, tile, rows, t.grad);
        backward_tile(ring, width, args.kerr, t);
        store_tile(args.grad_psi, 2 * width, tile, rows, t.grad);
        store_tile(args.grad_potential, width, tile, rows, t.potential);
      }
      float* const sums = partials.data() + chunk * 2 * width;
      for (std::int64_t n = 0; n < 2 * width; ++n) sums[n] = horizontal_sum(load(t.by_kerr + n * kLanes));
    }
  }
  sum_pieces(partials.data(), chunks.count(), 2 * width, width, args.grad_kerr);
  sum_pieces(partials.data() + width, chunks.count(), 2 * width, width, args.grad_edge_weight);
  const float a = *args.half_dt;
  double grad_half_dt = 0;
  for (std::int64_t j = 0; j < width; ++j) {
    const float current = args.grad_edge_weight[j];
    args.grad_edge_weight[j] = 2.0f * a * current;
    grad_half_dt += 2.0 * args.edge_weight[j] * current;
  }
  *args.grad_half_dt = static_cast<float>(grad_half_dt);
}

}  // namespace sem::cpu::SEM_ISA
