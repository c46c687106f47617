#include "sem/diffraction.hpp"

#include <array>
#include <vector>

#include "bindings/diffraction_arguments.hpp"

namespace sem::bindings {
namespace {

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
  const DiffractionForward<Real> args{diffraction_inputs_from<Real>(whole, numbers, sizes, tensors), nullptr};
  return listed(reference::diffraction_trace(args, slow, fast));
}

}  // namespace

void bind_diffraction(py::module_& module) {
  module.def("diffraction_forward", [](const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                       const Addresses& tensors, Address out, int threads) {
    const DiffractionForward<float> args{diffraction_inputs_from<float>(whole, numbers, sizes, tensors),
                                         pointer<float>(out)};
    const py::gil_scoped_release unlocked;
    cpu::diffraction_forward(args, Queue{nullptr, threads});
  });
  module.def("diffraction_backward",
             [](const Whole& whole, const Numbers& numbers, const Whole& sizes, const Addresses& tensors,
                Address grad_out, const Addresses& gradients, bool geometry, int threads) {
               const DiffractionBackward<float> args = diffraction_backward_from(
                   diffraction_inputs_from<float>(whole, numbers, sizes, tensors), grad_out, gradients, geometry);
               const py::gil_scoped_release unlocked;
               cpu::diffraction_backward(args, Queue{nullptr, threads});
             });
  // Intermediate values of one pixel: (name, (layer, subpixel, source, position, mosaic), values), of the kernel and of
  // the serial reference.
  module.def("diffraction_trace", [](const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                     const Addresses& tensors, std::int32_t slow, std::int32_t fast, int threads) {
    std::vector<TracedValue> out;
    const DiffractionTrace args{diffraction_inputs_from<float>(whole, numbers, sizes, tensors), slow, fast, &out};
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
