// How a solve is laid out on a device: chosen on the host, from the number of nodes and the device's limits alone, so
// that a row's arithmetic does not depend on how many rows there are.
#pragma once

#include <cstdint>

#include "device/reduce.hpp"

namespace sem::device {

struct Limits {
  std::int64_t local_bytes = 0;  // of a group
  int group_size = 0;            // most threads of a group
  int sub_group_size = 0;
  std::int64_t summing_groups =
      0;  // most groups of a launch that sum over rows; 0: as many as a device wants. For tests
};

// A group works on a tile of `tokens` rows. A thread owns one row of the tile, rank() % tokens, and every node_lanes-th
// node, so threads that follow each other read the same neighbours and weights, and neighbouring values of the rows.
//
// A thread keeps its part of x, r and the input in registers (nodes_per_thread of each). Vectors whose neighbours are
// gathered, two at a time, lie in local memory as [node][token][component]. What does not fit is `spilled`: all
// vectors lie in the caller's workspace, tiles are one row, and a fixed number of groups takes them in turn.
struct TilePlan {
  static constexpr int kFewNodes = 2, kManyNodes = 8;
  static constexpr int kMostTokens = 8;  // complex floats of four nodes are one memory sector
  static constexpr std::int64_t kMostTileNodes = 4096;
  static constexpr int kMostThreads = 512;  // more would leave each too few registers
  static constexpr int kSums = 3;           // values in one reduction
  static constexpr int kVectors = 6;        // of a spilled solve
  static constexpr std::int64_t kSpilledGroups = 128;

  TilePlan(std::int64_t nodes, int components, const Limits& limits) : summing_groups(limits.summing_groups) {
    const int most_threads = limits.group_size < kMostThreads ? limits.group_size : kMostThreads;
    for (tokens = kMostTokens; tokens >= 1; tokens /= 2) {
      nodes_per_thread = nodes <= 64 ? kFewNodes : kManyNodes;
      group_size = limits.sub_group_size;
      while (group_size < tokens || group_size / tokens * nodes_per_thread < nodes) group_size *= 2;
      const std::int64_t gathered = 2 * nodes * tokens * components;
      local_floats = gathered + scratch_floats(limits.sub_group_size);
      // Tiles as large as their memory allows would leave one group alone, with none to work while it waits.
      const bool small = tokens == 1 || nodes * tokens <= kMostTileNodes;
      if (small && group_size <= most_threads && 4 * local_floats <= limits.local_bytes) return;
    }
    tokens = 1;
    nodes_per_thread = 0;
    group_size = limits.sub_group_size;
    while (2 * group_size <= most_threads) group_size *= 2;
    local_floats = scratch_floats(limits.sub_group_size);
    group_floats = kVectors * nodes * components;
  }

  bool spilled() const { return nodes_per_thread == 0; }
  SEM_HOST_DEVICE std::int64_t tiles(std::int64_t rows) const { return (rows + tokens - 1) / tokens; }
  std::int64_t groups(std::int64_t rows) const {
    return spilled() && tiles(rows) > kSpilledGroups ? kSpilledGroups : tiles(rows);
  }
  // Groups of a pass that sums over rows, each with its own [columns] of partial sums: at most 64 MiB of them.
  std::int64_t chunks(std::int64_t rows, std::int64_t columns) const {
    const std::int64_t fit = (std::int64_t{1} << 24) / columns;
    std::int64_t most = fit < 64 ? 64 : fit > 1024 ? 1024 : fit;
    if (summing_groups > 0 && summing_groups < most) most = summing_groups;
    const std::int64_t wanted = groups(rows);
    return wanted < most ? wanted : most;
  }

  int tokens = 1;
  int group_size = 0;
  int nodes_per_thread = 0;       // 0: spilled
  std::int64_t local_floats = 0;  // of a group
  std::int64_t group_floats = 0;  // of a group's workspace
  std::int64_t summing_groups = 0;

 private:
  std::int64_t scratch_floats(int sub_group_size) const {
    const std::int64_t per_row = reduction_floats(group_size, sub_group_size, tokens, kSums);
    const std::int64_t overall = reduction_floats(group_size, sub_group_size, 1, kSums);
    return per_row < overall ? overall : per_row;
  }
};

// Tiles of chunk c: from chunk_begin(c) to chunk_begin(c + 1).
SEM_DEVICE std::int64_t chunk_begin(std::int64_t tiles, std::int64_t chunks, std::int64_t chunk) {
  return tiles * chunk / chunks;
}

}  // namespace sem::device
