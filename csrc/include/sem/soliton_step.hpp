// soliton_step: a propagator layer's step, psi_out = cayley(pit(psi)), and its exact gradients.
//
// The wave between the two, pit's output with the row's own RMS, is not kept: the backward computes it again. Formulas
// are those of pit.hpp and cayley.hpp.
#pragma once

#include "sem/cayley.hpp"
#include "sem/pit.hpp"

namespace sem {

template <class Real>
struct SolitonStepForward {
  static constexpr const char* kName = "soliton_step_forward";

  Graph graph;
  std::int64_t rows = 0;
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;          // [rows, nodes, 2]
  const Real* kerr = nullptr;         // [nodes]
  const Real* strength = nullptr;     // [1]
  const Real* edge_weight = nullptr;  // [edges]
  CayleySettings<Real> settings;
  Real* psi_out = nullptr;  // [rows, nodes, 2]
  SolveReport<Real> report;

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("num_bins", num_bins);
    field("rule", rule);
    field("psi", psi, rows * graph.nodes * 2);
    field("kerr", kerr, graph.nodes);
    field("strength", strength, 1);
    field("edge_weight", edge_weight, graph.edges, Values::nonnegative);
    settings.visit(field);
    field("psi_out", psi_out, rows * graph.nodes * 2);
    report.visit(field, rows);
  }

  // Its two parts; `turned` [rows, nodes, 2] lies between them.
  PitForward<Real> turn(Real* turned) const {
    return {.rows = rows,
            .width = graph.nodes,
            .num_bins = num_bins,
            .rule = rule,
            .psi = psi,
            .strength = strength,
            .out = turned,
            .kerr = kerr};
  }
  CayleyForward<Real> step(const Real* turned) const {
    return {graph, rows, edge_weight, settings, turned, psi_out, report};
  }
};

// Not to_weights: nobody needs grad_weight and grad_half_dt, which are not touched.
template <class Real>
struct SolitonStepBackward {
  static constexpr const char* kName = "soliton_step_backward";

  Graph graph;
  std::int64_t rows = 0;
  std::int32_t num_bins = 0;
  PitRule rule = PitRule::score;
  const Real* psi = nullptr;          // [rows, nodes, 2]
  const Real* kerr = nullptr;         // [nodes]
  const Real* strength = nullptr;     // [1]
  const Real* edge_weight = nullptr;  // [edges]
  CayleySettings<Real> settings;
  const Real* psi_out = nullptr;   // [rows, nodes, 2]
  const Real* grad_out = nullptr;  // [rows, nodes, 2]
  Real* grad_psi = nullptr;        // [rows, nodes, 2]
  Real* grad_kerr = nullptr;       // [nodes]
  Real* grad_strength = nullptr;   // [1]
  Real* grad_weight = nullptr;     // [edges]
  Real* grad_half_dt = nullptr;    // [1]
  SolveReport<Real> report;        // of the adjoint solve
  bool to_weights = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("graph", graph);
    field("rows", rows);
    field("num_bins", num_bins);
    field("rule", rule);
    field("psi", psi, rows * graph.nodes * 2);
    field("kerr", kerr, graph.nodes);
    field("strength", strength, 1);
    field("edge_weight", edge_weight, graph.edges);
    settings.visit(field);
    field("psi_out", psi_out, rows * graph.nodes * 2);
    field("grad_out", grad_out, rows * graph.nodes * 2);
    field("grad_psi", grad_psi, rows * graph.nodes * 2);
    field("grad_kerr", grad_kerr, graph.nodes);
    field("grad_strength", grad_strength, 1);
    field("grad_weight", grad_weight, graph.edges);
    field("grad_half_dt", grad_half_dt, 1);
    field("to_weights", to_weights);
    report.visit(field, rows);
  }

  // Its three parts; `turned` and `grad_turned`, both [rows, nodes, 2], lie between them.
  PitForward<Real> turn(Real* turned) const {
    return {.rows = rows,
            .width = graph.nodes,
            .num_bins = num_bins,
            .rule = rule,
            .psi = psi,
            .strength = strength,
            .out = turned,
            .kerr = kerr};
  }
  CayleyBackward<Real> step(const Real* turned, Real* grad_turned) const {
    return {graph,    rows,        edge_weight, settings,     turned, psi_out,
            grad_out, grad_turned, grad_weight, grad_half_dt, report, to_weights};
  }
  PitBackward<Real> turn_back(const Real* grad_turned) const {
    return {.rows = rows,
            .width = graph.nodes,
            .num_bins = num_bins,
            .rule = rule,
            .psi = psi,
            .strength = strength,
            .grad_out = grad_turned,
            .grad_psi = grad_psi,
            .grad_strength = grad_strength,
            .kerr = kerr,
            .grad_kerr = grad_kerr};
  }
};

}  // namespace sem
