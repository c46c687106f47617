#include "sem/laplacian.hpp"

#include "bindings/bindings.hpp"

namespace sem::bindings {

void bind_laplacian(py::module_& module) {
  module.def("laplacian_forward", [](const py::tuple& graph, std::int64_t rows, int components, Address edge_weight,
                                     Address x, Address out, int threads) {
    LaplacianForward<float> args;
    args.graph = graph_from(graph);
    args.rows = rows;
    args.components = components;
    args.edge_weight = pointer<const float>(edge_weight);
    args.x = pointer<const float>(x);
    args.out = pointer<float>(out);
    const py::gil_scoped_release unlocked;
    cpu::laplacian_forward(args, Queue{nullptr, threads});
  });
  module.def("laplacian_weight_gradient", [](const py::tuple& graph, std::int64_t rows, int components, Address x,
                                             Address grad_out, Address grad_weight, int threads) {
    LaplacianWeightGradient<float> args;
    args.graph = graph_from(graph);
    args.rows = rows;
    args.components = components;
    args.x = pointer<const float>(x);
    args.grad_out = pointer<const float>(grad_out);
    args.grad_weight = pointer<float>(grad_weight);
    const py::gil_scoped_release unlocked;
    cpu::laplacian_weight_gradient(args, Queue{nullptr, threads});
  });
}

}  // namespace sem::bindings
