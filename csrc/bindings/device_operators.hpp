// The operators of a device back end for Python, the same for every one: SEM_BACKEND is its namespace.
//
// `queue` is (address of the caller's stream or queue, number of the device). `allocate(floats)` is called once, where
// a workspace is needed, and returns its address; it must live until the work on the queue is done, which torch's
// caching allocators see to for memory of the same stream.
#pragma once

#include "bindings/bindings.hpp"
#include "bindings/diffraction_arguments.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::bindings {

inline Queue queue_from(const py::tuple& queue) {
  Queue out;
  out.handle = pointer<void>(queue[0].cast<Address>());
  out.device = queue[1].cast<int>();
  return out;
}

inline float* allocated(const py::function& allocate, std::int64_t floats) {
  return floats == 0 ? nullptr : pointer<float>(allocate(floats).cast<Address>());
}

inline void bind_device_laplacian(py::module_& module) {
  module.def("laplacian_forward", [](const py::tuple& queue, const py::tuple& graph, std::int64_t rows, int components,
                                     Address edge_weight, Address x, Address out) {
    LaplacianForward<float> args;
    args.graph = graph_from(graph);
    args.rows = rows;
    args.components = components;
    args.edge_weight = pointer<const float>(edge_weight);
    args.x = pointer<const float>(x);
    args.out = pointer<float>(out);
    const Queue on = queue_from(queue);
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::laplacian_forward(args, on);
  });
  module.def("laplacian_weight_gradient",
             [](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                int components, Address x, Address grad_out, Address grad_weight) {
               LaplacianWeightGradient<float> args;
               args.graph = graph_from(graph);
               args.rows = rows;
               args.components = components;
               args.x = pointer<const float>(x);
               args.grad_out = pointer<const float>(grad_out);
               args.grad_weight = pointer<float>(grad_weight);
               float* const workspace = allocated(allocate, device::floats(args));
               const Queue on = queue_from(queue);
               const py::gil_scoped_release unlocked;
               SEM_BACKEND::laplacian_weight_gradient(args, workspace, on);
             });
}

inline void bind_device_cayley(py::module_& module) {
  const auto run = [](device::CayleyTask& task, const py::function& allocate, Queue queue) {
    task.workspace = allocated(allocate, device::floats(task, SEM_BACKEND::limits(queue)));
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::cayley(task, queue);
  };
  module.def("cayley_forward",
             [run](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                   Address edge_weight, Address half_dt, float tol, std::int32_t max_iter, Address psi, Address psi_out,
                   Address status, Address iterations, Address residual) {
               device::CayleyTask task;
               task.graph = graph_from(graph);
               task.rows = rows;
               task.edge_weight = pointer<const float>(edge_weight);
               task.half_dt = pointer<const float>(half_dt);
               task.tol = tol;
               task.max_iter = max_iter;
               task.input = pointer<const float>(psi);
               task.output = pointer<float>(psi_out);
               task.report = report_from(status, iterations, residual);
               run(task, allocate, queue_from(queue));
             });
  module.def("cayley_backward",
             [run](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                   Address edge_weight, Address half_dt, float tol, std::int32_t max_iter, Address psi, Address psi_out,
                   Address grad_out, Address grad_psi, Address grad_weight, Address grad_half_dt, Address status) {
               device::CayleyTask task;
               task.graph = graph_from(graph);
               task.rows = rows;
               task.edge_weight = pointer<const float>(edge_weight);
               task.half_dt = pointer<const float>(half_dt);
               task.tol = tol;
               task.max_iter = max_iter;
               task.adjoint = true;
               task.psi = pointer<const float>(psi);
               task.psi_out = pointer<const float>(psi_out);
               task.input = pointer<const float>(grad_out);
               task.output = pointer<float>(grad_psi);
               task.grad_weight = pointer<float>(grad_weight);
               task.grad_half_dt = pointer<float>(grad_half_dt);
               task.report.status = pointer<std::int32_t>(status);
               run(task, allocate, queue_from(queue));
             });
}

inline void bind_device_laplacian_cg(py::module_& module) {
  const auto run = [](device::LaplacianCgTask& task, const py::function& allocate, Queue queue) {
    task.workspace = allocated(allocate, device::floats(task, SEM_BACKEND::limits(queue)));
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::laplacian_cg(task, queue);
  };
  module.def("laplacian_cg_forward",
             [run](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                   int components, Address edge_weight, float alpha, float beta, float gamma, float tol,
                   std::int32_t max_iter, Address b, Address x, Address status, Address iterations, Address residual) {
               device::LaplacianCgTask task;
               task.graph = graph_from(graph);
               task.rows = rows;
               task.components = components;
               task.edge_weight = pointer<const float>(edge_weight);
               task.system = {alpha, beta, gamma};
               task.tol = tol;
               task.max_iter = max_iter;
               task.input = pointer<const float>(b);
               task.output = pointer<float>(x);
               task.report = report_from(status, iterations, residual);
               run(task, allocate, queue_from(queue));
             });
  module.def(
      "laplacian_cg_backward",
      [run](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
            int components, Address edge_weight, float alpha, float beta, float gamma, float tol, std::int32_t max_iter,
            Address x, Address grad_out, Address grad_b, Address grad_weight, Address status) {
        device::LaplacianCgTask task;
        task.graph = graph_from(graph);
        task.rows = rows;
        task.components = components;
        task.edge_weight = pointer<const float>(edge_weight);
        task.system = {alpha, beta, gamma};
        task.tol = tol;
        task.max_iter = max_iter;
        task.x = pointer<const float>(x);
        task.input = pointer<const float>(grad_out);
        task.output = pointer<float>(grad_b);
        task.grad_weight = pointer<float>(grad_weight);
        task.report.status = pointer<std::int32_t>(status);
        run(task, allocate, queue_from(queue));
      });
}

inline void bind_device_pit(py::module_& module) {
  module.def("pit_forward", [](const py::tuple& queue, const py::function& allocate, std::int64_t rows,
                               std::int64_t width, std::int32_t num_bins, std::int32_t rule, Address psi,
                               Address reference_rms, Address strength, Address kerr, Address out) {
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
    float* const workspace = allocated(allocate, device::floats(args));
    const Queue on = queue_from(queue);
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::pit_forward(args, workspace, on);
  });
  module.def("pit_backward", [](const py::tuple& queue, const py::function& allocate, std::int64_t rows,
                                std::int64_t width, std::int32_t num_bins, std::int32_t rule, Address psi,
                                Address reference_rms, Address strength, Address kerr, Address grad_out,
                                Address grad_psi, Address grad_reference, Address grad_strength, Address grad_kerr) {
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
    const Queue on = queue_from(queue);
    float* const workspace = allocated(allocate, device::floats(args, SEM_BACKEND::limits(on)));
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::pit_backward(args, workspace, on);
  });
}

inline void bind_device_soliton_step(py::module_& module) {
  const auto run = [](device::SolitonTask& task, const py::function& allocate, Queue queue) {
    task.workspace = allocated(allocate, device::floats(task, SEM_BACKEND::limits(queue)));
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::soliton_step(task, queue);
  };
  const auto task_of = [](const py::tuple& graph, std::int64_t rows, std::int32_t num_bins, std::int32_t rule,
                          float tol, std::int32_t max_iter, Address psi, Address kerr, Address strength,
                          Address edge_weight, Address half_dt, Address turned) {
    device::SolitonTask task;
    task.cayley.graph = graph_from(graph);
    task.cayley.rows = rows;
    task.cayley.edge_weight = pointer<const float>(edge_weight);
    task.cayley.half_dt = pointer<const float>(half_dt);
    task.cayley.tol = tol;
    task.cayley.max_iter = max_iter;
    task.turn.rows = rows;
    task.turn.width = task.cayley.graph.nodes;
    task.turn.num_bins = num_bins;
    task.turn.rule = static_cast<PitRule>(rule);
    task.turn.psi = pointer<const float>(psi);
    task.turn.kerr = pointer<const float>(kerr);
    task.turn.strength = pointer<const float>(strength);
    task.turn.out = pointer<float>(turned);
    return task;
  };
  module.def(
      "soliton_step_forward",
      [run, task_of](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                     std::int32_t num_bins, std::int32_t rule, float tol, std::int32_t max_iter, Address psi,
                     Address kerr, Address strength, Address edge_weight, Address half_dt, Address turned,
                     Address psi_out, Address status, Address iterations, Address residual) {
        device::SolitonTask task =
            task_of(graph, rows, num_bins, rule, tol, max_iter, psi, kerr, strength, edge_weight, half_dt, turned);
        task.cayley.input = task.turn.out;
        task.cayley.output = pointer<float>(psi_out);
        task.cayley.report = report_from(status, iterations, residual);
        run(task, allocate, queue_from(queue));
      });
  module.def(
      "soliton_step_backward",
      [run, task_of](const py::tuple& queue, const py::function& allocate, const py::tuple& graph, std::int64_t rows,
                     std::int32_t num_bins, std::int32_t rule, float tol, std::int32_t max_iter, Address psi,
                     Address kerr, Address strength, Address edge_weight, Address half_dt, Address turned,
                     Address psi_out, Address grad_out, Address grad_turned, Address grad_psi, Address grad_kerr,
                     Address grad_strength, Address grad_weight, Address grad_half_dt, Address status) {
        device::SolitonTask task =
            task_of(graph, rows, num_bins, rule, tol, max_iter, psi, kerr, strength, edge_weight, half_dt, turned);
        task.backward = true;
        task.cayley.adjoint = true;
        task.cayley.psi = task.turn.out;
        task.cayley.psi_out = pointer<const float>(psi_out);
        task.cayley.input = pointer<const float>(grad_out);
        task.cayley.output = pointer<float>(grad_turned);
        task.cayley.grad_weight = pointer<float>(grad_weight);
        task.cayley.grad_half_dt = pointer<float>(grad_half_dt);
        task.cayley.report.status = pointer<std::int32_t>(status);
        task.pit.rows = rows;
        task.pit.width = task.turn.width;
        task.pit.num_bins = num_bins;
        task.pit.rule = task.turn.rule;
        task.pit.psi = task.turn.psi;
        task.pit.kerr = task.turn.kerr;
        task.pit.strength = task.turn.strength;
        task.pit.grad_out = task.cayley.output;
        task.pit.grad_psi = pointer<float>(grad_psi);
        task.pit.grad_kerr = pointer<float>(grad_kerr);
        task.pit.grad_strength = pointer<float>(grad_strength);
        run(task, allocate, queue_from(queue));
      });
}

inline ScanShape scan_shape_from(const py::tuple& shape) {
  return {shape[0].cast<std::int64_t>(), shape[1].cast<std::int64_t>(), shape[2].cast<std::int64_t>(),
          shape[3].cast<std::int64_t>()};
}

inline void bind_device_scan(py::module_& module) {
  module.def("scan_forward",
             [](const py::tuple& queue, const py::tuple& shape, Address x, Address dt_mag, Address dt_phase,
                Address decay, Address frequency, Address initial_state, Address states, Address final_state) {
               ScanForward<float> args;
               args.shape = scan_shape_from(shape);
               args.x = pointer<const float>(x);
               args.dt_mag = pointer<const float>(dt_mag);
               args.dt_phase = pointer<const float>(dt_phase);
               args.decay = pointer<const float>(decay);
               args.frequency = pointer<const float>(frequency);
               args.initial_state = pointer<const float>(initial_state);
               args.states = pointer<float>(states);
               args.final_state = pointer<float>(final_state);
               const Queue on = queue_from(queue);
               const py::gil_scoped_release unlocked;
               SEM_BACKEND::scan_forward(args, on);
             });
  module.def("scan_backward",
             [](const py::tuple& queue, const py::function& allocate, const py::tuple& shape, Address x, Address dt_mag,
                Address dt_phase, Address decay, Address frequency, Address initial_state, Address states,
                Address grad_states, Address grad_final, Address grad_x, Address grad_dt_mag, Address grad_dt_phase,
                Address grad_decay, Address grad_frequency, Address grad_initial) {
               ScanBackward<float> args;
               args.shape = scan_shape_from(shape);
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
               float* const workspace = allocated(allocate, device::floats(args));
               const Queue on = queue_from(queue);
               const py::gil_scoped_release unlocked;
               SEM_BACKEND::scan_backward(args, workspace, on);
             });
}

inline void bind_device_diffraction(py::module_& module) {
  module.def("diffraction_forward",
             [](const py::tuple& queue, const py::function& allocate, const Whole& whole, const Numbers& numbers,
                const Whole& sizes, const Addresses& tensors, Address out) {
               const DiffractionForward<float> args{diffraction_inputs_from<float>(whole, numbers, sizes, tensors),
                                                    pointer<float>(out)};
               const Queue on = queue_from(queue);
               float* const workspace = allocated(allocate, device::floats(args, SEM_BACKEND::limits(on)));
               const py::gil_scoped_release unlocked;
               SEM_BACKEND::diffraction_forward(args, workspace, on);
             });
  module.def("diffraction_backward", [](const py::tuple& queue, const py::function& allocate, const Whole& whole,
                                        const Numbers& numbers, const Whole& sizes, const Addresses& tensors,
                                        Address grad_out, const Addresses& gradients, bool geometry) {
    const DiffractionBackward<float> args = diffraction_backward_from(
        diffraction_inputs_from<float>(whole, numbers, sizes, tensors), grad_out, gradients, geometry);
    const Queue on = queue_from(queue);
    float* const workspace = allocated(allocate, device::floats(args, SEM_BACKEND::limits(on)));
    const py::gil_scoped_release unlocked;
    SEM_BACKEND::diffraction_backward(args, workspace, on);
  });
}

inline void bind_device_operators(py::module_& module) {
  bind_device_laplacian(module);
  bind_device_cayley(module);
  bind_device_laplacian_cg(module);
  bind_device_pit(module);
  bind_device_soliton_step(module);
  bind_device_scan(module);
  bind_device_diffraction(module);
}

}  // namespace sem::bindings
