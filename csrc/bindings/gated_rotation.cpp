#include "sem/gated_rotation.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_gated_rotation(py::module_& module) {
  module.def("gated_rotation_forward", [](std::int64_t rows, std::int64_t groups, std::int64_t size, Address x,
                                          Address logits, Address blocks, Address out, int threads) {
    GatedRotationForward<float> args;
    args.shape = {rows, groups, size};
    args.x = pointer<const float>(x);
    args.logits = pointer<const float>(logits);
    args.blocks = pointer<const float>(blocks);
    args.out = pointer<float>(out);
    const py::gil_scoped_release unlocked;
    cpu::gated_rotation_forward(args, Queue{nullptr, threads});
  });
  module.def("gated_rotation_backward",
             [](std::int64_t rows, std::int64_t groups, std::int64_t size, Address x, Address logits, Address blocks,
                Address grad_out, Address grad_x, Address grad_logits, Address grad_blocks, int threads) {
               GatedRotationBackward<float> args;
               args.shape = {rows, groups, size};
               args.x = pointer<const float>(x);
               args.logits = pointer<const float>(logits);
               args.blocks = pointer<const float>(blocks);
               args.grad_out = pointer<const float>(grad_out);
               args.grad_x = pointer<float>(grad_x);
               args.grad_logits = pointer<float>(grad_logits);
               args.grad_blocks = pointer<float>(grad_blocks);
               const py::gil_scoped_release unlocked;
               cpu::gated_rotation_backward(args, Queue{nullptr, threads});
             });
}

}  // namespace sem::bindings
