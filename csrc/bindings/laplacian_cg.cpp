#include "sem/laplacian_cg.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_laplacian_cg(py::module_& module) {
  module.def("laplacian_cg_forward",
             [](const py::tuple& graph, std::int64_t rows, int components, Address edge_weight, float alpha, float beta,
                float gamma, float tol, std::int32_t max_iter, Address b, Address x, Address status, Address iterations,
                Address residual, int threads) {
               LaplacianCgForward<float> args;
               args.graph = graph_from(graph);
               args.rows = rows;
               args.components = components;
               args.edge_weight = pointer<const float>(edge_weight);
               args.system = {alpha, beta, gamma};
               args.tol = tol;
               args.max_iter = max_iter;
               args.b = pointer<const float>(b);
               args.x = pointer<float>(x);
               args.report = report_from(status, iterations, residual);
               const py::gil_scoped_release unlocked;
               cpu::laplacian_cg_forward(args, Queue{nullptr, threads});
             });
  module.def("laplacian_cg_backward",
             [](const py::tuple& graph, std::int64_t rows, int components, Address edge_weight, float alpha, float beta,
                float gamma, float tol, std::int32_t max_iter, Address x, Address grad_out, Address grad_b,
                Address grad_weight, Address status, int threads) {
               LaplacianCgBackward<float> args;
               args.graph = graph_from(graph);
               args.rows = rows;
               args.components = components;
               args.edge_weight = pointer<const float>(edge_weight);
               args.system = {alpha, beta, gamma};
               args.tol = tol;
               args.max_iter = max_iter;
               args.x = pointer<const float>(x);
               args.grad_out = pointer<const float>(grad_out);
               args.grad_b = pointer<float>(grad_b);
               args.grad_weight = pointer<float>(grad_weight);
               args.report.status = pointer<std::int32_t>(status);
               const py::gil_scoped_release unlocked;
               cpu::laplacian_cg_backward(args, Queue{nullptr, threads});
             });
}

}  // namespace sem::bindings
