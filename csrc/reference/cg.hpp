// Textbook conjugate gradients for one row of S x = b, S = alpha I + beta H + gamma H^2: no preconditioner, true
// residual recomputed in every iteration. Slow and plain on purpose.
#pragma once

#include <cmath>
#include <vector>

#include "reference/graph.hpp"
#include "sem/laplacian_cg.hpp"

namespace sem::reference {

template <class Real>
Real dot(const std::vector<Real>& a, const std::vector<Real>& b) {
  Real sum = 0;
  for (std::size_t n = 0; n < a.size(); ++n) sum += a[n] * b[n];
  return sum;
}

template <class Real>
class RowSolver {
 public:
  RowSolver(const Graph& graph, const Real* edge_weight, int components, const ShiftedLaplacian<Real>& system)
      : graph_(graph), edge_weight_(edge_weight), components_(components), system_(system) {}

  std::vector<Real> laplacian(const std::vector<Real>& x) const {
    std::vector<Real> out(x.size());
    apply_laplacian(graph_, edge_weight_, components_, x.data(), out.data());
    return out;
  }

  std::vector<Real> apply(const std::vector<Real>& x) const {
    const std::vector<Real> hx = laplacian(x), hhx = laplacian(hx);
    std::vector<Real> out(x.size());
    for (std::size_t n = 0; n < x.size(); ++n)
      out[n] = system_.alpha * x[n] + system_.beta * hx[n] + system_.gamma * hhx[n];
    return out;
  }

  // `residual(x)` is the norm that must fall to `goal`.
  template <class Residual>
  std::vector<Real> solve(const std::vector<Real>& b, Real goal, std::int32_t max_iter, const Residual& residual,
                          Status& status, std::int32_t& iterations, Real& reached) const {
    std::vector<Real> x(b.size(), 0), r = b, p = b;
    Real rr = dot(r, r);
    iterations = 0;
    reached = residual(x);
    while (reached > goal && iterations < max_iter) {
      const std::vector<Real> sp = apply(p);
      const Real step = rr / dot(p, sp);
      for (std::size_t n = 0; n < x.size(); ++n) {
        x[n] += step * p[n];
        r[n] -= step * sp[n];
      }
      const Real next = dot(r, r);
      for (std::size_t n = 0; n < x.size(); ++n) p[n] = r[n] + next / rr * p[n];
      rr = next;
      ++iterations;
      reached = residual(x);
    }
    status = reached <= goal ? Status::converged : std::isfinite(reached) ? Status::max_iter : Status::nonfinite;
    return x;
  }

 private:
  Graph graph_;
  const Real* edge_weight_;
  int components_;
  ShiftedLaplacian<Real> system_;
};

template <class Real>
void write_report(const SolveReport<Real>& report, std::int64_t row, Status status, std::int32_t iterations,
                  Real residual) {
  if (report.status != nullptr) report.status[row] = static_cast<std::int32_t>(status);
  if (report.iterations != nullptr) report.iterations[row] = iterations;
  if (report.residual != nullptr) report.residual[row] = residual;
}

}  // namespace sem::reference
