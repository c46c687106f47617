// The functions of backend.hpp through the entry points of a device back end. Included once, by the file that defines,
// in sem::backend,
//
//   class Device {                                    one operator's work
//     const T* in(const T* host, std::int64_t count);   the array where kernels can read it
//     T* out(T* host, std::int64_t count);              where they can write it; the host sees it after finish()
//     float* workspace(std::int64_t floats);
//     Queue queue();
//     void finish();
//   };
#pragma once

#include "device/entry.hpp"
#include "device/operators.hpp"
#include "tests/backend.hpp"

namespace sem::backend {

namespace entry = SEM_BACKEND;

inline Graph staged(Device& device, Graph graph) {
  graph.edge_i = device.in(graph.edge_i, graph.edges);
  graph.edge_j = device.in(graph.edge_j, graph.edges);
  graph.row_start = device.in(graph.row_start, graph.nodes + 1);
  graph.neighbour = device.in(graph.neighbour, 2 * graph.edges);
  graph.incident = device.in(graph.incident, 2 * graph.edges);
  return graph;
}

inline SolveReport<float> staged(Device& device, const SolveReport<float>& report, std::int64_t rows) {
  return {device.out(report.status, rows), device.out(report.iterations, rows), device.out(report.residual, rows)};
}

void laplacian_forward(const LaplacianForward<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * args.components;
  LaplacianForward<float> task = args;
  task.graph = staged(device, args.graph);
  task.edge_weight = device.in(args.edge_weight, args.graph.edges);
  task.x = device.in(args.x, size);
  task.out = device.out(args.out, size);
  entry::laplacian_forward(task, device.queue());
  device.finish();
}

void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * args.components;
  LaplacianWeightGradient<float> task = args;
  task.graph = staged(device, args.graph);
  task.x = device.in(args.x, size);
  task.grad_out = device.in(args.grad_out, size);
  task.grad_weight = device.out(args.grad_weight, args.graph.edges);
  entry::laplacian_weight_gradient(task, device.workspace(device::floats(task)), device.queue());
  device.finish();
}

template <class Args>
device::CayleyTask cayley_task(Device& device, const Args& args) {
  device::CayleyTask task;
  task.graph = staged(device, args.graph);
  task.rows = args.rows;
  task.edge_weight = device.in(args.edge_weight, args.graph.edges);
  task.half_dt = device.in(&args.half_dt, 1);
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.report = staged(device, args.report, args.rows);
  return task;
}

inline void run(Device& device, device::CayleyTask& task) {
  task.workspace = device.workspace(device::floats(task, entry::limits(device.queue())));
  entry::cayley(task, device.queue());
  device.finish();
}

void cayley_forward(const CayleyForward<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * 2;
  device::CayleyTask task = cayley_task(device, args);
  task.input = device.in(args.psi, size);
  task.output = device.out(args.psi_out, size);
  run(device, task);
}

void cayley_backward(const CayleyBackward<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * 2;
  device::CayleyTask task = cayley_task(device, args);
  task.adjoint = true;
  task.input = device.in(args.grad_out, size);
  task.output = device.out(args.grad_psi, size);
  task.psi = device.in(args.psi, size);
  task.psi_out = device.in(args.psi_out, size);
  task.grad_weight = device.out(args.grad_weight, args.graph.edges);
  task.grad_half_dt = device.out(args.grad_half_dt, 1);
  run(device, task);
}

template <class Args>
device::LaplacianCgTask laplacian_cg_task(Device& device, const Args& args) {
  device::LaplacianCgTask task;
  task.graph = staged(device, args.graph);
  task.rows = args.rows;
  task.components = args.components;
  task.edge_weight = device.in(args.edge_weight, args.graph.edges);
  task.system = args.system;
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.report = staged(device, args.report, args.rows);
  return task;
}

inline void run(Device& device, device::LaplacianCgTask& task) {
  task.workspace = device.workspace(device::floats(task, entry::limits(device.queue())));
  entry::laplacian_cg(task, device.queue());
  device.finish();
}

void laplacian_cg_forward(const LaplacianCgForward<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * args.components;
  device::LaplacianCgTask task = laplacian_cg_task(device, args);
  task.input = device.in(args.b, size);
  task.output = device.out(args.x, size);
  run(device, task);
}

void laplacian_cg_backward(const LaplacianCgBackward<float>& args, Queue) {
  Device device;
  const std::int64_t size = args.rows * args.graph.nodes * args.components;
  device::LaplacianCgTask task = laplacian_cg_task(device, args);
  task.input = device.in(args.grad_out, size);
  task.output = device.out(args.grad_b, size);
  task.x = device.in(args.x, size);
  task.grad_weight = device.out(args.grad_weight, args.graph.edges);
  run(device, task);
}

inline PitForward<float> staged(Device& device, const PitForward<float>& args) {
  PitForward<float> task = args;
  task.psi = device.in(args.psi, 2 * args.rows * args.width);
  task.reference_rms = device.in(args.reference_rms, args.rows);
  task.strength = device.in(args.strength, 1);
  task.kerr = device.in(args.kerr, args.width);
  task.out = device.out(args.out, 2 * args.rows * args.width);
  return task;
}

void pit_forward(const PitForward<float>& args, Queue) {
  Device device;
  const PitForward<float> task = staged(device, args);
  entry::pit_forward(task, device.workspace(device::floats(task)), device.queue());
  device.finish();
}

void pit_backward(const PitBackward<float>& args, Queue) {
  Device device;
  PitBackward<float> task = args;
  task.psi = device.in(args.psi, 2 * args.rows * args.width);
  task.reference_rms = device.in(args.reference_rms, args.rows);
  task.strength = device.in(args.strength, 1);
  task.kerr = device.in(args.kerr, args.width);
  task.grad_out = device.in(args.grad_out, 2 * args.rows * args.width);
  task.grad_psi = device.out(args.grad_psi, 2 * args.rows * args.width);
  task.grad_reference = device.out(args.grad_reference, args.rows);
  task.grad_strength = device.out(args.grad_strength, 1);
  task.grad_kerr = device.out(args.grad_kerr, args.width);
  entry::pit_backward(task, device.workspace(device::floats(task, entry::limits(device.queue()))), device.queue());
  device.finish();
}

inline void run(Device& device, device::SolitonTask& task) {
  task.workspace = device.workspace(device::floats(task, entry::limits(device.queue())));
  entry::soliton_step(task, device.queue());
  device.finish();
}

void soliton_forward(const PitForward<float>& turn, const CayleyForward<float>& step) {
  Device device;
  device::SolitonTask task;
  task.turn = staged(device, turn);
  task.cayley = cayley_task(device, step);
  task.cayley.input = task.turn.out;
  task.cayley.output = device.out(step.psi_out, 2 * turn.rows * turn.width);
  run(device, task);
}

void soliton_backward(const PitForward<float>& turn, const CayleyBackward<float>& step, const PitBackward<float>& pit) {
  Device device;
  const std::int64_t size = 2 * turn.rows * turn.width;
  device::SolitonTask task;
  task.backward = true;
  task.turn = staged(device, turn);
  task.cayley = cayley_task(device, step);
  task.cayley.adjoint = true;
  task.cayley.input = device.in(step.grad_out, size);
  task.cayley.output = device.out(step.grad_psi, size);
  task.cayley.psi = task.turn.out;
  task.cayley.psi_out = device.in(step.psi_out, size);
  task.cayley.grad_weight = device.out(step.grad_weight, step.graph.edges);
  task.cayley.grad_half_dt = device.out(step.grad_half_dt, 1);
  task.pit = pit;
  task.pit.psi = task.turn.psi;
  task.pit.strength = task.turn.strength;
  task.pit.kerr = task.turn.kerr;
  task.pit.grad_out = task.cayley.output;
  task.pit.grad_psi = device.out(pit.grad_psi, size);
  task.pit.grad_strength = device.out(pit.grad_strength, 1);
  task.pit.grad_kerr = device.out(pit.grad_kerr, turn.width);
  run(device, task);
}

void scan_forward(const ScanForward<float>& args, Queue) {
  Device device;
  const auto [batch, steps, channels, groups] = args.shape;
  ScanForward<float> task = args;
  task.x = device.in(args.x, 2 * batch * steps * channels);
  task.dt_mag = device.in(args.dt_mag, batch * steps * groups);
  task.dt_phase = device.in(args.dt_phase, batch * steps * groups);
  task.decay = device.in(args.decay, channels);
  task.frequency = device.in(args.frequency, channels);
  task.initial_state = device.in(args.initial_state, 2 * batch * channels);
  task.states = device.out(args.states, 2 * batch * steps * channels);
  task.final_state = device.out(args.final_state, 2 * batch * channels);
  entry::scan_forward(task, device.queue());
  device.finish();
}

void scan_backward(const ScanBackward<float>& args, Queue) {
  Device device;
  const auto [batch, steps, channels, groups] = args.shape;
  ScanBackward<float> task = args;
  task.x = device.in(args.x, 2 * batch * steps * channels);
  task.dt_mag = device.in(args.dt_mag, batch * steps * groups);
  task.dt_phase = device.in(args.dt_phase, batch * steps * groups);
  task.decay = device.in(args.decay, channels);
  task.frequency = device.in(args.frequency, channels);
  task.initial_state = device.in(args.initial_state, 2 * batch * channels);
  task.states = device.in(args.states, 2 * batch * steps * channels);
  task.grad_states = device.in(args.grad_states, 2 * batch * steps * channels);
  task.grad_final = device.in(args.grad_final, 2 * batch * channels);
  task.grad_x = device.out(args.grad_x, 2 * batch * steps * channels);
  task.grad_dt_mag = device.out(args.grad_dt_mag, batch * steps * groups);
  task.grad_dt_phase = device.out(args.grad_dt_phase, batch * steps * groups);
  task.grad_decay = device.out(args.grad_decay, channels);
  task.grad_frequency = device.out(args.grad_frequency, channels);
  task.grad_initial = device.out(args.grad_initial, 2 * batch * channels);
  entry::scan_backward(task, device.workspace(device::floats(task)), device.queue());
  device.finish();
}

inline DiffractionInputs<float> staged(Device& device, const DiffractionInputs<float>& in) {
  const DiffractionSettings& set = in.settings;
  DiffractionInputs<float> task = in;
  task.frame = device.in(in.frame, 12);
  task.close_distance = device.in(in.close_distance, 1);
  task.curvature = device.in(in.curvature, 4);
  task.incident = device.in(in.incident, 3 * in.sources);
  task.wavelength = device.in(in.wavelength, in.sources);
  task.weight = device.in(in.weight, in.sources);
  task.orientation = device.in(in.orientation, 9 * in.positions * in.mosaics);
  task.reciprocal_metric = device.in(in.reciprocal_metric, 9);
  task.cells = device.in(in.cells, 3);
  task.fudge = device.in(in.fudge, 1);
  task.default_factor = device.in(in.default_factor, 1);
  task.table = device.in(in.table, in.table_shape[0] * in.table_shape[1] * in.table_shape[2]);
  task.kahn = device.in(in.kahn, 1);
  task.polarisation_axis = device.in(in.polarisation_axis, 3);
  task.scale = device.in(in.scale, 1);
  task.background = device.in(in.background, 1);
  task.mask = device.in(in.mask, std::int64_t{set.slow_pixels} * set.fast_pixels);
  return task;
}

void diffraction_forward(const DiffractionForward<float>& args, Queue) {
  Device device;
  const DiffractionSettings& set = args.in.settings;
  DiffractionForward<float> task;
  task.in = staged(device, args.in);
  task.out = device.out(args.out, std::int64_t{set.slow_pixels} * set.fast_pixels);
  const std::int64_t floats = device::floats(task, entry::limits(device.queue()));
  entry::diffraction_forward(task, device.workspace(floats), device.queue());
  device.finish();
}

void diffraction_backward(const DiffractionBackward<float>& args, Queue) {
  Device device;
  const DiffractionInputs<float>& in = args.in;
  DiffractionBackward<float> task = args;
  task.in = staged(device, in);
  task.grad_out = device.in(args.grad_out, std::int64_t{in.settings.slow_pixels} * in.settings.fast_pixels);
  task.frame = device.out(args.frame, 12);
  task.close_distance = device.out(args.close_distance, 1);
  task.curvature = device.out(args.curvature, 4);
  task.incident = device.out(args.incident, 3 * in.sources);
  task.wavelength = device.out(args.wavelength, in.sources);
  task.weight = device.out(args.weight, in.sources);
  task.orientation = device.out(args.orientation, 9 * in.positions * in.mosaics);
  task.reciprocal_metric = device.out(args.reciprocal_metric, 9);
  task.cells = device.out(args.cells, 3);
  task.fudge = device.out(args.fudge, 1);
  task.default_factor = device.out(args.default_factor, 1);
  task.table = device.out(args.table, in.table_shape[0] * in.table_shape[1] * in.table_shape[2]);
  task.kahn = device.out(args.kahn, 1);
  task.polarisation_axis = device.out(args.polarisation_axis, 3);
  task.scale = device.out(args.scale, 1);
  task.background = device.out(args.background, 1);
  const std::int64_t floats = device::floats(task, entry::limits(device.queue()));
  entry::diffraction_backward(task, device.workspace(floats), device.queue());
  device.finish();
}

}  // namespace sem::backend
