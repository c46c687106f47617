#include "sem/transport_row.hpp"

#include <cmath>

#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"

// Lanes run across the columns. A column past the last has a kernel of zero, which no sum notices.
namespace sem::cpu::SEM_ISA {
namespace {

class Row {
 public:
  // `weighted` has room for the columns, padded to lanes.
  Row(const TransportRow<float>& args, std::int64_t b, float* weighted)
      : args_(args),
        kernel_(args.kernel + b * args.columns),
        first_(b * args.rounds * args.columns),
        share_(args.seen[b] / static_cast<float>(args.columns)),
        prior_(args.prior_rows / static_cast<float>(args.columns)),
        weighted_(weighted) {}

  void transport(float* plan) {
    const float least = std::exp(-args_.tol), most = std::exp(args_.tol);
    vfloat sum{};
    for (std::int64_t m = 0; m < args_.columns; m += kLanes) sum += kernel(m);
    float total = horizontal_sum(sum);
    add(0, total);
    std::int64_t round = 1;
    for (; round < args_.rounds; ++round) {
      const float before = total;
      total = weigh(round - 1, total);
      add(round, total);
      if (least * before <= total && total <= most * before) break;
    }
    for (++round; round < args_.rounds; ++round) add(round, total);
    const float scale = weigh(args_.rounds - 1, total);
    for (std::int64_t m = 0; m < args_.columns; m += kLanes)
      store_real(plan, args_.columns, m, load(weighted_ + m) / broadcast(scale));
  }

 private:
  SEM_INLINE vfloat kernel(std::int64_t m) const { return load_real(kernel_, args_.columns, m); }

  // The weights that follow from a round's sums and total, and their own total.
  float weigh(std::int64_t round, float total) {
    const std::int64_t at = first_ + round * args_.columns;
    vfloat sum{};
    for (std::int64_t m = 0; m < args_.columns; m += kLanes) {
      const vfloat before =
          load_real(args_.loads + at, args_.columns, m) + load_real(args_.lost + at, args_.columns, m);
      const vfloat here = kernel(m);
      const vfloat weight = here * share_ / ((before + prior_) + here / broadcast(total));
      store(weighted_ + m, weight);
      sum += weight;
    }
    return horizontal_sum(sum);
  }

  // The row to a round's sums.
  void add(std::int64_t round, float total) const {
    const std::int64_t at = first_ + round * args_.columns;
    for (std::int64_t m = 0; m < args_.columns; m += kLanes) {
      const vfloat loads = load_real(args_.loads + at, args_.columns, m);
      const vfloat added = load_real(args_.lost + at, args_.columns, m) + kernel(m) / broadcast(total);
      const vfloat after = loads + added;
      store_real(args_.loads_after + at, args_.columns, m, after);
      store_real(args_.lost_after + at, args_.columns, m, added - (after - loads));
    }
  }

  const TransportRow<float>& args_;
  const float* kernel_;
  std::int64_t first_;
  float share_, prior_;
  float* weighted_;
};

}  // namespace

// Memory traffic: loads and lost are read twice at most, the rest once.
void run(const TransportRow<float>& args, Queue queue) {
  const std::int64_t padded = padded_to_lanes(args.columns);
  const int threads = team(queue, args.batch);
  const Scratch scratch(static_cast<std::size_t>(threads * padded));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t b = 0; b < args.batch; ++b)
    Row(args, b, scratch.data() + thread_index() * padded).transport(args.plan + b * args.columns);
}

}  // namespace sem::cpu::SEM_ISA
