#include "sem/gated_rotation.hpp"

#include <algorithm>
#include <cmath>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
Real gate(Real logit) {
  return 1 / (1 + std::exp(-static_cast<Real>(kGateSlope) * logit));
}

// Entry i of (U x - x) in the group whose first entry is `first`.
template <class Real>
std::complex<Real> moved(const RotationShape& shape, const Real* blocks, const Real* x, std::int64_t first,
                         std::int64_t group, std::int64_t i) {
  std::complex<Real> sum = -read(x, first + i);
  for (std::int64_t j = 0; j < shape.size; ++j)
    sum += read(blocks, (group * shape.size + i) * shape.size + j) * read(x, first + j);
  return sum;
}

}  // namespace

template <class Real>
void gated_rotation_forward(const GatedRotationForward<Real>& args) {
  const auto [rows, groups, size] = args.shape;
  for (std::int64_t part = 0; part < rows * groups; ++part)
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t at = part * size + i;
      const std::complex<Real> step = moved(args.shape, args.blocks, args.x, part * size, part % groups, i);
      write(args.out, at, read(args.x, at) + gate(args.logits[at]) * step);
    }
}

template <class Real>
void gated_rotation_backward(const GatedRotationBackward<Real>& args) {
  const auto [rows, groups, size] = args.shape;
  std::fill_n(args.grad_blocks, 2 * groups * size * size, Real(0));
  std::copy_n(args.grad_out, 2 * rows * groups * size, args.grad_x);
  for (std::int64_t part = 0; part < rows * groups; ++part) {
    const std::int64_t first = part * size, group = part % groups;
    for (std::int64_t i = 0; i < size; ++i) {
      const std::complex<Real> grad = read(args.grad_out, first + i);
      const Real g = gate(args.logits[first + i]);
      const std::complex<Real> step = moved(args.shape, args.blocks, args.x, first, group, i);
      args.grad_logits[first + i] = static_cast<Real>(kGateSlope) * g * (1 - g) * (std::conj(step) * grad).real();
      const std::complex<Real> h = g * grad;
      add(args.grad_x, first + i, -h);
      for (std::int64_t j = 0; j < size; ++j) {
        const std::int64_t entry = (group * size + i) * size + j;
        add(args.grad_x, first + j, std::conj(read(args.blocks, entry)) * h);
        add(args.grad_blocks, entry, h * std::conj(read(args.x, first + j)));
      }
    }
  }
}

SEM_REFERENCE(GatedRotationForward, gated_rotation_forward)
SEM_REFERENCE(GatedRotationBackward, gated_rotation_backward)

}  // namespace sem::reference
