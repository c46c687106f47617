#include "sem/state_space.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

// What one batch row and group has of the arrays: where its entries begin, and its factors of a step.
template <class Args>
struct Part {
  const Args& args;
  std::int64_t b, g;

  std::int64_t step(std::int64_t t) const { return (b * args.shape.steps + t) * args.shape.groups + g; }
  std::int64_t entry(std::int64_t t, std::int64_t k) const { return step(t) * args.shape.width + k; }
  std::int64_t state(std::int64_t n) const { return (b * args.shape.groups + g) * args.shape.states + n; }
  std::int64_t channel(std::int64_t n) const { return g * args.shape.states + n; }
  std::int64_t into(std::int64_t n, std::int64_t k) const { return channel(n) * args.shape.width + k; }
  std::int64_t out_of(std::int64_t k, std::int64_t n) const {
    return (g * args.shape.width + k) * args.shape.states + n;
  }
  std::int64_t checkpoint(std::int64_t t, std::int64_t n) const {
    const std::int64_t at = b * args.shape.checkpoints() + t / kCheckpointSteps - 1;
    return (at * args.shape.groups + g) * args.shape.states + n;
  }

  auto transition(std::int64_t t, std::int64_t n) const {
    const auto radius = std::exp(-args.dt_mag[step(t)] * args.decay[channel(n)]);
    return std::polar(radius, args.dt_phase[step(t)] * args.frequency[channel(n)]);
  }
  auto driven(std::int64_t t, std::int64_t n) const {
    decltype(read(args.x, 0)) sum = 0;
    for (std::int64_t k = 0; k < args.shape.width; ++k) sum += read(args.into, into(n, k)) * read(args.x, entry(t, k));
    return sum;
  }
};

template <class Real>
void forward_part(const StateSpaceForward<Real>& args, Part<StateSpaceForward<Real>> part) {
  const auto [batch, steps, groups, states, width] = args.shape;
  std::vector<std::complex<Real>> h(static_cast<std::size_t>(states));
  for (std::int64_t n = 0; n < states; ++n) h[n] = read(args.initial_state, part.state(n));
  for (std::int64_t t = 0; t < steps; ++t) {
    for (std::int64_t n = 0; n < states; ++n) {
      if (args.checkpoints != nullptr && t > 0 && t % kCheckpointSteps == 0)
        write(args.checkpoints, part.checkpoint(t, n), h[n]);
      h[n] = part.transition(t, n) * h[n] + args.dt_mag[part.step(t)] * part.driven(t, n);
    }
    for (std::int64_t k = 0; k < width; ++k) {
      std::complex<Real> sum = 0;
      for (std::int64_t n = 0; n < states; ++n) sum += read(args.out_of, part.out_of(k, n)) * h[n];
      write(args.y, part.entry(t, k), sum);
    }
  }
  for (std::int64_t n = 0; n < states; ++n) write(args.final_state, part.state(n), h[n]);
}

template <class Real>
void backward_part(const StateSpaceBackward<Real>& args, Part<StateSpaceBackward<Real>> part) {
  const auto [batch, steps, groups, states, width] = args.shape;
  std::vector<std::complex<Real>> h(static_cast<std::size_t>(steps) + 1);
  for (std::int64_t n = 0; n < states; ++n) {
    const Real decay = args.decay[part.channel(n)], frequency = args.frequency[part.channel(n)];
    h[0] = read(args.initial_state, part.state(n));
    for (std::int64_t t = 0; t < steps; ++t)
      h[t + 1] = part.transition(t, n) * h[t] + args.dt_mag[part.step(t)] * part.driven(t, n);
    std::complex<Real> carried = read(args.grad_final_state, part.state(n));
    for (std::int64_t t = steps - 1; t >= 0; --t) {
      const Real m = args.dt_mag[part.step(t)], p = args.dt_phase[part.step(t)];
      std::complex<Real> l = carried;
      for (std::int64_t k = 0; k < width; ++k) {
        const std::complex<Real> g = read(args.grad_y, part.entry(t, k));
        l += std::conj(read(args.out_of, part.out_of(k, n))) * g;
        add(args.grad_out_of, part.out_of(k, n), g * std::conj(h[t + 1]));
      }
      for (std::int64_t k = 0; k < width; ++k) {
        const std::complex<Real> x = read(args.x, part.entry(t, k));
        add(args.grad_x, part.entry(t, k), m * std::conj(read(args.into, part.into(n, k))) * l);
        add(args.grad_into, part.into(n, k), m * l * std::conj(x));
      }
      const std::complex<Real> a = part.transition(t, n), w = std::conj(l) * a * h[t];
      args.grad_dt_mag[part.step(t)] += (std::conj(l) * part.driven(t, n)).real() - decay * w.real();
      args.grad_dt_phase[part.step(t)] -= frequency * w.imag();
      args.grad_decay[part.channel(n)] -= m * w.real();
      args.grad_frequency[part.channel(n)] -= p * w.imag();
      carried = std::conj(a) * l;
    }
    write(args.grad_initial_state, part.state(n), carried);
  }
}

}  // namespace

template <class Real>
void state_space_forward(const StateSpaceForward<Real>& args) {
  for (std::int64_t b = 0; b < args.shape.batch; ++b)
    for (std::int64_t g = 0; g < args.shape.groups; ++g) forward_part(args, {args, b, g});
}

template <class Real>
void state_space_backward(const StateSpaceBackward<Real>& args) {
  const auto [batch, steps, groups, states, width] = args.shape;
  std::fill_n(args.grad_x, batch * steps * groups * width * 2, Real(0));
  std::fill_n(args.grad_dt_mag, batch * steps * groups, Real(0));
  std::fill_n(args.grad_dt_phase, batch * steps * groups, Real(0));
  std::fill_n(args.grad_into, groups * states * width * 2, Real(0));
  std::fill_n(args.grad_out_of, groups * states * width * 2, Real(0));
  std::fill_n(args.grad_decay, groups * states, Real(0));
  std::fill_n(args.grad_frequency, groups * states, Real(0));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t g = 0; g < groups; ++g) backward_part(args, {args, b, g});
}

SEM_REFERENCE(StateSpaceForward, state_space_forward)
SEM_REFERENCE(StateSpaceBackward, state_space_backward)

}  // namespace sem::reference
