#include "sem/born_step.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
void born_step(const BornStep<Real>& args) {
  for (std::int64_t b = 0; b < args.batch; ++b) {
    std::vector<Real> power;
    Real mean = 0;
    for (std::int64_t v = 0; v < args.vocab; ++v) {
      std::complex<Real> amplitude = 0;
      for (std::int64_t d = 0; d < args.dim; ++d)
        amplitude += read(args.matrix, v * args.dim + d) * read(args.psi, b * args.dim + d);
      power.push_back(std::norm(amplitude));
      mean += power.back() / static_cast<Real>(args.vocab);
    }
    Real* const out = args.out + b * args.vocab;
    Real sum = 0;
    for (std::int64_t v = 0; v < args.vocab; ++v) {
      const Real raised = power[v] + args.floor * mean;
      out[v] = std::log(raised < std::numeric_limits<float>::min() ? std::numeric_limits<float>::min() : raised) +
               args.bias[v];
    }
    const Real most = *std::max_element(out, out + args.vocab);
    for (std::int64_t v = 0; v < args.vocab; ++v) sum += std::exp(out[v] - most);
    for (std::int64_t v = 0; v < args.vocab; ++v) out[v] -= most + std::log(sum);
  }
}

}  // namespace

SEM_REFERENCE(BornStep, born_step)

}  // namespace sem::reference
