#include "sem/causal_conv.hpp"

#include <algorithm>
#include <cmath>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

// Where x of a batch row and channel lies at position t, which may reach back into the history.
template <class Real>
struct Source {
  Real* array;
  std::int64_t index;

  Source(const ConvShape& shape, Real* x, Real* history, std::int64_t b, std::int64_t t, std::int64_t c)
      : array(t < 0 ? history : x),
        index(((t < 0 ? b * (shape.taps - 1) + shape.taps - 1 : b * shape.steps) + t) * shape.channels + c) {}
};

template <class Args>
auto convolved(const Args& args, std::int64_t b, std::int64_t t, std::int64_t c) {
  auto sum = read(args.bias, c);
  for (std::int64_t k = 0; k < args.shape.taps; ++k) {
    const Source from(args.shape, args.x, args.history, b, t + k - args.shape.taps + 1, c);
    sum += read(args.taps, k * args.shape.channels + c) * read(from.array, from.index);
  }
  return sum;
}

}  // namespace

template <class Real>
void causal_conv_forward(const CausalConvForward<Real>& args) {
  const auto [batch, steps, channels, taps] = args.shape;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t < steps; ++t)
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::complex<Real> v = convolved(args, b, t, c);
        const Real passed = args.theta == nullptr ? Real(1) : -std::expm1(-std::norm(v) * std::exp(args.theta[c]));
        write(args.out, (b * steps + t) * channels + c, passed * v);
      }
}

template <class Real>
void causal_conv_backward(const CausalConvBackward<Real>& args) {
  const auto [batch, steps, channels, taps] = args.shape;
  std::fill_n(args.grad_x, 2 * batch * steps * channels, Real(0));
  std::fill_n(args.grad_history, 2 * batch * (taps - 1) * channels, Real(0));
  std::fill_n(args.grad_taps, 2 * taps * channels, Real(0));
  std::fill_n(args.grad_bias, 2 * channels, Real(0));
  if (args.theta != nullptr) std::fill_n(args.grad_theta, channels, Real(0));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t t = 0; t < steps; ++t)
      for (std::int64_t c = 0; c < channels; ++c) {
        std::complex<Real> grad = read(args.grad_out, (b * steps + t) * channels + c);
        if (args.theta != nullptr) {
          const std::complex<Real> v = convolved(args, b, t, c);
          const Real rate = std::exp(args.theta[c]), kept = std::exp(-std::norm(v) * rate);
          const Real held = rate * kept * (std::conj(v) * grad).real();
          args.grad_theta[c] += held * std::norm(v);
          grad = (1 - kept) * grad + 2 * held * v;
        }
        add(args.grad_bias, c, grad);
        for (std::int64_t k = 0; k < taps; ++k) {
          const std::int64_t before = t + k - taps + 1;
          const Source from(args.shape, args.x, args.history, b, before, c);
          const Source to(args.shape, args.grad_x, args.grad_history, b, before, c);
          add(args.grad_taps, k * channels + c, grad * std::conj(read(from.array, from.index)));
          add(to.array, to.index, std::conj(read(args.taps, k * channels + c)) * grad);
        }
      }
}

SEM_REFERENCE(CausalConvForward, causal_conv_forward)
SEM_REFERENCE(CausalConvBackward, causal_conv_backward)

}  // namespace sem::reference
