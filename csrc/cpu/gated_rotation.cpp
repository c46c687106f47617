#include "sem/gated_rotation.hpp"

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "cpu/vector_math.hpp"

// A block of `size` complex entries is one of 2 size floats, on which U - I is a real matrix. Lanes run across the
// matrix's rows, so that a product is one broadcast and one multiply-add per column; several rows of x share the load
// of a column. A handful of rows at a time keeps what lies between the product and the gate in cache.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr int kAtOnce = kRegisterLanes == 16 ? 8 : 4;  // accumulators that hide the latency of a multiply-add
constexpr std::int64_t kRows = 16;

struct Sizes {
  std::int64_t groups, columns, padded, width, floats, stride;

  explicit Sizes(const RotationShape& shape)
      : groups(shape.groups),
        columns(2 * shape.size),
        padded(padded_to_lanes(columns)),
        width(shape.groups * shape.size),
        floats(2 * width),
        stride(floats + padded) {}  // of a buffer's rows, where a block may be written up to its padded end
  std::int64_t matrices() const { return groups * columns * padded; }
};

// The real matrices of U - I, or of its adjoint, column by column, the columns padded with zeros.
void spread_blocks(const Sizes& of, const float* blocks, bool adjoint, float* out) {
  const std::int64_t size = of.columns / 2;
  std::memset(out, 0, static_cast<std::size_t>(of.matrices()) * sizeof(float));
  for (std::int64_t group = 0; group < of.groups; ++group, out += of.columns * of.padded)
    for (std::int64_t i = 0; i < size; ++i)
      for (std::int64_t j = 0; j < size; ++j) {
        const float* entry = blocks + 2 * ((group * size + i) * size + j);
        const float re = i == j ? entry[0] - 1.0f : entry[0], im = adjoint ? -entry[1] : entry[1];
        const std::int64_t row = 2 * (adjoint ? j : i), column = 2 * (adjoint ? i : j);
        out[column * of.padded + row] = out[(column + 1) * of.padded + row + 1] = re;
        out[column * of.padded + row + 1] = im;
        out[(column + 1) * of.padded + row] = -im;
      }
}

// out = M in for kCount rows; `matrix` begins at the lanes wanted.
template <int kCount>
SEM_INLINE void product(const Sizes& of, const float* matrix, const float* in, std::int64_t in_stride, float* out) {
  vfloat sums[kCount]{};
  for (std::int64_t column = 0; column < of.columns; ++column) {
    const vfloat m = load(matrix + column * of.padded);
#pragma GCC unroll 8
    for (int r = 0; r < kCount; ++r) sums[r] += m * in[r * in_stride + column];
  }
#pragma GCC unroll 8
  for (int r = 0; r < kCount; ++r) store(out + r * of.stride, sums[r]);
}

// Blocks are done in order: what one leaves behind its padded end the next writes over.
void products(const Sizes& of, const float* matrices, const float* in, std::int64_t in_stride, std::int64_t rows,
              float* out) {
  for (std::int64_t group = 0; group < of.groups; ++group) {
    const float* from = in + group * of.columns;
    for (std::int64_t lane = 0; lane < of.padded; lane += kLanes) {
      const float* matrix = matrices + group * of.columns * of.padded + lane;
      float* to = out + group * of.columns + lane;
      std::int64_t row = 0;
      for (; row + kAtOnce <= rows; row += kAtOnce)
        product<kAtOnce>(of, matrix, from + row * in_stride, in_stride, to + row * of.stride);
      for (; row < rows; ++row) product<1>(of, matrix, from + row * in_stride, in_stride, to + row * of.stride);
    }
  }
}

// sums[column] += left in[column] over the rows, for kAtOnce columns.
template <int kCount>
SEM_INLINE void outer_product(const Sizes& of, const float* left, const float* in, std::int64_t rows, float* sums) {
  vfloat held[kCount];
#pragma GCC unroll 8
  for (int c = 0; c < kCount; ++c) held[c] = load(sums + c * of.padded);
  for (std::int64_t row = 0; row < rows; ++row) {
    const vfloat l = load(left + row * of.stride);
#pragma GCC unroll 8
    for (int c = 0; c < kCount; ++c) held[c] += l * in[row * of.floats + c];
  }
#pragma GCC unroll 8
  for (int c = 0; c < kCount; ++c) store(sums + c * of.padded, held[c]);
}

// The lanes past a block's end take up what lies there, which is never read.
void outer_products(const Sizes& of, const float* left, const float* in, std::int64_t rows, float* sums) {
  for (std::int64_t group = 0; group < of.groups; ++group)
    for (std::int64_t lane = 0; lane < of.padded; lane += kLanes) {
      const float* from = left + group * of.columns + lane;
      float* to = sums + group * of.columns * of.padded + lane;
      std::int64_t column = 0;
      for (; column + kAtOnce <= of.columns; column += kAtOnce)
        outer_product<kAtOnce>(of, from, in + group * of.columns + column, rows, to + column * of.padded);
      for (; column < of.columns; column += 2)
        outer_product<2>(of, from, in + group * of.columns + column, rows, to + column * of.padded);
    }
}

// The gradient to the complex blocks from that to their real matrices, in the layout of spread_blocks.
void gather_blocks(const Sizes& of, const float* matrices, float* grad_blocks) {
  const std::int64_t size = of.columns / 2;
  for (std::int64_t group = 0; group < of.groups; ++group, matrices += of.columns * of.padded)
    for (std::int64_t i = 0; i < size; ++i)
      for (std::int64_t j = 0; j < size; ++j) {
        const float* column = matrices + 2 * j * of.padded + 2 * i;
        float* out = grad_blocks + 2 * ((group * size + i) * size + j);
        out[0] = column[0] + column[of.padded + 1];
        out[1] = column[1] - column[of.padded];
      }
}

SEM_INLINE vfloat gate(const float* logits, std::int64_t width, std::int64_t i) {
  return 1.0f / (1.0f + vexp(load_real(logits, width, i) * static_cast<float>(-kGateSlope)));
}

}  // namespace

// Memory traffic: x and the logits are read once, out written once.
void run(const GatedRotationForward<float>& args, Queue queue) {
  const Sizes of(args.shape);
  const Pieces tiles{args.shape.rows, kRows};
  const int threads = team(queue, tiles.count());
  const std::int64_t buffer = padded_to_lanes(kRows * of.stride);
  const Scratch scratch(static_cast<std::size_t>(of.matrices() + threads * buffer));
  const float* matrices = scratch.data();
  spread_blocks(of, args.blocks, false, scratch.data());
#pragma omp parallel num_threads(threads)
  {
    float* moved = scratch.data() + of.matrices() + thread_index() * buffer;
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < tiles.count(); ++tile) {
      const std::int64_t first = tiles.begin(tile), rows = tiles.end(tile) - first;
      const float* x = args.x + first * of.floats;
      products(of, matrices, x, of.floats, rows, moved);
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t i = 0; i < of.width; i += kLanes) {
          const vfloat g = gate(args.logits + (first + row) * of.width, of.width, i);
          const Complex from = load_wave(x + row * of.floats, of.width, i);
          const Complex step = load_wave(moved + row * of.stride, of.width, i);
          store_wave(args.out + (first + row) * of.floats, of.width, i, {from.re + g * step.re, from.im + g * step.im});
        }
    }
  }
}

// Memory traffic: x, the logits and grad_out are read once, grad_x and grad_logits written once. U x - x is computed
// again.
void run(const GatedRotationBackward<float>& args, Queue queue) {
  const Sizes of(args.shape);
  const Pieces chunks{args.shape.rows};
  const int threads = team(queue, chunks.count());
  const std::int64_t buffer = padded_to_lanes(kRows * of.stride), matrices = of.matrices();
  const Scratch scratch(static_cast<std::size_t>((2 + chunks.count()) * matrices + 2 * threads * buffer));
  float* const direct = scratch.data();
  float* const adjoint = direct + matrices;
  float* const partials = adjoint + matrices;
  float* const buffers = partials + chunks.count() * matrices;
  spread_blocks(of, args.blocks, false, direct);
  spread_blocks(of, args.blocks, true, adjoint);
#pragma omp parallel num_threads(threads)
  {
    float* const moved = buffers + 2 * thread_index() * buffer;  // then g grad_out, in its place
    float* const pulled = moved + buffer;
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
      float* const sums = partials + chunk * matrices;
      std::memset(sums, 0, static_cast<std::size_t>(matrices) * sizeof(float));
      for (std::int64_t first = chunks.begin(chunk); first < chunks.end(chunk); first += kRows) {
        const std::int64_t left = chunks.end(chunk) - first, rows = left < kRows ? left : kRows;
        const float* x = args.x + first * of.floats;
        products(of, direct, x, of.floats, rows, moved);
        bool used[kRows];
        for (std::int64_t row = 0; row < rows; ++row) {
          used[row] = !all_zero(args.grad_out + (first + row) * of.floats, of.floats);
          if (!used[row]) {
            std::memset(moved + row * of.stride, 0, static_cast<std::size_t>(of.floats) * sizeof(float));
            std::memset(args.grad_logits + (first + row) * of.width, 0,
                        static_cast<std::size_t>(of.width) * sizeof(float));
            continue;
          }
          for (std::int64_t i = 0; i < of.width; i += kLanes) {
            const std::int64_t at = (first + row) * of.width;
            const vfloat g = gate(args.logits + at, of.width, i);
            const Complex grad = load_wave(args.grad_out + 2 * at, of.width, i);
            const Complex step = load_wave(moved + row * of.stride, of.width, i);
            const vfloat steepness = static_cast<float>(kGateSlope) * (g - g * g);
            store_real(args.grad_logits + at, of.width, i, steepness * real_product(step, grad));
            store_wave(moved + row * of.stride, of.width, i, {g * grad.re, g * grad.im});
          }
        }
        for (std::int64_t row = 0; row < rows; ++row) {  // in runs of rows with a gradient; others may hold anything
          const std::int64_t start = row;
          while (row < rows && used[row]) ++row;
          if (row > start) outer_products(of, moved + start * of.stride, x + start * of.floats, row - start, sums);
        }
        products(of, adjoint, moved, of.stride, rows, pulled);
        for (std::int64_t row = 0; row < rows; ++row)
          for (std::int64_t i = 0; i < of.width; i += kLanes) {
            const std::int64_t at = (first + row) * of.floats;
            const Complex grad = load_wave(args.grad_out + at, of.width, i);
            const Complex back = load_wave(pulled + row * of.stride, of.width, i);
            store_wave(args.grad_x + at, of.width, i, {grad.re + back.re, grad.im + back.im});
          }
      }
    }
  }
  sum_pieces(partials, chunks.count(), matrices, matrices, direct);
  gather_blocks(of, direct, args.grad_blocks);
}

}  // namespace sem::cpu::SEM_ISA
