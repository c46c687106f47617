// The Cayley step of csrc/include/sem/cayley.hpp on a device: prepare (one group), then the whole solve of every row,
// forward or backward, in one launch, then for gradients to the weights the sums of device/column_sums.hpp.
//
// A tile of rows stays with its group until its own rows are done, so no row waits for another tile's and the host
// looks at nothing.
#pragma once

#include <cstdint>

#include "device/cayley_guess.hpp"
#include "device/certificate.hpp"
#include "device/column_sums.hpp"
#include "device/conjugate_gradients.hpp"
#include "device/tile.hpp"
#include "sem/cayley.hpp"

namespace sem::device {

// Forward and backward are one task: the adjoint of a unitary step is the step with time reversed, so grad_psi comes
// from the forward's own code with -half_dt. The caller sees to it that no array overlaps another.
struct CayleyTask {
  Graph graph;
  std::int64_t rows = 0;
  const float* edge_weight = nullptr;  // [edges]
  CayleySettings<float> settings;      // half_dt on the device
  const float* input = nullptr;        // [rows, nodes, 2]: psi; backward: grad_out
  float* output = nullptr;             // [rows, nodes, 2]: psi_out; backward: grad_psi
  SolveReport<float> report;
  // Backward only:
  bool adjoint = false;
  const float* psi = nullptr;      // [rows, nodes, 2], needed when gradients to the weights are
  const float* psi_out = nullptr;  // [rows, nodes, 2]
  bool to_weights = false;
  float* grad_weight = nullptr;   // [edges], written when to_weights
  float* grad_half_dt = nullptr;  // [1], likewise

  float* workspace = nullptr;  // [CayleyLayout.floats]
};

inline CayleyTask task_of(const CayleyForward<float>& args, float* workspace) {
  CayleyTask task;
  task.graph = args.graph;
  task.rows = args.rows;
  task.edge_weight = args.edge_weight;
  task.settings = args.settings;
  task.input = args.psi;
  task.output = args.psi_out;
  task.report = args.report;
  task.workspace = workspace;
  return task;
}

inline CayleyTask task_of(const CayleyBackward<float>& args, float* workspace) {
  CayleyTask task = task_of(CayleyForward<float>{args.graph, args.rows, args.edge_weight, args.settings, args.grad_out,
                                                 args.grad_psi, args.report},
                            workspace);
  task.adjoint = true;
  task.psi = args.psi;
  task.psi_out = args.psi_out;
  task.to_weights = args.to_weights;
  task.grad_weight = args.grad_weight;
  task.grad_half_dt = args.grad_half_dt;
  return task;
}

// How a task runs and where its parts of the workspace lie.
struct CayleyLayout {
  // `prepare_threads`: of the group that prepares, where the caller has one; 0: as many as the graph keeps busy.
  CayleyLayout(const CayleyTask& task, const Limits& limits, int prepare_threads = 0)
      : plan(task.graph.nodes, 2, limits),
        to_weights(task.to_weights),
        groups(to_weights ? plan.chunks(task.rows, columns(task)) : plan.groups(task.rows)),
        prepare_group_size(prepare_threads > 0 ? prepare_threads : limits.sub_group_size) {
    const int most = limits.group_size < TilePlan::kMostThreads ? limits.group_size : TilePlan::kMostThreads;
    while (prepare_threads == 0 && 2 * prepare_group_size <= most && prepare_group_size < task.graph.nodes)
      prepare_group_size *= 2;
    guess = Prepared::floats(task.graph);
    lanczos = guess + (sizeof(CayleyGuess) / sizeof(float) + 1) / 2 * 2;
    prepare_local_floats = reduction_floats(prepare_group_size, limits.sub_group_size, 1, 1);
    if (4 * (prepare_local_floats + 3 * task.graph.nodes) <= limits.local_bytes) {
      prepare_local_floats += 3 * task.graph.nodes;
      lanczos_is_local = true;
    }
    spilled = lanczos + (lanczos_is_local ? 0 : 3 * task.graph.nodes);
    partial = spilled + groups * plan.group_floats;
    floats = partial + (to_weights ? groups * columns(task) : 0);
  }

  // Of the partial sums: one per edge, and one for half_dt.
  SEM_HOST_DEVICE static std::int64_t columns(const CayleyTask& task) { return task.graph.edges + 1; }

  ColumnSums sums(const CayleyTask& task) const {
    ColumnSums sums;
    sums.rows = groups;
    sums.columns = columns(task);
    sums.partial = task.workspace + partial;
    sums.first_columns = task.graph.edges;
    sums.first = task.grad_weight;
    sums.second = task.grad_half_dt;
    return sums;
  }

  TilePlan plan;
  bool to_weights;
  std::int64_t groups;
  int prepare_group_size;
  std::int64_t prepare_local_floats = 0;
  bool lanczos_is_local = false;
  std::int64_t guess = 0, lanczos = 0, spilled = 0, partial = 0, floats = 0;  // offsets in the workspace, and its size
};

SEM_DEVICE float signed_half_dt(const CayleyTask& task) {
  return task.adjoint ? -*task.settings.half_dt : *task.settings.half_dt;
}

// By one group of layout.prepare_group_size.
template <class Group>
SEM_DEVICE void cayley_prepare(const Group& group, const CayleyTask& task, const CayleyLayout& layout) {
  const float a = signed_half_dt(task);
  const Prepared h(task.graph, task.workspace);
  prepare(group, task.graph, task.edge_weight, {1.0f, 0.0f, a * a}, h);
  float* const local = group.local();
  float* const vectors = layout.lanczos_is_local ? local : task.workspace + layout.lanczos;
  const Interval eigenvalues = spectrum(group, h, vectors, layout.lanczos_is_local ? local + 3 * h.nodes : local);
  if (group.rank() == 0)
    make_guess(eigenvalues, a, task.settings.tol, task.settings.max_iter,
               *reinterpret_cast<CayleyGuess*>(task.workspace + layout.guess));
}

// y = (I + iaH)^-1 psi through (I + a^2 H^2) y = (I - iaH) psi. The true residual e = psi - (I + iaH) y and CG's own
// r = (I - iaH) e satisfy ||e||^2 = r' S^-1 r <= ||r||^2, and M is close to S^-1, so r' M r estimates ||e||^2.
template <class Tile>
struct CayleyProblem {
  static constexpr int kComponents = 2;
  static constexpr bool kEnergyEstimate = true;
  using Vector = typename Tile::Vector;

  const Tile& tile;
  const Prepared& h;
  const CayleyGuess& guess;
  Vector& psi;
  float a, norm;

  // A guess that is no better than zero (the weights may overflow) is dropped.
  SEM_DEVICE float start(Vector& x, Vector& r, float target) const {
    float* const gathered = apply_guess(tile, h, guess, psi, r, x);
    const float truth = residual(gathered, x, r);
    if (!tile.group.any(!(truth <= target))) return truth;
    if (!(truth < norm)) {
      tile.each([&](int k, std::int64_t i) {
        SEM_UNROLL
        for (int c = 0; c < kComponents; ++c) {
          x.at(k, i, c) = 0;
          r.at(k, i, c) = psi.at(k, i, c);
        }
      });
    }
    recompute(r, r, true);
    return truth;
  }
  SEM_DEVICE std::int32_t iterations_to_start() const { return (guess.degree + 1) / 2; }

  SEM_DEVICE float verify(Vector& x, Vector& e) const {
    tile.publish(x, tile.two);
    tile.group.barrier();
    return residual(tile.two, x, e);
  }

  // r = (I - iaH) e
  SEM_DEVICE void recompute(Vector& e, Vector& r, bool row) const {
    tile.publish(e, tile.two);
    tile.group.barrier();
    tile.each([&](int k, std::int64_t i) {
      float he[2];
      tile.product(h, tile.two, i, he);
      if (row) {
        r.at(k, i, 0) = e.at(k, i, 0) + a * he[1];
        r.at(k, i, 1) = e.at(k, i, 1) - a * he[0];
      }
    });
  }

 private:
  // e = psi - (I + iaH) x, and its norm
  SEM_DEVICE float residual(const float* gathered, Vector& x, Vector& e) const {
    float norm2[1] = {0};
    tile.each([&](int k, std::int64_t i) {
      float hx[2];
      tile.product(h, gathered, i, hx);
      const float re = (psi.at(k, i, 0) - x.at(k, i, 0)) + a * hx[1];
      const float im = (psi.at(k, i, 1) - x.at(k, i, 1)) - a * hx[0];
      e.at(k, i, 0) = re;
      e.at(k, i, 1) = im;
      norm2[0] += re * re;
      norm2[0] += im * im;
    });
    tile.row_sum(norm2);
    return sqrt(norm2[0]);
  }
};

// The norm of psi - (I + iaH) y, y = (out + psi) / 2, over that of psi, in two floats a number, all from the caller's
// arrays. `scale` brings them to where norms can be taken; zero: the row does not count.
template <class Tile>
SEM_DEVICE float wide_residual(const Tile& tile, const Prepared& h, float a, const float* psi, const float* out,
                               float scale, float norm) {
  float norm2[1] = {0};
  if (scale > 0)
    tile.each([&](int, std::int64_t i) {
      for (int c = 0; c < 2; ++c) {
        const auto sum = [&](std::int64_t j) {
          return two_sum(psi[j * 2 + 1 - c] * scale, out[j * 2 + 1 - c] * scale);
        };
        const TwoFloat own = two_sum(psi[i * 2 + c] * scale, -(out[i * 2 + c] * scale));
        const TwoFloat left = own + (c == 0 ? a : -a) * wide_product(h, i, sum);
        norm2[0] += left.high * left.high;
      }
    });
  tile.row_sum(norm2);
  return 0.5f * sqrt(norm2[0]) / norm;
}

// One tile: output = (I + iaH)^-1 (I - iaH) input. What was stored is left in `out`, for gradients.
template <class Tile>
SEM_DEVICE Unsure cayley_step(const Tile& tile, const Prepared& h, const CayleyGuess& guess, const CayleyTask& task,
                              float a, std::int64_t row, typename Tile::Vector& out) {
  const bool inside = row < task.rows;
  const float* const input = inside ? task.input + row * 2 * tile.nodes : nullptr;
  auto psi = tile.vector(ConjugateGradients<Tile, CayleyProblem<Tile>>::kInput);
  const RowScale scale = load_scaled(tile, input, psi);

  // H leaves the mean over nodes alone: psi is solved for without it.
  float sums[3] = {0, 0, 0};
  tile.each([&](int k, std::int64_t i) {
    const float re = psi.at(k, i, 0), im = psi.at(k, i, 1);
    sums[0] += re;
    sums[1] += im;
    sums[2] += re * re;
    sums[2] += im * im;
  });
  tile.row_sum(sums);
  const float mean_re = sums[0] / static_cast<float>(tile.nodes), mean_im = sums[1] / static_cast<float>(tile.nodes);
  tile.each([&](int k, std::int64_t i) {
    psi.at(k, i, 0) -= mean_re;
    psi.at(k, i, 1) -= mean_im;
  });
  const bool active = scale.finite && scale.nonzero;
  const float norm = active ? sqrt(sums[2]) : 1.0f;

  const ShiftedLaplacian<float> system{1.0f, 0.0f, a * a};
  const CayleyProblem<Tile> problem{tile, h, guess, psi, a, norm};
  ConjugateGradients<Tile, CayleyProblem<Tile>> solver(tile, h, system, problem);
  const float tol = task.settings.tol;
  // The step is brought to the norm of its input afterwards, which adds to the residual the more the larger the step.
  const auto reach = [&] { return recomputed(abs(a) * h.norm_bound()); };
  const float share = reach() > 7.0f ? 8.0f / (1.0f + reach()) : 1.0f;
  RowResult result = solver.solve(active, norm, 0.99f * share * tol, task.settings.max_iter, out);
  if (!scale.finite) result.status = kNonfinite;
  const bool bad = result.status == kNonfinite;
  if (bad) result.residual = kNaN;

  // The factor to the input's norm is 1 + grow, sqrt(1 + d) - 1 = d / (1 + sqrt(1 + d)), with d from the difference of
  // the squares: rounded to float32, the factor itself would be off by the same little in every step.
  float squares[2] = {0, 0};
  const float down = scale.down();
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < 2; ++c) {
      const float before = active ? input[i * 2 + c] * down : 0.0f;
      const float after = (2.0f * out.at(k, i, c) - psi.at(k, i, c)) + (c == 0 ? mean_re : mean_im);
      squares[0] += (before - after) * (before + after);
      squares[1] += after * after;
      out.at(k, i, c) = after;
    }
  });
  tile.row_sum(squares);
  const float d = squares[0] / squares[1];
  const float grow = claimed(result, active) ? d / (1.0f + sqrt(1.0f + d)) : 0.0f;
  float* const output = task.output + row * 2 * tile.nodes;
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < 2; ++c) {
      const float after = bad ? kNaN : (out.at(k, i, c) + out.at(k, i, c) * grow) * scale.up;
      out.at(k, i, c) = after;
      if (inside) output[i * 2 + c] = after;
    }
  });
  // y grows with the step, and its residual by at most half of that times the norm of (I - iaH) psi.
  const float by_growth = 0.5f * abs(grow) * (1.0f + reach());
  const float rounding = 5.0f * Prepared::kUnit + reach() * (4.0f * Prepared::kUnit + h.rounding());
  const bool unsure = doubtful(result, active, tol, by_growth + rounding);
  if (!bad) result.residual += by_growth;
  if (inside && tile.first_node == 0) write_report(task.report, row, result);
  return {unsure, active ? scale.down() : 0.0f, norm};
}

// Decides on the tile's rows that wait for it.
template <class Tile>
SEM_DEVICE void cayley_decide(const Tile& tile, const Prepared& h, const CayleyTask& task, float a, std::int64_t row,
                              Unsure unsure) {
  const bool inside = row < task.rows;
  if (tile.group.any(unsure.row)) {
    const std::int64_t at = inside ? row * 2 * tile.nodes : 0;
    const float residual = wide_residual(tile, h, a, task.input + at, task.output + at, unsure.scale, unsure.norm);
    if (unsure.row && inside && tile.first_node == 0) settle(task.report, row, task.settings.tol, residual);
  }
}

// Adds the tile's part of g_w[ij] = 2a sum Im( conj(z_i - z_j) (y_i - y_j) ) to `partial` and returns this thread's
// part of the gradient to half_dt. Threads start with different rows, so that they read different banks of local
// memory.
template <class Tile>
SEM_DEVICE float add_edge_currents(const Tile& tile, const CayleyTask& task, std::int64_t row,
                                   typename Tile::Vector& grad_psi, float* partial, bool first) {
  const bool inside = row < task.rows;
  const std::int64_t base = row * tile.nodes * 2;
  // A row without gradient contributes nothing, whatever it holds: a masked row may be NaN.
  float used[1] = {0};
  tile.each([&](int k, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < 2; ++c) {
      const float g = inside ? task.input[base + i * 2 + c] : 0.0f;
      const float z = 0.5f * (grad_psi.at(k, i, c) + g);
      tile.one[i * tile.stride() + c] = z;
      if (z != 0) used[0] = 1;
    }
  });
  tile.row_sum(used);
  tile.each([&](int, std::int64_t i) {
    SEM_UNROLL
    for (int c = 0; c < 2; ++c) {
      const std::int64_t at = base + i * 2 + c;
      tile.two[i * tile.stride() + c] = inside && used[0] > 0 ? 0.5f * (task.psi[at] + task.psi_out[at]) : 0.0f;
    }
  });
  tile.group.barrier();
  const float *z = tile.one - tile.token * 2, *y = tile.two - tile.token * 2;
  const float a = *task.settings.half_dt;
  float to_half_dt = 0;
  for (std::int64_t e = tile.group.rank(); e < task.graph.edges; e += tile.group.size()) {
    const std::int64_t i = task.graph.edge_i[e] * tile.stride(), j = task.graph.edge_j[e] * tile.stride();
    float current = 0;
    for (int t = 0; t < tile.tokens; ++t) {
      const int at = ((t + tile.token) & (tile.tokens - 1)) * 2;
      const float z_re = z[i + at] - z[j + at], z_im = z[i + at + 1] - z[j + at + 1];
      const float y_re = y[i + at] - y[j + at], y_im = y[i + at + 1] - y[j + at + 1];
      current += z_re * y_im - z_im * y_re;
    }
    const float gradient = 2.0f * a * current;
    partial[e] = first ? gradient : partial[e] + gradient;
    to_half_dt += 2.0f * task.edge_weight[e] * current;
  }
  tile.group.barrier();
  return to_half_dt;
}

// By layout.groups groups of layout.plan.group_size; kNodes is layout.plan.nodes_per_thread.
template <int kNodes, class Group>
SEM_DEVICE void cayley_solve(const Group& group, const CayleyTask& task, const CayleyLayout& layout) {
  const std::int64_t nodes = task.graph.nodes, tiles = layout.plan.tiles(task.rows);
  const Prepared h(task.graph, task.workspace);
  const CayleyGuess& guess = *reinterpret_cast<const CayleyGuess*>(task.workspace + layout.guess);
  const float a = signed_half_dt(task);
  const Tile<Group, 2, kNodes> tile(group, layout.plan, nodes,
                                    task.workspace + layout.spilled + group.id() * layout.plan.group_floats);
  float* const partial = task.workspace + layout.partial + group.id() * CayleyLayout::columns(task);
  const std::int64_t begin = chunk_begin(tiles, group.count(), group.id());
  const std::int64_t end = chunk_begin(tiles, group.count(), group.id() + 1);
  float to_half_dt[1] = {0};
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t row = t * tile.tokens + tile.token;
    auto out =
        tile.vector(ConjugateGradients<Tile<Group, 2, kNodes>, CayleyProblem<Tile<Group, 2, kNodes>>>::kSolution);
    const Unsure unsure = cayley_step(tile, h, guess, task, a, row, out);
    if (layout.to_weights) to_half_dt[0] += add_edge_currents(tile, task, row, out, partial, t == begin);
    cayley_decide(tile, h, task, a, row, unsure);
  }
  if (!layout.to_weights) return;
  sum(group, to_half_dt, tile.scratch);
  if (group.rank() == 0) partial[task.graph.edges] = to_half_dt[0];
}

struct CayleyPrepareKernel {
  static constexpr int kMostThreads = TilePlan::kMostThreads;
  CayleyTask task;
  CayleyLayout layout;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    cayley_prepare(group, task, layout);
  }
};

template <int kNodes>
struct CayleySolveKernel {
  static constexpr int kMostThreads = TilePlan::kMostThreads;
  CayleyTask task;
  CayleyLayout layout;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    cayley_solve<kNodes>(group, task, layout);
  }
};

template <class Launcher>
void run_cayley_solve(const CayleyTask& task, const CayleyLayout& layout, Launcher& launch) {
  const TilePlan& plan = layout.plan;
  if (plan.nodes_per_thread == TilePlan::kFewNodes)
    launch(CayleySolveKernel<TilePlan::kFewNodes>{task, layout}, layout.groups, plan.group_size, plan.local_floats);
  else if (plan.nodes_per_thread == TilePlan::kManyNodes)
    launch(CayleySolveKernel<TilePlan::kManyNodes>{task, layout}, layout.groups, plan.group_size, plan.local_floats);
  else
    launch(CayleySolveKernel<0>{task, layout}, layout.groups, plan.group_size, plan.local_floats);
}

template <class Launcher>
void run(const CayleyTask& task, Launcher& launch) {
  const CayleyLayout layout(task, launch.limits());
  if (task.rows > 0)
    launch(CayleyPrepareKernel{task, layout}, 1, layout.prepare_group_size, layout.prepare_local_floats);
  run_cayley_solve(task, layout, launch);
  if (layout.to_weights) run_column_sums(layout.sums(task), launch);
}

inline std::int64_t floats(const CayleyForward<float>& args, const Limits& limits) {
  return CayleyLayout(task_of(args, nullptr), limits).floats;
}
inline std::int64_t floats(const CayleyBackward<float>& args, const Limits& limits) {
  return CayleyLayout(task_of(args, nullptr), limits).floats;
}
template <class Launcher>
void run(const CayleyForward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace), launch);
}
template <class Launcher>
void run(const CayleyBackward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace), launch);
}

}  // namespace sem::device
