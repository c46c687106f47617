#include "sem/pit.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_pit(py::module_& module) {
  module.def("pit_forward",
             [](std::int64_t rows, std::int64_t width, std::int32_t num_bins, std::int32_t rule, Address psi,
                Address reference_rms, Address strength, Address kerr, Address out, int threads) {
               PitForward<float> args;
               args.rows = rows;
               args.width = width;
               args.num_bins = num_bins;
               args.rule = static_cast<PitRule>(rule);
               args.psi = pointer<const float>(psi);
               args.reference_rms = pointer<const float>(reference_rms);
               args.strength = pointer<const float>(strength);
               args.kerr = pointer<const float>(kerr);
               args.out = pointer<float>(out);
               const py::gil_scoped_release unlocked;
               cpu::pit_forward(args, Queue{nullptr, threads});
             });
  module.def("pit_backward",
             [](std::int64_t rows, std::int64_t width, std::int32_t num_bins, std::int32_t rule, Address psi,
                Address reference_rms, Address strength, Address kerr, Address grad_out, Address grad_psi,
                Address grad_reference, Address grad_strength, Address grad_kerr, int threads) {
               PitBackward<float> args;
               args.rows = rows;
               args.width = width;
               args.num_bins = num_bins;
               args.rule = static_cast<PitRule>(rule);
               args.psi = pointer<const float>(psi);
               args.reference_rms = pointer<const float>(reference_rms);
               args.strength = pointer<const float>(strength);
               args.kerr = pointer<const float>(kerr);
               args.grad_out = pointer<const float>(grad_out);
               args.grad_psi = pointer<float>(grad_psi);
               args.grad_reference = pointer<float>(grad_reference);
               args.grad_strength = pointer<float>(grad_strength);
               args.grad_kerr = pointer<float>(grad_kerr);
               const py::gil_scoped_release unlocked;
               cpu::pit_backward(args, Queue{nullptr, threads});
             });
}

}  // namespace sem::bindings
