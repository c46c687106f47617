#include "sem/transport_row.hpp"

#include <cmath>
#include <vector>

#include "reference/run.hpp"

namespace sem::reference {
namespace {

template <class Real>
void transport_row(const TransportRow<Real>& args) {
  const std::int64_t columns = args.columns;
  const Real prior = args.prior_rows / static_cast<Real>(columns);
  for (std::int64_t b = 0; b < args.batch; ++b) {
    const Real *kernel = args.kernel + b * columns, *loads = args.loads + b * args.rounds * columns;
    const Real* lost = args.lost + b * args.rounds * columns;
    const Real share = args.seen[b] / static_cast<Real>(columns);
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
    for (std::int64_t m = 0; m < columns; ++m) args.plan[b * columns + m] = weighted[m] / total();
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

SEM_REFERENCE(TransportRow, transport_row)

}  // namespace sem::reference
