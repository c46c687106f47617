#include "sem/laplacian_cg.hpp"

#include <limits>

#include "reference/cg.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
std::vector<Real> solve_row(const RowSolver<Real>& solver, const std::vector<Real>& b, Real tol, std::int32_t max_iter,
                            const SolveReport<Real>& report, std::int64_t row) {
  const Real norm = std::sqrt(dot(b, b));
  if (!std::isfinite(norm)) {
    const Real nan = std::numeric_limits<Real>::quiet_NaN();
    write_report(report, row, Status::nonfinite, 0, nan);
    return std::vector<Real>(b.size(), nan);
  }
  const auto true_residual = [&](const std::vector<Real>& x) {
    std::vector<Real> e = solver.apply(x);
    for (std::size_t n = 0; n < e.size(); ++n) e[n] = b[n] - e[n];
    return std::sqrt(dot(e, e));
  };
  Status status;
  std::int32_t iterations;
  Real reached;
  std::vector<Real> x = solver.solve(b, tol * norm, max_iter, true_residual, status, iterations, reached);
  write_report(report, row, status, iterations, norm == 0 ? Real(0) : reached / norm);
  return x;
}

}  // namespace

template <class Real>
void laplacian_cg_forward(const LaplacianCgForward<Real>& args) {
  const std::int64_t size = args.graph.nodes * args.components;
  const RowSolver<Real> solver(args.graph, args.edge_weight, args.components, args.system);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::vector<Real> b(args.b + row * size, args.b + (row + 1) * size);
    const std::vector<Real> x = solve_row(solver, b, args.tol, args.max_iter, args.report, row);
    for (std::int64_t n = 0; n < size; ++n) args.x[row * size + n] = x[n];
  }
}

template <class Real>
void laplacian_cg_backward(const LaplacianCgBackward<Real>& args) {
  const int components = args.components;
  const std::int64_t size = args.graph.nodes * components;
  const RowSolver<Real> solver(args.graph, args.edge_weight, components, args.system);
  if (args.to_weights)
    for (std::int64_t e = 0; e < args.graph.edges; ++e) args.grad_weight[e] = 0;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::vector<Real> g(args.grad_out + row * size, args.grad_out + (row + 1) * size);
    const std::vector<Real> l = solve_row(solver, g, args.tol, args.max_iter, args.report, row);
    for (std::int64_t n = 0; n < size; ++n) args.grad_b[row * size + n] = l[n];
    if (!args.to_weights) continue;
    const std::vector<Real> x(args.x + row * size, args.x + (row + 1) * size);
    const std::vector<Real> hx = solver.laplacian(x), hl = solver.laplacian(l);
    for (std::int64_t e = 0; e < args.graph.edges; ++e) {
      const std::int64_t i = args.graph.edge_i[e] * components, j = args.graph.edge_j[e] * components;
      for (int c = 0; c < components; ++c) {
        const auto across = [&](const std::vector<Real>& u) { return u[i + c] - u[j + c]; };
        args.grad_weight[e] -= args.system.beta * across(l) * across(x) +
                               args.system.gamma * (across(l) * across(hx) + across(hl) * across(x));
      }
    }
  }
}

SEM_REFERENCE(LaplacianCgForward, laplacian_cg_forward)
SEM_REFERENCE(LaplacianCgBackward, laplacian_cg_backward)

}  // namespace sem::reference
