#include "sem/scan.hpp"

#include <algorithm>
#include <cmath>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {

template <class Real>
void scan_forward(const ScanForward<Real>& args) {
  const auto [batch, steps, channels, groups] = args.shape;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t c = 0; c < channels; ++c) {
      std::complex<Real> h = read(args.initial_state, b * channels + c);
      for (std::int64_t t = 0; t < steps; ++t) {
        const std::int64_t step = (b * steps + t) * groups + c / (channels / groups);
        const Real m = args.dt_mag[step], p = args.dt_phase[step];
        const std::complex<Real> a = std::polar(std::exp(-m * args.decay[c]), p * args.frequency[c]);
        h = a * h + m * read(args.x, (b * steps + t) * channels + c);
        write(args.states, (b * steps + t) * channels + c, h);
      }
      write(args.final_state, b * channels + c, h);
    }
}

template <class Real>
void scan_backward(const ScanBackward<Real>& args) {
  const auto [batch, steps, channels, groups] = args.shape;
  std::fill_n(args.grad_dt_mag, batch * steps * groups, Real(0));
  std::fill_n(args.grad_dt_phase, batch * steps * groups, Real(0));
  std::fill_n(args.grad_decay, channels, Real(0));
  std::fill_n(args.grad_frequency, channels, Real(0));
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t c = 0; c < channels; ++c) {
      const Real decay = args.decay[c], frequency = args.frequency[c];
      std::complex<Real> carried = read(args.grad_final_state, b * channels + c);
      for (std::int64_t t = steps - 1; t >= 0; --t) {
        const std::int64_t at = (b * steps + t) * channels + c;
        const std::int64_t step = (b * steps + t) * groups + c / (channels / groups);
        const Real m = args.dt_mag[step], p = args.dt_phase[step];
        const std::complex<Real> a = std::polar(std::exp(-m * decay), p * frequency);
        const std::complex<Real> before =
            t > 0 ? read(args.states, at - channels) : read(args.initial_state, b * channels + c);
        const std::complex<Real> l = read(args.grad_states, at) + carried;
        const std::complex<Real> w = std::conj(l) * a * before;
        write(args.grad_x, at, m * l);
        args.grad_dt_mag[step] += (std::conj(l) * read(args.x, at)).real() - decay * w.real();
        args.grad_dt_phase[step] -= frequency * w.imag();
        args.grad_decay[c] -= m * w.real();
        args.grad_frequency[c] -= p * w.imag();
        carried = std::conj(a) * l;
      }
      write(args.grad_initial_state, b * channels + c, carried);
    }
}

SEM_REFERENCE(ScanForward, scan_forward)
SEM_REFERENCE(ScanBackward, scan_backward)

}  // namespace sem::reference
