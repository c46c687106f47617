// The Laplacian product of csrc/include/sem/laplacian_matvec.hpp on a device, and its gradient to the weights: one
// launch, and two. Both gather from global memory, so any number of nodes will do.
#pragma once

#include <cstdint>

#include "device/column_sums.hpp"
#include "device/group.hpp"
#include "device/plan.hpp"
#include "sem/laplacian_matvec.hpp"

namespace sem::device {

// A group owns 8 rows and 32 nodes. Threads that follow each other share a node, and so its neighbours and weights.
struct LaplacianMatvecPlan {
  static constexpr int kTokens = 8, kNodes = 32;
  static constexpr int kGroupSize = kTokens * kNodes;

  explicit LaplacianMatvecPlan(const LaplacianMatvecForward<float>& task)
      : node_blocks((task.graph.nodes + kNodes - 1) / kNodes),
        groups(node_blocks * ((task.rows + kTokens - 1) / kTokens)) {}

  std::int64_t node_blocks, groups;
};

template <int kComponents, class Group>
SEM_DEVICE void laplacian_matvec_forward(const Group& group, const LaplacianMatvecForward<float>& task,
                                         const LaplacianMatvecPlan& plan) {
  const std::int64_t row =
      group.id() / plan.node_blocks * LaplacianMatvecPlan::kTokens + group.rank() % LaplacianMatvecPlan::kTokens;
  const std::int64_t i =
      group.id() % plan.node_blocks * LaplacianMatvecPlan::kNodes + group.rank() / LaplacianMatvecPlan::kTokens;
  if (row >= task.rows || i >= task.graph.nodes) return;
  const float* const x = task.x + row * task.graph.nodes * kComponents;
  float own[kComponents], h[kComponents] = {};
  SEM_UNROLL
  for (int c = 0; c < kComponents; ++c) own[c] = x[i * kComponents + c];
  const std::int32_t end = task.graph.row_start[i + 1];
  for (std::int32_t k = task.graph.row_start[i]; k < end; ++k) {
    const float weight = task.edge_weight[task.graph.incident[k]];
    const float* const at = x + static_cast<std::int64_t>(task.graph.neighbour[k]) * kComponents;
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) h[c] += weight * (own[c] - at[c]);
  }
  SEM_UNROLL
  for (int c = 0; c < kComponents; ++c) task.out[(row * task.graph.nodes + i) * kComponents + c] = h[c];
}

// A thread owns an edge and a chunk of rows; the chunks are added by column_sums.
struct LaplacianMatvecWeightPlan {
  static constexpr int kGroupSize = 256;

  explicit LaplacianMatvecWeightPlan(const LaplacianMatvecWeightGradient<float>& task)
      : edge_blocks((task.graph.edges + kGroupSize - 1) / kGroupSize) {
    const std::int64_t fit = (std::int64_t{1} << 24) / (task.graph.edges + 1);  // 64 MiB of partial sums
    const std::int64_t most = fit < 16 ? 16 : fit > 128 ? 128 : fit;
    chunks = task.rows < most ? task.rows : most;
  }
  std::int64_t groups() const { return edge_blocks * chunks; }
  std::int64_t floats(const LaplacianMatvecWeightGradient<float>& task) const { return chunks * task.graph.edges; }

  ColumnSums sums(const LaplacianMatvecWeightGradient<float>& task, const float* partial) const {
    ColumnSums sums;
    sums.rows = chunks;
    sums.columns = sums.first_columns = task.graph.edges;
    sums.partial = partial;
    sums.first = task.grad_weight;
    return sums;
  }

  std::int64_t edge_blocks, chunks;
};

template <int kComponents, class Group>
SEM_DEVICE void laplacian_matvec_weight_gradient(const Group& group, const LaplacianMatvecWeightGradient<float>& task,
                                                 const LaplacianMatvecWeightPlan& plan, float* partial) {
  const std::int64_t e = group.id() % plan.edge_blocks * LaplacianMatvecWeightPlan::kGroupSize + group.rank();
  const std::int64_t chunk = group.id() / plan.edge_blocks;
  if (e >= task.graph.edges) return;
  const std::int64_t i = static_cast<std::int64_t>(task.graph.edge_i[e]) * kComponents;
  const std::int64_t j = static_cast<std::int64_t>(task.graph.edge_j[e]) * kComponents;
  const std::int64_t width = task.graph.nodes * kComponents;
  RunningSum sum;
  const std::int64_t end = task.rows * (chunk + 1) / plan.chunks;
  for (std::int64_t row = task.rows * chunk / plan.chunks; row < end; ++row) {
    const float *g = task.grad_out + row * width, *x = task.x + row * width;
    float term = 0;
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) term += (g[i + c] - g[j + c]) * (x[i + c] - x[j + c]);
    sum.add(term);
  }
  partial[chunk * task.graph.edges + e] = sum.total();
}

template <int kComponents>
struct LaplacianMatvecForwardKernel {
  static constexpr int kMostThreads = LaplacianMatvecPlan::kGroupSize;
  LaplacianMatvecForward<float> args;
  LaplacianMatvecPlan plan;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_matvec_forward<kComponents>(group, args, plan);
  }
};

inline std::int64_t floats(const LaplacianMatvecForward<float>&, const Limits&) { return 0; }

template <class Launcher>
void run(const LaplacianMatvecForward<float>& args, float*, Launcher& launch) {
  const LaplacianMatvecPlan plan(args);
  if (args.components == 1)
    launch(LaplacianMatvecForwardKernel<1>{args, plan}, plan.groups, LaplacianMatvecPlan::kGroupSize, 0);
  else
    launch(LaplacianMatvecForwardKernel<2>{args, plan}, plan.groups, LaplacianMatvecPlan::kGroupSize, 0);
}

template <int kComponents>
struct LaplacianMatvecWeightKernel {
  static constexpr int kMostThreads = LaplacianMatvecWeightPlan::kGroupSize;
  LaplacianMatvecWeightGradient<float> args;
  LaplacianMatvecWeightPlan plan;
  float* partial;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_matvec_weight_gradient<kComponents>(group, args, plan, partial);
  }
};

inline std::int64_t floats(const LaplacianMatvecWeightGradient<float>& args, const Limits&) {
  return LaplacianMatvecWeightPlan(args).floats(args);
}

template <class Launcher>
void run(const LaplacianMatvecWeightGradient<float>& args, float* workspace, Launcher& launch) {
  const LaplacianMatvecWeightPlan plan(args);
  if (args.components == 1)
    launch(LaplacianMatvecWeightKernel<1>{args, plan, workspace}, plan.groups(), LaplacianMatvecWeightPlan::kGroupSize,
           0);
  else
    launch(LaplacianMatvecWeightKernel<2>{args, plan, workspace}, plan.groups(), LaplacianMatvecWeightPlan::kGroupSize,
           0);
  run_column_sums(plan.sums(args, workspace), launch);
}

}  // namespace sem::device
