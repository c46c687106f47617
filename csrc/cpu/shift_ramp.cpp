#include "sem/shift_ramp.hpp"

#include <cmath>

#include "cpu/complex_products.hpp"
#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"

// The ramp of a pattern is the product of two tables, of rows and of columns: no exponential per pixel. Lanes run along
// rows.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr double kTwoPi = 6.283185307179586;
constexpr std::int64_t kBand = 4;  // rows of the spectrum's gradient that a thread takes at a time

double frequency(std::int64_t k, std::int64_t side) {
  return static_cast<double>(k < (side + 1) / 2 ? k : k - side) / static_cast<double>(side);
}

// exp(-2 pi i q_k f_ja) for every pattern, axis and k: [patterns, 2, side, 2]
void fill_tables(const RampShape& shape, const float* shift, float* tables, Queue queue) {
#pragma omp parallel for schedule(static) num_threads(team(queue, shape.patterns))
  for (std::int64_t line = 0; line < 2 * shape.patterns; ++line)
    for (std::int64_t k = 0; k < shape.side; ++k) {
      const double angle = -kTwoPi * frequency(k, shape.side) * shift[line];
      tables[2 * (line * shape.side + k)] = static_cast<float>(std::cos(angle));
      tables[2 * (line * shape.side + k) + 1] = static_cast<float>(std::sin(angle));
    }
}

struct Ramp {
  const float *rows, *columns;
  std::int64_t side;

  Ramp(const float* tables, std::int64_t j, std::int64_t side)
      : rows(tables + 4 * j * side), columns(rows + 2 * side), side(side) {}
  SEM_INLINE Complex operator()(std::int64_t y, std::int64_t x) const {
    return times({broadcast(rows[2 * y]), broadcast(rows[2 * y + 1])}, load_wave(columns, side, x));
  }
};

}  // namespace

// Memory traffic: out is written once.
void run(const ShiftRampForward<float>& args, Queue queue) {
  const RampShape& shape = args.shape;
  const Scratch tables(static_cast<std::size_t>(shape.patterns * 4 * shape.side));
  fill_tables(shape, args.shift, tables.data(), queue);
#pragma omp parallel for schedule(static) num_threads(team(queue, shape.patterns))
  for (std::int64_t j = 0; j < shape.patterns; ++j) {
    const Ramp ramp(tables.data(), j, shape.side);
    for (std::int64_t row = 0; row < shape.modes * shape.side; ++row) {
      const float* const from = args.spectrum + 2 * row * shape.side;
      float* const to = args.out + j * shape.spectrum() + 2 * row * shape.side;
      for (std::int64_t x = 0; x < shape.side; x += kLanes)
        store_wave(to, shape.side, x, times(load_wave(from, shape.side, x), ramp(row % shape.side, x)));
    }
  }
}

// Memory traffic: grad_out is read twice.
void run(const ShiftRampBackward<float>& args, Queue queue) {
  const RampShape& shape = args.shape;
  const std::int64_t side = shape.side, rows = shape.modes * side;
  const Scratch tables(static_cast<std::size_t>(shape.patterns * 4 * side)), q(static_cast<std::size_t>(side));
  fill_tables(shape, args.shift, tables.data(), queue);
  for (std::int64_t k = 0; k < side; ++k) q.data()[k] = static_cast<float>(frequency(k, side));

  const Pieces bands{rows, kBand};
#pragma omp parallel for schedule(dynamic, 1) num_threads(team(queue, bands.count()))
  for (std::int64_t band = 0; band < bands.count(); ++band)
    for (std::int64_t row = bands.begin(band); row < bands.end(band); ++row) {
      float* const to = args.to_spectrum + 2 * row * side;
      for (std::int64_t x = 0; x < side; x += kLanes) {
        Complex sum = args.onto ? load_wave(to, side, x) : Complex{};
        for (std::int64_t j = 0; j < shape.patterns; ++j) {
          const float* const g = args.grad_out + j * shape.spectrum() + 2 * row * side;
          sum = plus(sum, conjugate_times(Ramp(tables.data(), j, side)(row % side, x), load_wave(g, side, x)));
        }
        store_wave(to, side, x, sum);
      }
    }

#pragma omp parallel for schedule(static) num_threads(team(queue, shape.patterns))
  for (std::int64_t j = 0; j < shape.patterns; ++j) {
    const Ramp ramp(tables.data(), j, side);
    BlockSum by_y, by_x;
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* const s = args.spectrum + 2 * row * side;
      const float* const g = args.grad_out + j * shape.spectrum() + 2 * row * side;
      for (std::int64_t x = 0; x < side; x += kLanes) {
        const Complex out = times(load_wave(s, side, x), ramp(row % side, x)), grad = load_wave(g, side, x);
        const vfloat along = grad.re * out.im - grad.im * out.re;
        by_y.add_product(broadcast(q.data()[row % side]), along);
        by_x.add_product(load_real(q.data(), side, x), along);
      }
      by_y.end_of_node(row);
      by_x.end_of_node(row);
    }
    args.to_shift[2 * j] = static_cast<float>(kTwoPi) * horizontal_sum(by_y.total());
    args.to_shift[2 * j + 1] = static_cast<float>(kTwoPi) * horizontal_sum(by_x.total());
  }
}

}  // namespace sem::cpu::SEM_ISA
