#include "sem/scan.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {
namespace {

ScanShape shape_from(const py::tuple& shape) {
  return {shape[0].cast<std::int64_t>(), shape[1].cast<std::int64_t>(), shape[2].cast<std::int64_t>(),
          shape[3].cast<std::int64_t>()};
}

}  // namespace

void bind_scan(py::module_& module) {
  module.def("scan_forward",
             [](const py::tuple& shape, Address x, Address dt_mag, Address dt_phase, Address decay, Address frequency,
                Address initial_state, Address states, Address final_state, int threads) {
               ScanForward<float> args;
               args.shape = shape_from(shape);
               args.x = pointer<const float>(x);
               args.dt_mag = pointer<const float>(dt_mag);
               args.dt_phase = pointer<const float>(dt_phase);
               args.decay = pointer<const float>(decay);
               args.frequency = pointer<const float>(frequency);
               args.initial_state = pointer<const float>(initial_state);
               args.states = pointer<float>(states);
               args.final_state = pointer<float>(final_state);
               const py::gil_scoped_release unlocked;
               cpu::scan_forward(args, Queue{nullptr, threads});
             });
  module.def("scan_backward", [](const py::tuple& shape, Address x, Address dt_mag, Address dt_phase, Address decay,
                                 Address frequency, Address initial_state, Address states, Address grad_states,
                                 Address grad_final, Address grad_x, Address grad_dt_mag, Address grad_dt_phase,
                                 Address grad_decay, Address grad_frequency, Address grad_initial, int threads) {
    ScanBackward<float> args;
    args.shape = shape_from(shape);
    args.x = pointer<const float>(x);
    args.dt_mag = pointer<const float>(dt_mag);
    args.dt_phase = pointer<const float>(dt_phase);
    args.decay = pointer<const float>(decay);
    args.frequency = pointer<const float>(frequency);
    args.initial_state = pointer<const float>(initial_state);
    args.states = pointer<const float>(states);
    args.grad_states = pointer<const float>(grad_states);
    args.grad_final = pointer<const float>(grad_final);
    args.grad_x = pointer<float>(grad_x);
    args.grad_dt_mag = pointer<float>(grad_dt_mag);
    args.grad_dt_phase = pointer<float>(grad_dt_phase);
    args.grad_decay = pointer<float>(grad_decay);
    args.grad_frequency = pointer<float>(grad_frequency);
    args.grad_initial = pointer<float>(grad_initial);
    const py::gil_scoped_release unlocked;
    cpu::scan_backward(args, Queue{nullptr, threads});
  });
}

}  // namespace sem::bindings
