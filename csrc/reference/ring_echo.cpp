#include "sem/ring_echo.hpp"

#include <algorithm>
#include <vector>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
using Wave = std::vector<std::complex<Real>>;

template <class Real>
Wave<Real> row_of(const Real* array, std::int64_t row, std::int64_t width) {
  Wave<Real> out(static_cast<std::size_t>(width));
  for (std::int64_t d = 0; d < width; ++d) out[d] = read(array, row * width + d);
  return out;
}

template <class Real>
std::int64_t behind(const Wave<Real>& x, std::int64_t j) {
  return j + 1 == static_cast<std::int64_t>(x.size()) ? 0 : j + 1;
}

// U x for the step a: A dense, by Gaussian elimination.
template <class Real>
Wave<Real> moved(const Wave<Real>& x, const Real* edge_weight, Real a) {
  const std::size_t width = x.size();
  std::vector<Wave<Real>> matrix(width, Wave<Real>(width));
  for (std::size_t j = 0; j < width; ++j) matrix[j][j] = 1;
  for (std::size_t j = 0; j < width; ++j) {
    const std::size_t next = static_cast<std::size_t>(behind(x, static_cast<std::int64_t>(j)));
    const std::complex<Real> flow(0, a * edge_weight[j]);
    matrix[j][j] += flow;
    matrix[next][next] += flow;
    matrix[j][next] -= flow;
    matrix[next][j] -= flow;
  }
  Wave<Real> y = x;
  for (std::size_t j = 0; j < width; ++j)  // the real part is definite: no pivoting
    for (std::size_t k = j + 1; k < width; ++k) {
      const std::complex<Real> share = matrix[k][j] / matrix[j][j];
      if (share == std::complex<Real>()) continue;
      for (std::size_t l = j; l < width; ++l) matrix[k][l] -= share * matrix[j][l];
      y[k] -= share * y[j];
    }
  for (std::size_t j = width; j-- > 0;) {
    for (std::size_t l = j + 1; l < width; ++l) y[j] -= matrix[j][l] * y[l];
    y[j] /= matrix[j][j];
  }
  for (std::size_t j = 0; j < width; ++j) y[j] = Real(2) * y[j] - x[j];
  return y;
}

// A row between the two steps.
template <class Real>
struct Between {
  Real mean, held;
  Wave<Real> u, turned;
  std::vector<Real> intensity;

  Between(const Wave<Real>& psi, const Real* potential, const Real* kerr, const Real* edge_weight, Real a)
      : u(moved(psi, edge_weight, a)), turned(u), intensity(psi.size()) {
    Real sum = 0;
    for (const std::complex<Real>& z : psi) sum += std::norm(z);
    mean = sum / static_cast<Real>(psi.size());
    const Real least = static_cast<Real>(kLeastMeanIntensity);
    held = mean < least ? least : mean;
    for (std::size_t d = 0; d < psi.size(); ++d) {
      intensity[d] = std::norm(u[d]) / held;
      turned[d] *= std::polar(Real(1), potential[d] + kerr[d] * intensity[d]);
    }
  }
};

}  // namespace

template <class Real>
void ring_echo_forward(const RingEchoForward<Real>& args) {
  const Real a = *args.half_dt;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const Between<Real> between(row_of(args.psi, row, args.width), args.potential + at, args.kerr, args.edge_weight, a);
    const Wave<Real> out = moved(between.turned, args.edge_weight, -a);
    for (std::int64_t d = 0; d < args.width; ++d) write(args.out, at + d, out[d]);
  }
}

template <class Real>
void ring_echo_backward(const RingEchoBackward<Real>& args) {
  const Real a = *args.half_dt;
  std::fill_n(args.grad_kerr, args.width, Real(0));
  std::vector<Real> current(static_cast<std::size_t>(args.width), 0);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const std::int64_t at = row * args.width;
    const Wave<Real> psi = row_of(args.psi, row, args.width), out = row_of(args.out, row, args.width);
    const Wave<Real> grad = row_of(args.grad_out, row, args.width), h = moved(grad, args.edge_weight, a);
    const Between<Real> between(psi, args.potential + at, args.kerr, args.edge_weight, a);
    Wave<Real> grad_u(psi.size());
    Real shared = 0;  // sum of t_e I_e
    for (std::int64_t d = 0; d < args.width; ++d) {
      const std::complex<Real> w = between.turned[d];
      const Real q = (std::conj(std::complex<Real>(0, 1) * w) * h[d]).real();
      const Real phase = args.potential[at + d] + args.kerr[d] * between.intensity[d];
      args.grad_potential[at + d] = q;
      args.grad_kerr[d] += q * between.intensity[d];
      shared += q * args.kerr[d] * between.intensity[d];
      grad_u[d] = std::polar(Real(1), -phase) * h[d];
    }
    const Real least = static_cast<Real>(kLeastMeanIntensity);
    const Real through_mean = between.mean < least ? Real(0) : shared / static_cast<Real>(args.width);
    for (std::int64_t d = 0; d < args.width; ++d)
      grad_u[d] += 2 / between.held * (args.grad_potential[at + d] * args.kerr[d] - through_mean) * between.u[d];
    const Wave<Real> grad_psi = moved(grad_u, args.edge_weight, -a);
    const auto flow = [](const Wave<Real>& z0, const Wave<Real>& z1, const Wave<Real>& y0, const Wave<Real>& y1,
                         std::int64_t j) {
      const std::int64_t k = behind(z0, j);
      const std::complex<Real> z = (z0[j] + z1[j]) - (z0[k] + z1[k]), y = (y0[j] + y1[j]) - (y0[k] + y1[k]);
      return (std::conj(z) * y).imag() / 4;
    };
    for (std::int64_t d = 0; d < args.width; ++d) {
      write(args.grad_psi, at + d, grad_psi[d]);
      current[d] += flow(grad_u, grad_psi, psi, between.u, d) - flow(grad, h, between.turned, out, d);
    }
  }
  *args.grad_half_dt = 0;
  for (std::int64_t j = 0; j < args.width; ++j) {
    args.grad_edge_weight[j] = 2 * a * current[j];
    *args.grad_half_dt += 2 * args.edge_weight[j] * current[j];
  }
}

SEM_REFERENCE(RingEchoForward, ring_echo_forward)
SEM_REFERENCE(RingEchoBackward, ring_echo_backward)

}  // namespace sem::reference
