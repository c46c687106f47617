#include "sem/cayley.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_cayley(py::module_& module) {
  module.def("cayley_forward", [](const py::tuple& graph, std::int64_t rows, Address edge_weight, float half_dt,
                                  float tol, std::int32_t max_iter, Address psi, Address psi_out, Address status,
                                  Address iterations, Address residual, int threads) {
    CayleyForward<float> args;
    args.graph = graph_from(graph);
    args.rows = rows;
    args.edge_weight = pointer<const float>(edge_weight);
    args.half_dt = half_dt;
    args.tol = tol;
    args.max_iter = max_iter;
    args.psi = pointer<const float>(psi);
    args.psi_out = pointer<float>(psi_out);
    args.report = report_from(status, iterations, residual);
    const py::gil_scoped_release unlocked;
    cpu::cayley_forward(args, Queue{nullptr, threads});
  });
  module.def("cayley_backward",
             [](const py::tuple& graph, std::int64_t rows, Address edge_weight, float half_dt, float tol,
                std::int32_t max_iter, Address psi, Address psi_out, Address grad_out, Address grad_psi,
                Address grad_weight, Address grad_half_dt, Address status, int threads) {
               CayleyBackward<float> args;
               args.graph = graph_from(graph);
               args.rows = rows;
               args.edge_weight = pointer<const float>(edge_weight);
               args.half_dt = half_dt;
               args.tol = tol;
               args.max_iter = max_iter;
               args.psi = pointer<const float>(psi);
               args.psi_out = pointer<const float>(psi_out);
               args.grad_out = pointer<const float>(grad_out);
               args.grad_psi = pointer<float>(grad_psi);
               args.grad_weight = pointer<float>(grad_weight);
               args.grad_half_dt = pointer<float>(grad_half_dt);
               args.report.status = pointer<std::int32_t>(status);
               const py::gil_scoped_release unlocked;
               cpu::cayley_backward(args, Queue{nullptr, threads});
             });
}

}  // namespace sem::bindings
