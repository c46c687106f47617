#include "sem/shift_ramp.hpp"

#include <algorithm>
#include <numbers>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
Real frequency(std::int64_t k, std::int64_t side) {
  return static_cast<Real>(k < (side + 1) / 2 ? k : k - side) / static_cast<Real>(side);
}

// use(j, pixel of the spectrum, pixel of the waves, frequencies, ramp)
template <class Real, class Use>
void for_each_pixel(const RampShape& shape, const Real* shift, const Use& use) {
  const std::int64_t side = shape.side;
  for (std::int64_t j = 0; j < shape.patterns; ++j)
    for (std::int64_t m = 0; m < shape.modes; ++m)
      for (std::int64_t y = 0; y < side; ++y)
        for (std::int64_t x = 0; x < side; ++x) {
          const Real q[2] = {frequency<Real>(y, side), frequency<Real>(x, side)};
          const Real angle = -2 * std::numbers::pi_v<Real> * (q[0] * shift[2 * j] + q[1] * shift[2 * j + 1]);
          const std::int64_t s = (m * side + y) * side + x;
          use(j, s, j * shape.modes * side * side + s, q, std::polar(Real(1), angle));
        }
}

template <class Real>
void shift_ramp_forward(const ShiftRampForward<Real>& args) {
  for_each_pixel(args.shape, args.shift,
                 [&](std::int64_t, std::int64_t s, std::int64_t w, const Real*, std::complex<Real> ramp) {
                   write(args.out, w, read(args.spectrum, s) * ramp);
                 });
}

template <class Real>
void shift_ramp_backward(const ShiftRampBackward<Real>& args) {
  if (!args.onto) std::fill_n(args.to_spectrum, args.shape.spectrum(), Real(0));
  std::fill_n(args.to_shift, 2 * args.shape.patterns, Real(0));
  for_each_pixel(args.shape, args.shift,
                 [&](std::int64_t j, std::int64_t s, std::int64_t w, const Real* q, std::complex<Real> ramp) {
                   const std::complex<Real> g = read(args.grad_out, w);
                   write(args.to_spectrum, s, read(args.to_spectrum, s) + std::conj(ramp) * g);
                   const Real along = (std::conj(g) * read(args.spectrum, s) * ramp).imag();
                   for (int a = 0; a < 2; ++a) args.to_shift[2 * j + a] += 2 * std::numbers::pi_v<Real> * q[a] * along;
                 });
}

}  // namespace

SEM_REFERENCE(ShiftRampForward, shift_ramp_forward)
SEM_REFERENCE(ShiftRampBackward, shift_ramp_backward)

}  // namespace sem::reference
