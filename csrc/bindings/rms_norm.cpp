#include "sem/rms_norm.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_rms_norm(py::module_& module) {
  module.def("rms_norm_forward",
             [](std::int64_t rows, std::int64_t width, float eps, Address z, Address gamma, Address out, int threads) {
               RmsNormForward<float> args;
               args.rows = rows;
               args.width = width;
               args.eps = eps;
               args.z = pointer<const float>(z);
               args.gamma = pointer<const float>(gamma);
               args.out = pointer<float>(out);
               const py::gil_scoped_release unlocked;
               cpu::rms_norm_forward(args, Queue{nullptr, threads});
             });
  module.def("rms_norm_backward", [](std::int64_t rows, std::int64_t width, float eps, Address z, Address gamma,
                                     Address grad_out, Address grad_z, Address grad_gamma, int threads) {
    RmsNormBackward<float> args;
    args.rows = rows;
    args.width = width;
    args.eps = eps;
    args.z = pointer<const float>(z);
    args.gamma = pointer<const float>(gamma);
    args.grad_out = pointer<const float>(grad_out);
    args.grad_z = pointer<float>(grad_z);
    args.grad_gamma = pointer<float>(grad_gamma);
    const py::gil_scoped_release unlocked;
    cpu::rms_norm_backward(args, Queue{nullptr, threads});
  });
}

}  // namespace sem::bindings
