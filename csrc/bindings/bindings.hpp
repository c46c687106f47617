// Conversions shared by the bindings. The module is private to sem.ops: addresses arrive as integers from tensors that
// sem/ops/boundary.py has checked for dtype, device, contiguity and shape.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "sem/types.hpp"

namespace sem::bindings {

namespace py = pybind11;
using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// (nodes, edges, edge_i, edge_j, row_start, neighbour, incident), as Topology.native() gives it.
inline Graph graph_from(const py::tuple& view) {
  Graph graph;
  graph.nodes = view[0].cast<std::int64_t>();
  graph.edges = view[1].cast<std::int64_t>();
  graph.edge_i = pointer<const std::int32_t>(view[2].cast<Address>());
  graph.edge_j = pointer<const std::int32_t>(view[3].cast<Address>());
  graph.row_start = pointer<const std::int32_t>(view[4].cast<Address>());
  graph.neighbour = pointer<const std::int32_t>(view[5].cast<Address>());
  graph.incident = pointer<const std::int32_t>(view[6].cast<Address>());
  return graph;
}

inline SolveReport<float> report_from(Address status, Address iterations, Address residual) {
  return {pointer<std::int32_t>(status), pointer<std::int32_t>(iterations), pointer<float>(residual)};
}

void bind_laplacian(py::module_& module);
void bind_cayley(py::module_& module);
void bind_laplacian_cg(py::module_& module);
void bind_pit(py::module_& module);
void bind_scan(py::module_& module);
void bind_rms_norm(py::module_& module);
void bind_gated_rotation(py::module_& module);
void bind_causal_conv(py::module_& module);
void bind_state_space(py::module_& module);
void bind_diffraction(py::module_& module);

}  // namespace sem::bindings
