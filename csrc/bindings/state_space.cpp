#include "sem/state_space.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {
namespace {

StateSpaceShape shape_from(const py::tuple& shape) {
  return {shape[0].cast<std::int64_t>(), shape[1].cast<std::int64_t>(), shape[2].cast<std::int64_t>(),
          shape[3].cast<std::int64_t>(), shape[4].cast<std::int64_t>()};
}

}  // namespace

void bind_state_space(py::module_& module) {
  module.attr("state_space_checkpoint_steps") = kCheckpointSteps;
  module.def("state_space_forward",
             [](const py::tuple& shape, Address x, Address dt_mag, Address dt_phase, Address into, Address out_of,
                Address decay, Address frequency, Address initial_state, Address y, Address final_state,
                Address checkpoints, int threads) {
               StateSpaceForward<float> args;
               args.shape = shape_from(shape);
               args.x = pointer<const float>(x);
               args.dt_mag = pointer<const float>(dt_mag);
               args.dt_phase = pointer<const float>(dt_phase);
               args.into = pointer<const float>(into);
               args.out_of = pointer<const float>(out_of);
               args.decay = pointer<const float>(decay);
               args.frequency = pointer<const float>(frequency);
               args.initial_state = pointer<const float>(initial_state);
               args.y = pointer<float>(y);
               args.final_state = pointer<float>(final_state);
               args.checkpoints = pointer<float>(checkpoints);
               const py::gil_scoped_release unlocked;
               cpu::state_space_forward(args, Queue{nullptr, threads});
             });
  module.def("state_space_backward",
             [](const py::tuple& shape, Address x, Address dt_mag, Address dt_phase, Address into, Address out_of,
                Address decay, Address frequency, Address initial_state, Address checkpoints, Address grad_y,
                Address grad_final, Address grad_x, Address grad_dt_mag, Address grad_dt_phase, Address grad_into,
                Address grad_out_of, Address grad_decay, Address grad_frequency, Address grad_initial, int threads) {
               StateSpaceBackward<float> args;
               args.shape = shape_from(shape);
               args.x = pointer<const float>(x);
               args.dt_mag = pointer<const float>(dt_mag);
               args.dt_phase = pointer<const float>(dt_phase);
               args.into = pointer<const float>(into);
               args.out_of = pointer<const float>(out_of);
               args.decay = pointer<const float>(decay);
               args.frequency = pointer<const float>(frequency);
               args.initial_state = pointer<const float>(initial_state);
               args.checkpoints = pointer<const float>(checkpoints);
               args.grad_y = pointer<const float>(grad_y);
               args.grad_final = pointer<const float>(grad_final);
               args.grad_x = pointer<float>(grad_x);
               args.grad_dt_mag = pointer<float>(grad_dt_mag);
               args.grad_dt_phase = pointer<float>(grad_dt_phase);
               args.grad_into = pointer<float>(grad_into);
               args.grad_out_of = pointer<float>(grad_out_of);
               args.grad_decay = pointer<float>(grad_decay);
               args.grad_frequency = pointer<float>(grad_frequency);
               args.grad_initial = pointer<float>(grad_initial);
               const py::gil_scoped_release unlocked;
               cpu::state_space_backward(args, Queue{nullptr, threads});
             });
}

}  // namespace sem::bindings
