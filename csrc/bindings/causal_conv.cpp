#include "sem/causal_conv.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {
namespace {

ConvShape shape_from(const py::tuple& shape) {
  return {shape[0].cast<std::int64_t>(), shape[1].cast<std::int64_t>(), shape[2].cast<std::int64_t>(),
          shape[3].cast<std::int64_t>()};
}

}  // namespace

void bind_causal_conv(py::module_& module) {
  module.def("causal_conv_forward", [](const py::tuple& shape, Address x, Address history, Address taps, Address bias,
                                       Address theta, Address out, int threads) {
    CausalConvForward<float> args;
    args.shape = shape_from(shape);
    args.x = pointer<const float>(x);
    args.history = pointer<const float>(history);
    args.taps = pointer<const float>(taps);
    args.bias = pointer<const float>(bias);
    args.theta = pointer<const float>(theta);
    args.out = pointer<float>(out);
    const py::gil_scoped_release unlocked;
    cpu::causal_conv_forward(args, Queue{nullptr, threads});
  });
  module.def("causal_conv_backward", [](const py::tuple& shape, Address x, Address history, Address taps, Address bias,
                                        Address theta, Address grad_out, Address grad_x, Address grad_history,
                                        Address grad_taps, Address grad_bias, Address grad_theta, int threads) {
    CausalConvBackward<float> args;
    args.shape = shape_from(shape);
    args.x = pointer<const float>(x);
    args.history = pointer<const float>(history);
    args.taps = pointer<const float>(taps);
    args.bias = pointer<const float>(bias);
    args.theta = pointer<const float>(theta);
    args.grad_out = pointer<const float>(grad_out);
    args.grad_x = pointer<float>(grad_x);
    args.grad_history = pointer<float>(grad_history);
    args.grad_taps = pointer<float>(grad_taps);
    args.grad_bias = pointer<float>(grad_bias);
    args.grad_theta = pointer<float>(grad_theta);
    const py::gil_scoped_release unlocked;
    cpu::causal_conv_backward(args, Queue{nullptr, threads});
  });
}

}  // namespace sem::bindings
