// The solve of csrc/include/sem/laplacian_cg.hpp on a device: prepare (one group), then the whole solve of every row,
// forward or backward, in one launch, then for gradients to the weights the sums of device/column_sums.hpp.
#pragma once

#include <cstdint>

#include "device/certificate.hpp"
#include "device/column_sums.hpp"
#include "device/tile.hpp"
#include "sem/laplacian_cg.hpp"

namespace sem::device {

// Forward and backward are one task: S is symmetric, so grad_b solves S l = grad_out.
struct LaplacianCgTask {
  Graph graph;
  std::int64_t rows = 0;
  int components = 1;
  const float* edge_weight = nullptr;  // [edges]
  ShiftedLaplacian<float> system;
  float tol = 0;
  std::int32_t max_iter = 0;
  const float* input = nullptr;  // [rows, nodes, components]: b; backward: grad_out
  float* output = nullptr;       // [rows, nodes, components]: x; backward: grad_b
  SolveReport<float> report;
  // Backward only:
  const float* x = nullptr;  // [rows, nodes, components], needed when gradients to the weights are
  bool to_weights = false;
  float* grad_weight = nullptr;  // [edges], written when to_weights

  float* workspace = nullptr;  // [LaplacianCgLayout.floats]
};

inline LaplacianCgTask task_of(const LaplacianCgForward<float>& args, float* workspace) {
  LaplacianCgTask task;
  task.graph = args.graph;
  task.rows = args.rows;
  task.components = args.components;
  task.edge_weight = args.edge_weight;
  task.system = args.system;
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.input = args.b;
  task.output = args.x;
  task.report = args.report;
  task.workspace = workspace;
  return task;
}

inline LaplacianCgTask task_of(const LaplacianCgBackward<float>& args, float* workspace) {
  LaplacianCgTask task =
      task_of(LaplacianCgForward<float>{args.graph, args.rows, args.components, args.edge_weight, args.system, args.tol,
                                        args.max_iter, args.grad_out, args.grad_b, args.report},
              workspace);
  task.x = args.x;
  task.to_weights = args.to_weights;
  task.grad_weight = args.grad_weight;
  return task;
}

// How a task runs and where its parts of the workspace lie.
struct LaplacianCgLayout {
  LaplacianCgLayout(const LaplacianCgTask& task, const Limits& limits)
      : plan(task.graph.nodes, task.components, limits),
        to_weights(task.to_weights),
        groups(to_weights ? plan.chunks(task.rows, task.graph.edges + 1) : plan.groups(task.rows)),
        prepare_group_size(plan.group_size),
        spilled(Prepared::floats(task.graph)),
        partial(spilled + groups * plan.group_floats),
        floats(partial + (to_weights ? groups * task.graph.edges : 0)) {}

  ColumnSums sums(const LaplacianCgTask& task) const {
    ColumnSums sums;
    sums.rows = groups;
    sums.columns = sums.first_columns = task.graph.edges;
    sums.partial = task.workspace + partial;
    sums.first = task.grad_weight;
    return sums;
  }

  TilePlan plan;
  bool to_weights;
  std::int64_t groups;
  int prepare_group_size;
  std::int64_t spilled, partial, floats;  // offsets in the workspace, and its size
};

// By one group of layout.prepare_group_size.
template <class Group>
SEM_DEVICE void laplacian_cg_prepare(const Group& group, const LaplacianCgTask& task) {
  prepare(group, task.graph, task.edge_weight, task.system, Prepared(task.graph, task.workspace));
}

template <class Tile>
struct ShiftedProblem {
  static constexpr int kComponents = Tile::kComponents;
  static constexpr bool kEnergyEstimate = false;
  using Vector = typename Tile::Vector;

  const Tile& tile;
  const Prepared& h;
  const ShiftedLaplacian<float>& system;
  Vector& b;
  float norm;

  SEM_DEVICE float start(Vector& x, Vector& r, float) const {
    tile.each([&](int k, std::int64_t i) {
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) {
        x.at(k, i, c) = 0;
        r.at(k, i, c) = b.at(k, i, c);
      }
    });
    return norm;
  }
  SEM_DEVICE std::int32_t iterations_to_start() const { return 0; }

  // e = b - S x, and its norm
  SEM_DEVICE float verify(Vector& x, Vector& e) const {
    tile.publish(x, tile.two);
    tile.group.barrier();
    tile.each([&](int k, std::int64_t i) {
      float hx[kComponents];
      tile.product(h, tile.two, i, hx);
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) e.at(k, i, c) = hx[c];
    });
    tile.group.barrier();
    tile.publish(e, tile.two);
    tile.group.barrier();
    float norm2[1] = {0};
    tile.each([&](int k, std::int64_t i) {
      float hhx[kComponents] = {};
      if (system.gamma != 0) tile.product(h, tile.two, i, hhx);
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) {
        const float sx = system.alpha * x.at(k, i, c) + system.beta * e.at(k, i, c) + system.gamma * hhx[c];
        const float rest = b.at(k, i, c) - sx;
        e.at(k, i, c) = rest;
        norm2[0] += rest * rest;
      }
    });
    tile.row_sum(norm2);
    return sqrt(norm2[0]);
  }

  SEM_DEVICE void recompute(Vector& e, Vector& r, bool row) const {
    if (!row) return;
    tile.each([&](int k, std::int64_t i) {
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) r.at(k, i, c) = e.at(k, i, c);
    });
  }
};

// What rounding can do to verify()'s norm, over that of b, for an x of `size` times its norm.
SEM_DEVICE float rounding(const Prepared& h, const ShiftedLaplacian<float>& s, float size) {
  const float bound = h.norm_bound(), product = h.rounding(), unit = Prepared::kUnit;
  return 2.0f * unit + size * (3.0f * unit * s.alpha + (product + 2.0f * unit) * s.beta * bound +
                               (2.0f * product + 3.0f * unit) * s.gamma * bound * bound);
}

// The norm of b - S x over that of b, in two floats a number, from the caller's arrays; `scale` brings them to where
// norms can be taken. Null: a row of zeros.
template <class Tile>
SEM_DEVICE float wide_residual(const Tile& tile, const Prepared& h, const ShiftedLaplacian<float>& s, const float* b,
                               const float* x, float scale, float norm) {
  constexpr int kComponents = Tile::kComponents;
  const auto solution = [&](std::int64_t j, int c) {
    return TwoFloat{scale > 0 ? x[j * kComponents + c] * scale : 0.0f, 0.0f};
  };
  tile.each([&](int, std::int64_t i) {
    for (int c = 0; c < kComponents; ++c) {
      const TwoFloat hx = wide_product(h, i, [&](std::int64_t j) { return solution(j, c); });
      tile.one[i * tile.stride() + c] = hx.high;
      tile.two[i * tile.stride() + c] = hx.low;
    }
  });
  tile.group.barrier();
  float norm2[1] = {0};
  tile.each([&](int, std::int64_t i) {
    for (int c = 0; c < kComponents; ++c) {
      const auto hx = [&](std::int64_t j) {
        return TwoFloat{tile.one[j * tile.stride() + c], tile.two[j * tile.stride() + c]};
      };
      const float own = scale > 0 ? b[i * kComponents + c] * scale : 0.0f;
      TwoFloat left = -(s.alpha * solution(i, c)) + own;
      left = left - s.beta * hx(i);
      if (s.gamma != 0) left = left - s.gamma * wide_product(h, i, hx);
      norm2[0] += left.high * left.high;
    }
  });
  tile.row_sum(norm2);
  return sqrt(norm2[0]) / norm;
}

// One tile: output = S^-1 input. What was stored is left in `x`, for gradients.
template <class Tile>
SEM_DEVICE Unsure laplacian_cg_row(const Tile& tile, const Prepared& h, const LaplacianCgTask& task, std::int64_t row,
                                   typename Tile::Vector& x) {
  constexpr int kComponents = Tile::kComponents;
  using Solver = ConjugateGradients<Tile, ShiftedProblem<Tile>>;
  const bool inside = row < task.rows;
  auto b = tile.vector(Solver::kInput);
  const float* const input = inside ? task.input + row * kComponents * tile.nodes : nullptr;
  const RowScale scale = load_scaled(tile, input, b);
  float norm2[1] = {0};
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) norm2[0] += b.at(k, i, c) * b.at(k, i, c);
  });
  tile.row_sum(norm2);
  const bool active = scale.finite && scale.nonzero;
  const float norm = active ? sqrt(norm2[0]) : 1.0f;
  const ShiftedProblem<Tile> problem{tile, h, task.system, b, norm};
  Solver solver(tile, h, task.system, problem);
  RowResult result = solver.solve(active, norm, 0.8f * task.tol, task.max_iter, x);
  float x_norm2[1] = {0};
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) x_norm2[0] += x.at(k, i, c) * x.at(k, i, c);
  });
  tile.row_sum(x_norm2);
  const float tolerated = rounding(h, task.system, sqrt(x_norm2[0]) / norm);
  if (!scale.finite) result.status = kNonfinite;
  const bool bad = result.status == kNonfinite;
  if (bad) result.residual = kNaN;
  float* const output = task.output + row * kComponents * tile.nodes;
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) {
      const float value = bad ? kNaN : x.at(k, i, c) * scale.up;
      x.at(k, i, c) = value;
      if (inside) output[i * kComponents + c] = value;
    }
  });
  const bool unsure = doubtful(result, active, task.tol, tolerated);
  if (inside && tile.first_node == 0) write_report(task.report, row, result);
  return {unsure, active ? scale.down() : 0.0f, norm};
}

// Decides on the tile's rows that wait for it.
template <class Tile>
SEM_DEVICE void laplacian_cg_decide(const Tile& tile, const Prepared& h, const LaplacianCgTask& task, std::int64_t row,
                                    Unsure unsure) {
  const bool inside = row < task.rows;
  if (tile.group.any(unsure.row)) {
    const std::int64_t at = inside ? row * Tile::kComponents * tile.nodes : 0;
    const float residual =
        wide_residual(tile, h, task.system, task.input + at, task.output + at, unsure.scale, unsure.norm);
    if (unsure.row && inside && tile.first_node == 0) settle(task.report, row, task.tol, residual);
  }
}

// partial[e] (+)= - sum over the tile's rows of d(u) d(v), for u in tile.one and v in tile.two. Threads start with
// different rows, so that they read different banks of local memory.
template <class Tile>
SEM_DEVICE void subtract_edge_products(const Tile& tile, const Graph& graph, float* partial, bool first) {
  constexpr int kComponents = Tile::kComponents;
  const float *u = tile.one - tile.token * kComponents, *v = tile.two - tile.token * kComponents;
  for (std::int64_t e = tile.group.rank(); e < graph.edges; e += tile.group.size()) {
    const std::int64_t i = graph.edge_i[e] * tile.stride(), j = graph.edge_j[e] * tile.stride();
    float product = 0;
    for (int t = 0; t < tile.tokens; ++t) {
      const int at = ((t + tile.token) & (tile.tokens - 1)) * kComponents;
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c)
        product += (u[i + at + c] - u[j + at + c]) * (v[i + at + c] - v[j + at + c]);
    }
    partial[e] = first ? -product : partial[e] - product;
  }
}

// Adds g_w[ij] = - sum [ d(l) d(beta x + gamma H x) + gamma d(H l) d(x) ] of the tile to `partial`.
template <class Tile>
SEM_DEVICE void add_weight_gradient(const Tile& tile, const Prepared& h, const LaplacianCgTask& task, std::int64_t row,
                                    typename Tile::Vector& l, float* partial, bool first) {
  constexpr int kComponents = Tile::kComponents;
  using Solver = ConjugateGradients<Tile, ShiftedProblem<Tile>>;
  const bool inside = row < task.rows;
  const float* const row_x = task.x + row * tile.nodes * kComponents;
  auto product = tile.vector(Solver::kCheck);
  // A row without gradient contributes nothing, whatever it holds: a masked row may be NaN.
  float used[1] = {0};
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c)
      if (l.at(k, i, c) != 0) used[0] = 1;
  });
  tile.row_sum(used);
  // x is read again where it is needed: kept in registers, it would drive others out of them.
  const bool counts = inside && used[0] > 0;
  const auto x = [&](std::int64_t i, int c) { return counts ? row_x[i * kComponents + c] : 0.0f; };
  const auto publish_x = [&] {
    tile.each([&](int, std::int64_t i) {
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) tile.two[i * tile.stride() + c] = x(i, c);
    });
  };
  const auto multiply = [&](const float* gathered) {
    tile.each([&](int k, std::int64_t i) {
      float hx[kComponents] = {};
      if (task.system.gamma != 0) tile.product(h, gathered, i, hx);
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) product.at(k, i, c) = task.system.gamma * hx[c];
    });
  };
  tile.publish(l, tile.one);
  publish_x();
  tile.group.barrier();
  multiply(tile.two);
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < kComponents; ++c) product.at(k, i, c) += task.system.beta * x(i, c);
  });
  tile.group.barrier();
  tile.publish(product, tile.two);
  tile.group.barrier();
  subtract_edge_products(tile, task.graph, partial, first);
  if (task.system.gamma != 0) {
    multiply(tile.one);
    tile.group.barrier();
    tile.publish(product, tile.one);
    publish_x();
    tile.group.barrier();
    subtract_edge_products(tile, task.graph, partial, false);
  }
  tile.group.barrier();
}

// By layout.groups groups of layout.plan.group_size; kNodes is layout.plan.nodes_per_thread.
template <int kComponents, int kNodes, class Group>
SEM_DEVICE void laplacian_cg_solve(const Group& group, const LaplacianCgTask& task, const LaplacianCgLayout& layout) {
  using OwnTile = Tile<Group, kComponents, kNodes>;
  const Prepared h(task.graph, task.workspace);
  const OwnTile tile(group, layout.plan, task.graph.nodes,
                     task.workspace + layout.spilled + group.id() * layout.plan.group_floats);
  float* const partial = task.workspace + layout.partial + group.id() * task.graph.edges;
  const std::int64_t tiles = layout.plan.tiles(task.rows);
  const std::int64_t begin = chunk_begin(tiles, group.count(), group.id());
  const std::int64_t end = chunk_begin(tiles, group.count(), group.id() + 1);
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t row = t * tile.tokens + tile.token;
    auto x = tile.vector(ConjugateGradients<OwnTile, ShiftedProblem<OwnTile>>::kSolution);
    const Unsure unsure = laplacian_cg_row(tile, h, task, row, x);
    if (layout.to_weights) add_weight_gradient(tile, h, task, row, x, partial, t == begin);
    laplacian_cg_decide(tile, h, task, row, unsure);
  }
}

struct LaplacianCgPrepareKernel {
  static constexpr int kMostThreads = TilePlan::kMostThreads;
  LaplacianCgTask task;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_cg_prepare(group, task);
  }
};

template <int kComponents, int kNodes>
struct LaplacianCgSolveKernel {
  static constexpr int kMostThreads = TilePlan::kMostThreads;
  LaplacianCgTask task;
  LaplacianCgLayout layout;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_cg_solve<kComponents, kNodes>(group, task, layout);
  }
};

template <int kComponents, class Launcher>
void run_laplacian_cg(const LaplacianCgTask& task, Launcher& launch) {
  const LaplacianCgLayout layout(task, launch.limits());
  const TilePlan& plan = layout.plan;
  if (task.rows > 0) launch(LaplacianCgPrepareKernel{task}, 1, layout.prepare_group_size, 0);
  if (plan.nodes_per_thread == TilePlan::kFewNodes)
    launch(LaplacianCgSolveKernel<kComponents, TilePlan::kFewNodes>{task, layout}, layout.groups, plan.group_size,
           plan.local_floats);
  else if (plan.nodes_per_thread == TilePlan::kManyNodes)
    launch(LaplacianCgSolveKernel<kComponents, TilePlan::kManyNodes>{task, layout}, layout.groups, plan.group_size,
           plan.local_floats);
  else
    launch(LaplacianCgSolveKernel<kComponents, 0>{task, layout}, layout.groups, plan.group_size, plan.local_floats);
  if (layout.to_weights) run_column_sums(layout.sums(task), launch);
}

template <class Launcher>
void run(const LaplacianCgTask& task, Launcher& launch) {
  if (task.components == 1)
    run_laplacian_cg<1>(task, launch);
  else
    run_laplacian_cg<2>(task, launch);
}

inline std::int64_t floats(const LaplacianCgForward<float>& args, const Limits& limits) {
  return LaplacianCgLayout(task_of(args, nullptr), limits).floats;
}
inline std::int64_t floats(const LaplacianCgBackward<float>& args, const Limits& limits) {
  return LaplacianCgLayout(task_of(args, nullptr), limits).floats;
}
template <class Launcher>
void run(const LaplacianCgForward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace), launch);
}
template <class Launcher>
void run(const LaplacianCgBackward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace), launch);
}

}  // namespace sem::device
