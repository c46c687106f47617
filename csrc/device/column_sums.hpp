// Sums over the rows of a matrix of partial sums, column by column and in an order that its shape alone fixes: the
// second half of every gradient that is a sum over a batch.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

// A running sum whose error does not grow with the number of terms (Knuth's two-sum).
struct RunningSum {
  float high = 0, low = 0;
  SEM_DEVICE void add(float term) {
    const float sum = high + term;
    const float part = sum - high;
    low += (high - (sum - part)) + (term - part);
    high = sum;
  }
  SEM_DEVICE float total() const { return high + low; }
};

struct ColumnSums {
  static constexpr int kColumns = 16;  // of one group
  static constexpr int kLanes = 32;    // threads that share a column
  static constexpr int kGroupSize = kColumns * kLanes;
  static constexpr std::int64_t kLocalFloats = kGroupSize;

  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const float* partial = nullptr;  // [rows, columns]
  std::int64_t first_columns = 0;  // columns that go to `first`; the others go to `second`
  float* first = nullptr;
  float* second = nullptr;

  std::int64_t groups() const { return (columns + kColumns - 1) / kColumns; }
};

// `id` is the group's number among sums.groups().
template <class Group>
SEM_DEVICE void column_sums(const Group& group, const ColumnSums& sums, std::int64_t id) {
  const int lane = group.rank() / ColumnSums::kColumns, offset = group.rank() % ColumnSums::kColumns;
  const std::int64_t column = id * ColumnSums::kColumns + offset;
  const bool inside = column < sums.columns;
  RunningSum sum;
  for (std::int64_t row = lane; inside && row < sums.rows; row += ColumnSums::kLanes)
    sum.add(sums.partial[row * sums.columns + column]);
  float* const local = group.local();
  local[group.rank()] = sum.total();
  group.barrier();
  if (lane != 0 || !inside) return;
  RunningSum total;
  for (int l = 0; l < ColumnSums::kLanes; ++l) total.add(local[l * ColumnSums::kColumns + offset]);
  if (column < sums.first_columns)
    sums.first[column] = total.total();
  else
    sums.second[column - sums.first_columns] = total.total();
}

struct ColumnSumsKernel {
  static constexpr int kMostThreads = ColumnSums::kGroupSize;
  ColumnSums sums;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    column_sums(group, sums, group.id());
  }
};

template <class Launcher>
void run_column_sums(const ColumnSums& sums, Launcher& launch) {
  launch(ColumnSumsKernel{sums}, sums.groups(), ColumnSums::kGroupSize, ColumnSums::kLocalFloats);
}

}  // namespace sem::device
