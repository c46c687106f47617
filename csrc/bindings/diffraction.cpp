#include "sem/diffraction.hpp"

#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "bindings/bindings.hpp"

namespace sem::bindings {
namespace {

using Whole = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using Addresses = std::vector<Address>;

// In the order of sem.ops.diffraction_problem.Settings.
DiffractionSettings settings_from(const Whole& whole, const Numbers& numbers) {
  DiffractionSettings set;
  std::size_t i = 0;
  const auto next = [&] { return static_cast<std::int32_t>(whole.at(i++)); };
  set.slow_pixels = next();
  set.fast_pixels = next();
  set.fast_first = next();
  set.fast_last = next();
  set.slow_first = next();
  set.slow_last = next();
  set.oversample = next();
  set.layers = next();
  set.point_pixel = next() != 0;
  set.curved = next() != 0;
  set.polarised = next() != 0;
  set.shape = static_cast<DomainShape>(next());
  set.phi_carryover = next() != 0;
  set.tricubic = next() != 0;
  for (std::int32_t& index : set.first_index) index = next();
  set.mode = static_cast<DiffractionMode>(next());
  set.pixel_size = numbers.at(0);
  set.layer_step = numbers.at(1);
  set.attenuation = numbers.at(2);
  set.d_min = numbers.at(3);
  return set;
}

// `tensors` in the order of sem.ops.diffraction_problem.Geometry; `sizes` are S, P, M, H, K, L and whether there is a
// mask.
template <class Real>
DiffractionInputs<Real> inputs_from(const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                    const Addresses& tensors) {
  DiffractionInputs<Real> in;
  in.settings = settings_from(whole, numbers);
  in.sources = sizes.at(0);
  in.positions = sizes.at(1);
  in.mosaics = sizes.at(2);
  for (int a = 0; a < 3; ++a) in.table_shape[a] = sizes.at(3 + a);
  std::size_t i = 0;
  const auto next = [&] { return pointer<const double>(tensors.at(i++)); };
  in.frame = next();
  in.close_distance = next();
  in.curvature = next();
  in.incident = next();
  in.wavelength = next();
  in.weight = next();
  in.orientation = next();
  in.reciprocal_metric = next();
  in.cells = next();
  in.fudge = next();
  in.default_factor = next();
  in.table = pointer<const Real>(tensors.at(i++));
  in.kahn = next();
  in.polarisation_axis = next();
  in.scale = next();
  in.background = next();
  in.mask = sizes.at(6) != 0 ? pointer<const std::uint8_t>(tensors.at(i)) : nullptr;
  return in;
}

py::list listed(const std::vector<TracedValue>& trace) {
  py::list out;
  for (const TracedValue& found : trace) {
    const std::array<std::int32_t, 5> step{found.layer, found.subpixel, found.source, found.position, found.mosaic};
    out.append(py::make_tuple(found.name, step, Numbers(found.value, found.value + found.count)));
  }
  return out;
}

template <class Real>
py::list reference_trace(const Whole& whole, const Numbers& numbers, const Whole& sizes, const Addresses& tensors,
                         std::int32_t slow, std::int32_t fast) {
  const DiffractionForward<Real> args{inputs_from<Real>(whole, numbers, sizes, tensors), nullptr};
  return listed(reference::diffraction_trace(args, slow, fast));
}

}  // namespace

void bind_diffraction(py::module_& module) {
  module.def("diffraction_forward", [](const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                       const Addresses& tensors, Address out, int threads) {
    const DiffractionForward<float> args{inputs_from<float>(whole, numbers, sizes, tensors), pointer<float>(out)};
    const py::gil_scoped_release unlocked;
    cpu::diffraction_forward(args, Queue{nullptr, threads});
  });
  module.def("diffraction_backward",
             [](const Whole& whole, const Numbers& numbers, const Whole& sizes, const Addresses& tensors,
                Address grad_out, const Addresses& gradients, bool geometry, int threads) {
               DiffractionBackward<float> args;
               args.in = inputs_from<float>(whole, numbers, sizes, tensors);
               args.grad_out = pointer<const float>(grad_out);
               std::size_t i = 0;
               const auto next = [&] { return pointer<double>(gradients.at(i++)); };
               args.frame = next();
               args.close_distance = next();
               args.curvature = next();
               args.incident = next();
               args.wavelength = next();
               args.weight = next();
               args.orientation = next();
               args.reciprocal_metric = next();
               args.cells = next();
               args.fudge = next();
               args.default_factor = next();
               args.table = pointer<float>(gradients.at(i++));
               args.kahn = next();
               args.polarisation_axis = next();
               args.scale = next();
               args.background = next();
               args.geometry = geometry;
               const py::gil_scoped_release unlocked;
               cpu::diffraction_backward(args, Queue{nullptr, threads});
             });
  // Intermediate values of one pixel: (name, (layer, subpixel, source, position, mosaic), values), of the kernel and of
  // the serial reference.
  module.def("diffraction_trace", [](const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                     const Addresses& tensors, std::int32_t slow, std::int32_t fast, int threads) {
    std::vector<TracedValue> out;
    const DiffractionTrace args{inputs_from<float>(whole, numbers, sizes, tensors), slow, fast, &out};
    cpu::diffraction_trace(args, Queue{nullptr, threads});
    return listed(out);
  });
  module.def("diffraction_reference_trace",
             [](const Whole& whole, const Numbers& numbers, const Whole& sizes, const Addresses& tensors,
                std::int32_t slow, std::int32_t fast, bool double_precision) {
               return (double_precision ? reference_trace<double> : reference_trace<float>)(whole, numbers, sizes,
                                                                                            tensors, slow, fast);
             });
}

}  // namespace sem::bindings
