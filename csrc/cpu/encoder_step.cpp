#include "sem/encoder_step.hpp"

#include <cmath>

#include "cpu/affine.hpp"
#include "cpu/scratch.hpp"

// Lanes run across the columns. A column past the last has a kernel of zero, which no sum notices.
namespace sem::cpu::SEM_ISA {
namespace {

class Row {
 public:
  // `plan` has room for the columns, padded to lanes.
  Row(const EncoderStep<float>& args, std::int64_t b, float* plan)
      : args_(args),
        kernel_(args.kernel + b * args.columns),
        first_(b * args.rounds * args.columns),
        share_((args.prior_rows + args.positions[b] + 1.0f) / static_cast<float>(args.columns)),
        prior_(args.prior_rows / static_cast<float>(args.columns)),
        plan_(plan) {}

  // The plan, less its sparsity-th largest entry, and the sums behind this row.
  void transport() {
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
    for (std::int64_t m = 0; m < args_.columns; m += kLanes) store(plan_ + m, load(plan_ + m) / broadcast(scale));
    const float threshold = largest(args_.sparsity);
    for (std::int64_t m = 0; m < args_.columns; m += kLanes) {
      const vfloat excess = load(plan_ + m) - threshold;
      store(plan_ + m, select(excess < 0.0f, vfloat{}, excess));  // NaN stays NaN
    }
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
      store(plan_ + m, weight);
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

  // The k-th largest entry of the plan: fewer than k are larger, and k at least as large. Entries past the last column
  // are zeros, which are larger than none of a plan's; NaN if there is NaN in it.
  float largest(std::int32_t k) const {
    for (std::int64_t i = 0; i < args_.columns; ++i) {
      vint larger{}, as_large{};
      for (std::int64_t m = 0; m < args_.columns; m += kLanes) {
        const vfloat entry = load(plan_ + m);
        larger -= entry > plan_[i];
        as_large -= entry >= plan_[i];
      }
      if (count(larger) < k && k <= count(as_large)) return plan_[i];
    }
    return __builtin_nanf("");
  }
  static std::int32_t count(vint lanes) {
    std::int32_t sum = 0;
    for (int l = 0; l < kLanes; ++l) sum += lanes[l];
    return sum;
  }

  const EncoderStep<float>& args_;
  const float* kernel_;
  std::int64_t first_;
  float share_, prior_;
  float* plan_;
};

void turn(const EncoderStep<float>& args, std::int64_t b) {
  for (std::int64_t d = 0; d < args.dim; ++d) {
    const float angle = args.positions[b] * args.rates[d], cosine = std::cos(angle), sine = std::sin(angle);
    float* const at = args.wave + 2 * (b * args.dim + d);
    const float re = at[0], im = at[1];
    at[0] = re * cosine - im * sine;
    at[1] = re * sine + im * cosine;
  }
}

}  // namespace

// Memory traffic: loads and lost are read twice at most, lift once for each b, the rest once.
void run(const EncoderStep<float>& args, Queue queue) {
  const std::int64_t padded = padded_to_lanes(args.columns);
  const int threads = team(queue, args.batch);
  const Scratch scratch(static_cast<std::size_t>(threads * padded + args.batch * args.columns));
  float* const plans = scratch.data() + threads * padded;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t b = 0; b < args.batch; ++b) {
    float* const plan = scratch.data() + thread_index() * padded;
    Row(args, b, plan).transport();
    std::memcpy(plans + b * args.columns, plan, static_cast<std::size_t>(args.columns) * sizeof(float));
  }
  Affine{args.lift, plans, args.columns, 2 * args.dim}(args.batch, args.wave, queue);
  for (std::int64_t b = 0; b < args.batch; ++b) turn(args, b);
}

}  // namespace sem::cpu::SEM_ISA
