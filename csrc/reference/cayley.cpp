#include "sem/cayley.hpp"

#include <limits>

#include "reference/cg.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

// (I + i a H) psi in real blocks
template <class Real>
std::vector<Real> shifted(const RowSolver<Real>& solver, const std::vector<Real>& psi, Real a) {
  const std::vector<Real> h = solver.laplacian(psi);
  std::vector<Real> out(psi.size());
  for (std::size_t n = 0; n < psi.size(); n += 2) {
    out[n] = psi[n] - a * h[n + 1];
    out[n + 1] = psi[n + 1] + a * h[n];
  }
  return out;
}

template <class Real>
std::vector<Real> step_row(const RowSolver<Real>& solver, const std::vector<Real>& psi, Real a, Real tol,
                           std::int32_t max_iter, const SolveReport<Real>& report, std::int64_t row) {
  const Real norm = std::sqrt(dot(psi, psi));
  if (!std::isfinite(norm)) {
    const Real nan = std::numeric_limits<Real>::quiet_NaN();
    write_report(report, row, Status::nonfinite, 0, nan);
    return std::vector<Real>(psi.size(), nan);
  }
  const auto true_residual = [&](const std::vector<Real>& y) {
    std::vector<Real> e = shifted(solver, y, a);
    for (std::size_t n = 0; n < e.size(); ++n) e[n] = psi[n] - e[n];
    return std::sqrt(dot(e, e));
  };
  Status status;
  std::int32_t iterations;
  Real reached;
  std::vector<Real> out =
      solver.solve(shifted(solver, psi, -a), tol * norm, max_iter, true_residual, status, iterations, reached);
  write_report(report, row, status, iterations, norm == 0 ? Real(0) : reached / norm);
  for (std::size_t n = 0; n < out.size(); ++n) out[n] = 2 * out[n] - psi[n];
  const Real out_norm = std::sqrt(dot(out, out));
  if (status == Status::converged && out_norm > 0)
    for (Real& value : out) value *= norm / out_norm;
  return out;
}

}  // namespace

template <class Real>
void cayley_forward(const CayleyForward<Real>& args) {
  const std::int64_t size = args.graph.nodes * 2;
  const Real a = *args.settings.half_dt;
  const RowSolver<Real> solver(args.graph, args.edge_weight, 2, {1, 0, a * a});
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::vector<Real> psi(args.psi + row * size, args.psi + (row + 1) * size);
    const std::vector<Real> out = step_row(solver, psi, a, args.settings.tol, args.settings.max_iter, args.report, row);
    for (std::int64_t n = 0; n < size; ++n) args.psi_out[row * size + n] = out[n];
  }
}

template <class Real>
void cayley_backward(const CayleyBackward<Real>& args) {
  const std::int64_t size = args.graph.nodes * 2, edges = args.graph.edges;
  const Real a = *args.settings.half_dt;
  const RowSolver<Real> solver(args.graph, args.edge_weight, 2, {1, 0, a * a});
  std::vector<Real> current(static_cast<std::size_t>(edges), 0);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::vector<Real> g(args.grad_out + row * size, args.grad_out + (row + 1) * size);
    const std::vector<Real> g_psi =
        step_row(solver, g, -a, args.settings.tol, args.settings.max_iter, args.report, row);
    std::vector<Real> z(g.size()), y(g.size());
    for (std::int64_t n = 0; n < size; ++n) {
      args.grad_psi[row * size + n] = g_psi[n];
      z[n] = (g_psi[n] + g[n]) / 2;
      y[n] = (args.psi_out[row * size + n] + args.psi[row * size + n]) / 2;
    }
    for (std::int64_t e = 0; e < edges; ++e) {
      const std::int64_t i = args.graph.edge_i[e] * 2, j = args.graph.edge_j[e] * 2;
      current[e] += (z[i] - z[j]) * (y[i + 1] - y[j + 1]) - (z[i + 1] - z[j + 1]) * (y[i] - y[j]);
    }
  }
  if (!args.to_weights) return;
  *args.grad_half_dt = 0;
  for (std::int64_t e = 0; e < edges; ++e) {
    args.grad_weight[e] = 2 * a * current[e];
    *args.grad_half_dt += 2 * args.edge_weight[e] * current[e];
  }
}

SEM_REFERENCE(CayleyForward, cayley_forward)
SEM_REFERENCE(CayleyBackward, cayley_backward)

}  // namespace sem::reference
