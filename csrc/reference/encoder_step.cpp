#include "sem/encoder_step.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
void encoder_step(const EncoderStep<Real>& args) {
  const std::int64_t columns = args.columns;
  const Real prior = args.prior_rows / static_cast<Real>(columns);
  for (std::int64_t b = 0; b < args.batch; ++b) {
    const Real *kernel = args.kernel + b * columns, *loads = args.loads + b * args.rounds * columns;
    const Real* lost = args.lost + b * args.rounds * columns;
    const Real share = (args.prior_rows + args.positions[b] + 1) / static_cast<Real>(columns);
    std::vector<Real> weighted(kernel, kernel + columns), totals;
    const auto total = [&] {
      Real sum = 0;
      for (const Real w : weighted) sum += w;
      return sum;
    };
    const auto weigh = [&](std::int64_t round) {
      for (std::int64_t m = 0; m < columns; ++m) {
        const Real before = loads[round * columns + m] + lost[round * columns + m] + prior;
        weighted[m] = kernel[m] * share / (before + kernel[m] / totals.back());
      }
    };
    for (std::int64_t round = 0; round < args.rounds; ++round) {
      totals.push_back(total());
      const bool first = round == 0;
      if (!first && std::abs(std::log(totals[round] / totals[round - 1])) <= args.tol) break;
      weigh(round);
    }
    weigh(args.rounds - 1);
    const Real all = total();
    for (Real& w : weighted) w /= all;
    std::vector<Real> ordered(weighted);
    std::sort(ordered.begin(), ordered.end(), std::greater<>());
    for (Real& w : weighted) w = std::max(w - ordered[args.sparsity - 1], Real(0));
    for (std::int64_t d = 0; d < args.dim; ++d) {
      std::complex<Real> sum = 0;
      for (std::int64_t m = 0; m < columns; ++m)
        sum += weighted[m] * std::complex<Real>(args.lift[2 * d * columns + m], args.lift[(2 * d + 1) * columns + m]);
      write(args.wave, b * args.dim + d, sum * std::polar(Real(1), args.positions[b] * args.rates[d]));
    }
    for (std::int64_t round = 0; round < args.rounds; ++round) {
      const Real of_round = round < static_cast<std::int64_t>(totals.size()) ? totals[round] : totals.back();
      for (std::int64_t m = 0; m < columns; ++m) {
        const std::int64_t i = round * columns + m, at = b * args.rounds * columns + i;
        const Real added = lost[i] + kernel[m] / of_round;
        args.loads_after[at] = loads[i] + added;
        args.lost_after[at] = added - (args.loads_after[at] - loads[i]);
      }
    }
  }
}

}  // namespace

SEM_REFERENCE(EncoderStep, encoder_step)

}  // namespace sem::reference
