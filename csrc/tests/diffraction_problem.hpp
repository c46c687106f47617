// Diffraction problems of every kind, for the tests of kernels and traces.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "sem/diffraction.hpp"
#include "tests/problems.hpp"

namespace sem::testing {

// A tilted detector near the beam, two sources, positions x mosaics orientations of a triclinic cell.
struct Experiment {
  int slow = 5, fast = 37, positions = 2, mosaics = 2, oversample = 1, layers = 1, table = 0;
  DomainShape shape = DomainShape::square;
  DiffractionMode mode = DiffractionMode::nanobragg;
  bool tricubic = false, carryover = false, curved = false, point_pixel = false, masked = false;
  double d_min = 0;
};

struct Gradients {
  std::vector<double> frame = std::vector<double>(12), close = {0}, curvature = std::vector<double>(4),
                      incident = std::vector<double>(6), wavelength = std::vector<double>(2),
                      weight = std::vector<double>(2), orientation, metric = std::vector<double>(9),
                      cells = std::vector<double>(3), fudge = {0}, standard = {0}, table, kahn = {0},
                      axis = std::vector<double>(3), scale = {0}, background = {0};

  std::vector<std::pair<const char*, std::vector<double>*>> named() {
    return {{"frame", &frame},
            {"close", &close},
            {"curvature", &curvature},
            {"incident", &incident},
            {"wavelength", &wavelength},
            {"weight", &weight},
            {"orientation", &orientation},
            {"metric", &metric},
            {"cells", &cells},
            {"fudge", &fudge},
            {"default", &standard},
            {"table", &table},
            {"kahn", &kahn},
            {"axis", &axis},
            {"scale", &scale},
            {"background", &background}};
  }
};

struct Problem {
  explicit Problem(const Experiment& experiment) : experiment(experiment) {
    const double c = std::cos(0.05), s = std::sin(0.05), pixel = 4e-4;
    value.frame = {0, 0, 0, s, 0, c, 0, -1, 0, c, 0, -s};
    const double start[3] = {0.1, 0, 0};
    for (int i = 0; i < 3; ++i)
      value.frame[i] = start[i] - 0.4 * experiment.fast * pixel * value.frame[3 + i] -
                       0.5 * experiment.slow * pixel * value.frame[6 + i];
    value.close = {0.0995};
    value.curvature = {0.1, 1, 0.01, -0.02};
    for (int k = 0; k < 2; ++k) {
      const double y = 0.01 * k, z = -0.004 + 0.005 * k, x = std::sqrt(1 - y * y - z * z);
      const double incident[3] = {x, y, z};
      std::copy(incident, incident + 3, value.incident.begin() + 3 * k);
      value.wavelength[k] = 1.1e-10 * (1 + 0.01 * k);
      value.weight[k] = 0.7 + 0.4 * k;
    }
    const double cell[9] = {42e-10, 0, 3e-10, 4e-10, 51e-10, 0, 0, 5e-10, 60e-10};
    for (int k = 0; k < experiment.positions * experiment.mosaics; ++k)
      for (int row = 0; row < 3; ++row) {
        const double angle = 0.3 + 0.02 * k, x = cell[3 * row], y = cell[3 * row + 1];
        value.orientation.push_back(x * std::cos(angle) - y * std::sin(angle));
        value.orientation.push_back(x * std::sin(angle) + y * std::cos(angle));
        value.orientation.push_back(cell[3 * row + 2] + 1e-11 * k);
      }
    value.metric = {5.7e16, -4e15, -2e15, -4e15, 3.9e16, -3e15, -2e15, -3e15, 2.8e16};
    value.cells = {4, 5, 3};
    value.fudge = {1.3};
    value.standard = {60};
    value.table = uniform_array<double>(table_size(), 10, 60, 4);
    value.kahn = {0.7};
    value.axis = {0.05 / 1.00144895, 0.02 / 1.00144895, 1 / 1.00144895};
    value.scale = {1.5};
    value.background = {40};
    grad_out = normal_array<double>(pixels(), 5);
    for (std::size_t k = 0; experiment.masked && k < pixels(); ++k) mask.push_back(k % 3 != 0);
  }

  std::size_t pixels() const { return static_cast<std::size_t>(experiment.slow) * experiment.fast; }
  std::size_t table_size() const {
    return static_cast<std::size_t>(experiment.table) * (experiment.table + 1) * (experiment.table + 2);
  }

  template <class Real>
  DiffractionInputs<Real> view(const std::vector<Real>& table) {
    DiffractionInputs<Real> in;
    DiffractionSettings& set = in.settings;
    set.slow_pixels = experiment.slow;
    set.fast_pixels = experiment.fast;
    set.fast_last = experiment.fast - 1;
    set.slow_last = experiment.slow - 1;
    set.oversample = experiment.oversample;
    set.layers = experiment.layers;
    set.layer_step = experiment.layers > 1 ? 2e-4 : 0;
    set.attenuation = 2e3;
    set.point_pixel = experiment.point_pixel;
    set.curved = experiment.curved;
    set.polarised = true;
    set.shape = experiment.shape;
    set.phi_carryover = experiment.carryover;
    set.tricubic = experiment.tricubic;
    for (std::int32_t& index : set.first_index) index = -experiment.table / 2;
    set.mode = experiment.mode;
    set.pixel_size = 4e-4;
    set.d_min = experiment.d_min;
    in.sources = 2;
    in.positions = experiment.positions;
    in.mosaics = experiment.mosaics;
    for (int a = 0; a < 3 && experiment.table > 0; ++a) in.table_shape[a] = experiment.table + a;
    in.frame = value.frame.data();
    in.close_distance = value.close.data();
    in.curvature = value.curvature.data();
    in.incident = value.incident.data();
    in.wavelength = value.wavelength.data();
    in.weight = value.weight.data();
    in.orientation = value.orientation.data();
    in.reciprocal_metric = value.metric.data();
    in.cells = value.cells.data();
    in.fudge = value.fudge.data();
    in.default_factor = value.standard.data();
    in.table = table.data();
    in.kahn = value.kahn.data();
    in.polarisation_axis = value.axis.data();
    in.scale = value.scale.data();
    in.background = value.background.data();
    in.mask = experiment.masked ? mask.data() : nullptr;
    return in;
  }

  template <class Real, class Kernel>
  std::vector<Real> forward(Kernel kernel) {
    const auto table = converted<Real>(value.table);
    std::vector<Real> out(pixels(), std::numeric_limits<Real>::quiet_NaN());
    kernel(DiffractionForward<Real>{view<Real>(table), out.data()});
    return out;
  }

  template <class Real, class Kernel>
  Gradients backward(Kernel kernel) {
    const auto table = converted<Real>(value.table), grad = converted<Real>(grad_out);
    std::vector<Real> by_table(table.size());
    Gradients to;
    to.orientation.resize(value.orientation.size());
    kernel(DiffractionBackward<Real>{view<Real>(table), grad.data(), to.frame.data(), to.close.data(),
                                     to.curvature.data(), to.incident.data(), to.wavelength.data(), to.weight.data(),
                                     to.orientation.data(), to.metric.data(), to.cells.data(), to.fudge.data(),
                                     to.standard.data(), by_table.data(), to.kahn.data(), to.axis.data(),
                                     to.scale.data(), to.background.data()});
    to.table = converted<double>(by_table);
    return to;
  }

  double loss() {
    const auto out = forward<double>([](const auto& args) { reference::run(args); });
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * grad_out[i];
    return sum;
  }

  Experiment experiment;
  Gradients value;
  std::vector<double> grad_out;
  std::vector<std::uint8_t> mask;
};

inline std::vector<std::pair<std::string, Experiment>> experiments() {
  std::vector<std::pair<std::string, Experiment>> found;
  const auto add = [&](const char* name, const std::function<void(Experiment&)>& change) {
    for (const DiffractionMode mode : {DiffractionMode::nanobragg, DiffractionMode::exact}) {
      Experiment experiment;
      experiment.mode = mode;
      change(experiment);
      found.push_back({std::string(name) + (mode == DiffractionMode::exact ? "Exact" : ""), experiment});
    }
  };
  add("Square", [](Experiment&) {});
  add("Round", [](Experiment& s) { s.shape = DomainShape::round; });
  add("Gauss", [](Experiment& s) { s.shape = DomainShape::gauss; });
  add("Tophat", [](Experiment& s) { s.shape = DomainShape::tophat; });
  add("Thick", [](Experiment& s) { s.layers = 3, s.oversample = 2, s.fast = 17; });
  add("Curved", [](Experiment& s) { s.curved = true, s.fast = 17; });
  add("Points", [](Experiment& s) { s.point_pixel = true; });
  add("Table", [](Experiment& s) { s.table = 9; });
  add("Tricubic", [](Experiment& s) { s.table = 61, s.tricubic = true, s.fast = 18; });
  add("TricubicOutside", [](Experiment& s) { s.table = 9, s.tricubic = true; });
  add("CarryOver", [](Experiment& s) { s.positions = 3, s.carryover = true; });
  add("Masked", [](Experiment& s) { s.masked = true, s.carryover = true, s.d_min = 2.8e-10; });
  add("OnePixel", [](Experiment& s) { s.slow = s.fast = 1; });
  add("OneTile", [](Experiment& s) { s.fast = 16; });
  add("NoRows", [](Experiment& s) { s.slow = 0; });
  return found;
}

}  // namespace sem::testing
