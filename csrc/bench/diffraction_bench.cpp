#include "bench/problems.hpp"
#include "sem/diffraction.hpp"

namespace sem::bench {
namespace {

// A simple cubic cell of 100 Angstroms in blocks of 5 x 5 x 5. Rate: steps (pixels times orientations) per second.
struct Problem {
  explicit Problem(const ::benchmark::State& state)
      : pixels(state.range(0)),
        orientations(state.range(1)),
        orientation(static_cast<std::size_t>(9 * orientations)),
        grad_orientation(orientation.size()),
        image(static_cast<std::size_t>(pixels * pixels), 1.0f) {
    for (std::int64_t o = 0; o < orientations; ++o) {
      for (int a = 0; a < 3; ++a) orientation[9 * o + 4 * a] = 1e-8;
      orientation[9 * o + 1] = 1e-11 * static_cast<double>(o);
    }
    const double half = 0.5 * static_cast<double>(pixels) * 1e-4;
    frame[1] = half;
    frame[2] = -half;
  }

  DiffractionInputs<float> view() const {
    DiffractionInputs<float> in;
    in.settings.slow_pixels = in.settings.fast_pixels = static_cast<std::int32_t>(pixels);
    in.settings.slow_last = in.settings.fast_last = static_cast<std::int32_t>(pixels - 1);
    in.settings.polarised = true;
    in.settings.pixel_size = 1e-4;
    in.sources = in.positions = 1;
    in.mosaics = orientations;
    in.frame = frame;
    in.close_distance = &tenth;
    in.curvature = zeros;
    in.incident = beam;
    in.wavelength = &wavelength;
    in.weight = in.fudge = in.scale = &one;
    in.orientation = orientation.data();
    in.reciprocal_metric = zeros;
    in.cells = cells;
    in.default_factor = &hundred;
    in.kahn = in.background = zeros;
    in.polarisation_axis = axis;
    return in;
  }
  double steps() const { return static_cast<double>(pixels * pixels * orientations); }

  std::int64_t pixels, orientations;
  std::vector<double> orientation, grad_orientation;
  std::vector<float> image;
  double frame[12] = {0.1, 0, 0, 0, 0, 1, 0, -1, 0, 1, 0, 0};
  double tenth = 0.1, one = 1, hundred = 100, wavelength = 6.2e-10, zeros[9] = {};
  double beam[3] = {1, 0, 0}, axis[3] = {0, 0, 1}, cells[3] = {5, 5, 5};
};

void diffraction_forward(::benchmark::State& state) {
  Problem problem(state);
  const DiffractionForward<float> args{problem.view(), problem.image.data()};
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "steps/s", problem.steps());
}

void diffraction_backward(::benchmark::State& state) {
  Problem problem(state);
  double g[48];
  float table = 0;
  DiffractionBackward<float> args;
  args.in = problem.view();
  args.grad_out = problem.image.data();
  args.frame = g;
  args.close_distance = g + 12;
  args.curvature = g + 13;
  args.incident = g + 17;
  args.wavelength = g + 20;
  args.weight = g + 21;
  args.orientation = problem.grad_orientation.data();
  args.reciprocal_metric = g + 22;
  args.cells = g + 31;
  args.fudge = g + 34;
  args.default_factor = g + 35;
  args.table = &table;
  args.kahn = g + 36;
  args.polarisation_axis = g + 37;
  args.scale = g + 40;
  args.background = g + 41;
  for (auto _ : state) {
    cpu::run(args, kOneThread);
    ::benchmark::ClobberMemory();
  }
  report_rate(state, "steps/s", problem.steps());
}

void sizes(::benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"pixels", "orientations"})->Unit(::benchmark::kMillisecond);
  benchmark->Args({1024, 1})->Args({256, 100});
}

BENCHMARK(diffraction_forward)->Apply(sizes);
BENCHMARK(diffraction_backward)->Apply(sizes);

}  // namespace
}  // namespace sem::bench
