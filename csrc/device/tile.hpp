// A group's tile of rows: which row and which nodes are a thread's own, and where its numbers lie.
#pragma once

#include <cstdint>

#include "device/math.hpp"
#include "device/plan.hpp"
#include "device/prepared.hpp"

namespace sem::device {

// A thread's own part of a vector, in registers, or (kNodes = 0) in the group's workspace.
template <int kComponents, int kNodes>
struct Own {
  SEM_DEVICE Own() {}  // leaves the values unset
  float values[kNodes][kComponents];
  SEM_DEVICE float& at(int k, std::int64_t, int c) { return values[k][c]; }
};
template <int kComponents>
struct Own<kComponents, 0> {
  float* base;  // [nodes][kComponents] of a tile of one row
  SEM_DEVICE float& at(int, std::int64_t node, int c) { return base[node * kComponents + c]; }
};

template <class Group, int kWidth, int kNodes>
class Tile {
 public:
  static constexpr int kComponents = kWidth;
  using Vector = Own<kComponents, kNodes>;

  // `spilled` is the group's own workspace of a spilled plan.
  SEM_DEVICE Tile(const Group& group, const TilePlan& plan, std::int64_t nodes, float* spilled)
      : group(group),
        tokens(plan.tokens),
        token(group.rank() & (plan.tokens - 1)),
        first_node(group.rank() / plan.tokens),
        node_lanes(group.size() / plan.tokens),
        nodes(nodes),
        spilled_(spilled) {
    const std::int64_t size = nodes * tokens * kComponents;
    float* const gathered = kNodes == 0 ? spilled : group.local();
    one = gathered + token * kComponents;
    two = one + size;
    scratch = kNodes == 0 ? group.local() : group.local() + 2 * size;
  }

  SEM_DEVICE Vector vector(int number) const {
    if constexpr (kNodes == 0)
      return Vector{spilled_ + (2 + number) * nodes * kComponents};
    else
      return Vector();
  }
  SEM_DEVICE std::int64_t stride() const { return static_cast<std::int64_t>(tokens) * kComponents; }

  // use(k, i) for every node i of this thread; k counts them.
  template <class Use>
  SEM_DEVICE void each(Use use) const {
    if constexpr (kNodes == 0) {
      int k = 0;
      for (std::int64_t i = first_node; i < nodes; i += node_lanes) use(k++, i);
    } else {
      SEM_UNROLL
      for (int k = 0; k < kNodes; ++k) {
        const std::int64_t i = recomputed(first_node) + k * node_lanes;
        if (i < nodes) use(k, i);
      }
    }
  }

  // Writes this thread's part to where others gather it; a barrier must come before both its readers and its next
  // writers.
  SEM_DEVICE void publish(Vector& from, float* to) const {
    each([&](int k, std::int64_t i) {
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) to[i * stride() + c] = from.at(k, i, c);
    });
  }
  SEM_DEVICE void product(const Prepared& h, const float* x, std::int64_t i, float (&out)[kComponents]) const {
    gather<kComponents>(h, x, stride(), i, out);
  }

  // Sums over this thread's row.
  template <int kValues>
  SEM_DEVICE void row_sum(float (&values)[kValues]) const {
    static_assert(kValues <= TilePlan::kSums);
    sum(group, values, scratch, tokens);
  }
  SEM_DEVICE std::int32_t row_maximum(std::int32_t value) const { return maximum(group, value, scratch, tokens); }

  const Group& group;
  const int tokens, token, first_node, node_lanes;
  const std::int64_t nodes;
  float *one, *two;  // vectors that are gathered, at this thread's row
  float* scratch;

 private:
  float* spilled_;
};

// A row brought to entries of magnitude 1 to 2 by a power of two, exactly, so that no norm can over- or underflow; one
// with NaN or Inf counts as zero until its report.
struct RowScale {
  bool finite, nonzero;
  float up;

  SEM_DEVICE float down() const { return from_bits(0x7f000000 - bits(recomputed(up))); }  // 1 / up
};

// Reads this thread's part of `row` (null: zeros) into `out`, scaled.
template <class Tile>
SEM_DEVICE RowScale load_scaled(const Tile& tile, const float* row, typename Tile::Vector& out) {
  constexpr int kComponents = Tile::kComponents;
  std::int32_t largest = 0;
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) {
      const float value = row == nullptr ? 0.0f : row[i * kComponents + c];
      const std::int32_t magnitude = bits(value) & 0x7fffffff;
      largest = magnitude > largest ? magnitude : largest;
      out.at(k, i, c) = value;
    }
  });
  largest = tile.row_maximum(largest);
  std::int32_t exponent = largest >> 23;
  RowScale scale;
  scale.finite = exponent != 255;
  scale.nonzero = largest != 0;
  exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
  scale.up = from_bits(exponent << 23);
  const float down = scale.down();
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) out.at(k, i, c) = scale.finite ? out.at(k, i, c) * down : 0.0f;
  });
  return scale;
}

}  // namespace sem::device
