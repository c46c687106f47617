// Sums and maxima over a group, or over each of several interleaved parts of it.
//
// The order of additions is fixed by the sizes of group and sub-group alone, so bits do not change from run to run.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

// Local memory that a reduction of `values` numbers needs, in floats.
inline std::int64_t reduction_floats(int group_size, int sub_group_size, int lanes, int values) {
  const int parts = group_size / (sub_group_size > lanes ? sub_group_size : lanes);
  return static_cast<std::int64_t>(values) * parts * lanes;
}

// Replaces each value by `join` of it over the threads whose rank is equal modulo `lanes`, a power of two. `scratch` is
// not used by the caller at the same time; there is a barrier before it is written and one before it is read.
template <int kValues, class Value, class Group, class Join>
SEM_DEVICE void reduce(const Group& group, Value (&values)[kValues], Value* scratch, int lanes, Join join) {
  const int sub_group = group.sub_group_size();
  for (int mask = sub_group / 2; mask >= lanes; mask /= 2) {
    SEM_UNROLL
    for (int v = 0; v < kValues; ++v) values[v] = join(values[v], group.shuffle_xor(values[v], mask));
  }
  const int threads = sub_group > lanes ? sub_group : lanes;  // that make one part
  const int part = group.rank() / threads, parts = group.size() / threads;
  const int within = group.rank() & (threads - 1), lane = group.rank() & (lanes - 1);
  group.barrier();
  if (within < lanes) {
    SEM_UNROLL
    for (int v = 0; v < kValues; ++v) scratch[(v * parts + part) * lanes + lane] = values[v];
  }
  group.barrier();
  SEM_UNROLL
  for (int v = 0; v < kValues; ++v) {
    Value total = scratch[v * parts * lanes + lane];
    for (int p = 1; p < parts; ++p) total = join(total, scratch[(v * parts + p) * lanes + lane]);
    values[v] = total;
  }
}

template <int kValues, class Group>
SEM_DEVICE void sum(const Group& group, float (&values)[kValues], float* scratch, int lanes = 1) {
  reduce(group, values, scratch, lanes, [](float a, float b) { return a + b; });
}

template <class Group>
SEM_DEVICE std::int32_t maximum(const Group& group, std::int32_t value, float* scratch, int lanes = 1) {
  std::int32_t values[1] = {value};
  reduce(group, values, reinterpret_cast<std::int32_t*>(scratch), lanes,
         [](std::int32_t a, std::int32_t b) { return a < b ? b : a; });
  return values[0];
}

// The sum of `value` over the threads of lower rank; `all` becomes that over the group. `scratch` has a number for each
// sub-group, and barriers as that of reduce.
template <class Group>
SEM_DEVICE std::int32_t sum_before(const Group& group, std::int32_t value, std::int32_t* scratch, std::int32_t& all) {
  const int sub_group = group.sub_group_size();
  std::int32_t before = 0;
  for (int mask = 1; mask < sub_group; mask *= 2) {
    const std::int32_t other = group.shuffle_xor(value, mask);
    before += (group.rank() & mask) != 0 ? other : 0;
    value += other;
  }
  const int part = group.rank() / sub_group, parts = group.size() / sub_group;
  group.barrier();
  if (group.rank() % sub_group == 0) scratch[part] = value;
  group.barrier();
  all = 0;
  for (int p = 0; p < parts; ++p) {
    before += p == part ? all : 0;
    all += scratch[p];
  }
  return before;
}

}  // namespace sem::device
