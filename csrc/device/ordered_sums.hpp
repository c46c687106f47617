// Sums over patterns that take them in order, column by column: sums that go on where earlier ones ended have the bits
// of all patterns at once. The additions of a column follow each other, so what is added is found beforehand, by
// threads that take different patterns (kLanes of them) or by one thread for several patterns ahead.
//
// A `Terms` is what is summed:
//
//   static constexpr int kWidth;     numbers of a column: 1, or 2 of a complex one
//   OrderedSum sum;
//   auto at(std::int64_t column) const;    a function of (pattern, float (&)[kWidth]) that finds an addend; it rounds
//   the
//                                          same way wherever it is compiled: products that are added are fma
#pragma once

#include <cstdint>

#include "device/group.hpp"
#include "device/math.hpp"

namespace sem::device {

struct OrderedSum {
  std::int64_t patterns = 0;
  std::int64_t columns = 0;
  bool onto = false;     // begin with what `out` holds
  float* out = nullptr;  // [columns, kWidth]
};

template <int kWidth, int kLanes>
struct OrderedSumsPlan {
  static constexpr int kGroupSize = 256;
  static constexpr int kColumns = kGroupSize / kLanes;  // of one group
  static constexpr int kAhead = 4;                      // addends that a thread finds before any is added
  static constexpr int kBlock = kAhead * kLanes;        // patterns that a group takes at a time
  static constexpr int kBlockFloats = kBlock * kWidth * kColumns;
  static constexpr std::int64_t kLocalFloats = kLanes == 1 ? 0 : 2 * kBlockFloats;  // one barrier a block is enough
  static_assert(kLanes == 1 || kWidth <= kLanes);
};

template <class Terms, int kLanes>
struct OrderedSumsKernel {
  using Plan = OrderedSumsPlan<Terms::kWidth, kLanes>;
  static constexpr int kMostThreads = Plan::kGroupSize;
  Terms terms;

  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    const OrderedSum& sum = terms.sum;
    const std::int64_t column = group.id() * Plan::kColumns + group.rank() % Plan::kColumns;
    const bool inside = column < sum.columns;
    const auto term = terms.at(inside ? column : 0);
    if constexpr (kLanes == 1) {
      if (inside) add(term, column);
    } else {
      share(group, term, column, inside);
    }
  }

 private:
  static constexpr int kWidth = Terms::kWidth;

  // One thread for a column.
  template <class Term>
  SEM_DEVICE void add(const Term& term, std::int64_t column) const {
    const OrderedSum& sum = terms.sum;
    float total[kWidth];
    SEM_UNROLL
    for (int c = 0; c < kWidth; ++c) total[c] = sum.onto ? sum.out[column * kWidth + c] : 0.0f;
    for (std::int64_t first = 0; first < sum.patterns; first += Plan::kAhead) {
      float addend[Plan::kAhead][kWidth] = {};
      SEM_UNROLL
      for (int a = 0; a < Plan::kAhead; ++a)
        if (first + a < sum.patterns) term(first + a, addend[a]);
      SEM_UNROLL
      for (int a = 0; a < Plan::kAhead; ++a) {
        SEM_UNROLL
        for (int c = 0; c < kWidth; ++c) total[c] = first + a < sum.patterns ? total[c] + addend[a][c] : total[c];
      }
    }
    SEM_UNROLL
    for (int c = 0; c < kWidth; ++c) sum.out[column * kWidth + c] = total[c];
  }

  // kLanes threads for a column: all find addends, the first kWidth add them, a component each.
  template <class Group, class Term>
  SEM_DEVICE void share(const Group& group, const Term& term, std::int64_t column, bool inside) const {
    const OrderedSum& sum = terms.sum;
    const int lane = group.rank() / Plan::kColumns, offset = group.rank() % Plan::kColumns;
    const bool adds = inside && lane < kWidth;
    float total = adds && sum.onto ? sum.out[column * kWidth + lane] : 0.0f;
    int parity = 0;
    for (std::int64_t first = 0; first < sum.patterns; first += Plan::kBlock, parity ^= 1) {
      float* const local = group.local() + parity * Plan::kBlockFloats + offset;
      float addend[Plan::kAhead][kWidth] = {};
      SEM_UNROLL
      for (int a = 0; a < Plan::kAhead; ++a)
        if (inside && first + a * kLanes + lane < sum.patterns) term(first + a * kLanes + lane, addend[a]);
      SEM_UNROLL
      for (int a = 0; a < Plan::kAhead; ++a) {
        SEM_UNROLL
        for (int c = 0; c < kWidth; ++c) local[((a * kLanes + lane) * kWidth + c) * Plan::kColumns] = addend[a][c];
      }
      group.barrier();
      if (!adds) continue;
      const std::int64_t left = sum.patterns - first;
      const int count = left < Plan::kBlock ? static_cast<int>(left) : Plan::kBlock;
      for (int k = 0; k < count; ++k) total += local[(k * kWidth + lane) * Plan::kColumns];
    }
    if (adds) sum.out[column * kWidth + lane] = total;
  }
};

// The way is a matter of speed alone: both add the same numbers in the same order.
template <class Terms, class Launcher>
void run_ordered_sums(const Terms& terms, Launcher& launch) {
  constexpr int kLanes = 8;
  constexpr std::int64_t kEnoughColumns = 1 << 16;  // to keep a device busy with a thread each
  const OrderedSum& sum = terms.sum;
  const auto launch_with = [&](const auto& kernel, auto plan) {
    launch(kernel, (sum.columns + plan.kColumns - 1) / plan.kColumns, plan.kGroupSize, plan.kLocalFloats);
  };
  if (sum.columns >= kEnoughColumns || sum.patterns < 4)
    launch_with(OrderedSumsKernel<Terms, 1>{terms}, OrderedSumsPlan<Terms::kWidth, 1>());
  else
    launch_with(OrderedSumsKernel<Terms, kLanes>{terms}, OrderedSumsPlan<Terms::kWidth, kLanes>());
}

}  // namespace sem::device
