// Every operator's launches, once for all back ends.
//
// A Launcher belongs to a back end and knows the caller's stream or queue:
//
//   Limits limits() const;                                       of the device
//   void operator()(kernel, groups, group_size, local_floats);   enqueues kernel(group) for every group; none if there
//                                                                are none
//
// A kernel is a trivially copyable struct called with a Group (group.hpp) of kMostThreads at most.
//
// For each struct of arguments in sem/operators.hpp that devices have a kernel for:
//
//   std::int64_t floats(args, limits);       of the caller's workspace
//   void run(args, workspace, launch);
#pragma once

#include <cstdint>

#include "device/cayley.hpp"
#include "device/diffraction.hpp"
#include "device/laplacian.hpp"
#include "device/laplacian_cg.hpp"
#include "device/pit.hpp"
#include "device/scan.hpp"
#include "device/soliton_step.hpp"

namespace sem::device {

template <int kComponents>
struct LaplacianForwardKernel {
  static constexpr int kMostThreads = LaplacianPlan::kGroupSize;
  LaplacianForward<float> args;
  LaplacianPlan plan;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_forward<kComponents>(group, args, plan);
  }
};

inline std::int64_t floats(const LaplacianForward<float>&, const Limits&) { return 0; }

template <class Launcher>
void run(const LaplacianForward<float>& args, float*, Launcher& launch) {
  const LaplacianPlan plan(args);
  if (args.components == 1)
    launch(LaplacianForwardKernel<1>{args, plan}, plan.groups, LaplacianPlan::kGroupSize, 0);
  else
    launch(LaplacianForwardKernel<2>{args, plan}, plan.groups, LaplacianPlan::kGroupSize, 0);
}

template <int kComponents>
struct LaplacianWeightKernel {
  static constexpr int kMostThreads = LaplacianWeightPlan::kGroupSize;
  LaplacianWeightGradient<float> args;
  LaplacianWeightPlan plan;
  float* partial;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    laplacian_weight_gradient<kComponents>(group, args, plan, partial);
  }
};

inline std::int64_t floats(const LaplacianWeightGradient<float>& args, const Limits&) {
  return LaplacianWeightPlan(args).floats(args);
}

template <class Launcher>
void run(const LaplacianWeightGradient<float>& args, float* workspace, Launcher& launch) {
  const LaplacianWeightPlan plan(args);
  if (args.components == 1)
    launch(LaplacianWeightKernel<1>{args, plan, workspace}, plan.groups(), LaplacianWeightPlan::kGroupSize, 0);
  else
    launch(LaplacianWeightKernel<2>{args, plan, workspace}, plan.groups(), LaplacianWeightPlan::kGroupSize, 0);
  run_column_sums(plan.sums(args, workspace), launch);
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

template <bool kInRegisters>
struct PitForwardKernel {
  static constexpr int kMostThreads = PitPlan::kMostThreads;
  PitForward<float> args;
  PitPlan plan;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    pit_forward<kInRegisters>(group, args, plan, workspace);
  }
};

inline PitPlan plan_of(const PitForward<float>& args) {
  return PitPlan(args.rows, args.width, args.num_bins, false, args.kerr != nullptr);
}
inline std::int64_t floats(const PitForward<float>& args, const Limits&) { return plan_of(args).workspace_floats; }

template <class Launcher>
void run(const PitForward<float>& args, float* workspace, Launcher& launch) {
  const PitPlan plan = plan_of(args);
  if (plan.in_registers)
    launch(PitForwardKernel<true>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
  else
    launch(PitForwardKernel<false>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
}

template <bool kInRegisters>
struct PitBackwardKernel {
  static constexpr int kMostThreads = PitPlan::kMostThreads;
  PitBackward<float> args;
  PitPlan plan;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    pit_backward<kInRegisters>(group, args, plan, workspace);
  }
};

inline PitPlan plan_of(const PitBackward<float>& args, const Limits& limits) {
  return PitPlan(args.rows, args.width, args.num_bins, true, args.kerr != nullptr, limits.summing_groups);
}
inline std::int64_t floats(const PitBackward<float>& args, const Limits& limits) {
  return plan_of(args, limits).workspace_floats;
}

template <class Launcher>
void run_pit_rows(const PitBackward<float>& args, const PitPlan& plan, float* workspace, Launcher& launch) {
  if (plan.in_registers)
    launch(PitBackwardKernel<true>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
  else
    launch(PitBackwardKernel<false>{args, plan, workspace}, plan.groups, plan.group_size, plan.local_floats);
}

template <class Launcher>
void run(const PitBackward<float>& args, float* workspace, Launcher& launch) {
  const PitPlan plan = plan_of(args, launch.limits());
  run_pit_rows(args, plan, workspace, launch);
  run_column_sums(pit_column_sums(args, plan, workspace), launch);
}

// Group 0 prepares the solve, the others turn the rows.
template <bool kInRegisters>
struct SolitonTurnKernel {
  static constexpr int kMostThreads = PitPlan::kMostThreads;
  PitForward<float> turn;
  PitPlan plan;
  CayleyTask cayley;
  CayleyLayout layout;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    if (group.id() == 0)
      cayley_prepare(group, cayley, layout);
    else
      pit_forward<kInRegisters>(LaterGroups<Group>(group, 1), turn, plan, workspace);
  }
};

struct SolitonSumsKernel {
  static constexpr int kMostThreads = ColumnSums::kGroupSize;
  ColumnSums pit, cayley;
  std::int64_t pit_groups;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    if (group.id() < pit_groups)
      column_sums(group, pit, group.id());
    else
      column_sums(group, cayley, group.id() - pit_groups);
  }
};

template <class Launcher>
void run(const SolitonTask& task, Launcher& launch) {
  const SolitonLayout layout(task, launch.limits());
  const PitPlan& turn = layout.turn;
  CayleyTask cayley = task.cayley;
  cayley.workspace = task.workspace + layout.cayley_at;
  const std::int64_t groups = turn.groups == 0 ? 0 : turn.groups + 1;
  if (turn.in_registers)
    launch(SolitonTurnKernel<true>{task.turn, turn, cayley, layout.cayley, task.workspace}, groups, turn.group_size,
           layout.turn_local_floats());
  else
    launch(SolitonTurnKernel<false>{task.turn, turn, cayley, layout.cayley, task.workspace}, groups, turn.group_size,
           layout.turn_local_floats());
  run_cayley_solve(cayley, layout.cayley, launch);
  if (!task.backward) return;
  float* const workspace = task.workspace + layout.pit_at;
  run_pit_rows(task.pit, layout.pit, workspace, launch);
  const ColumnSums pit = pit_column_sums(task.pit, layout.pit, workspace);
  const ColumnSums weights = layout.cayley.to_weights ? layout.cayley.sums(cayley) : ColumnSums{};
  launch(SolitonSumsKernel{pit, weights, pit.groups()}, pit.groups() + weights.groups(), ColumnSums::kGroupSize,
         ColumnSums::kLocalFloats);
}

// The waves come first.
inline std::int64_t floats(const SolitonStepForward<float>& args, const Limits& limits) {
  return wave_floats(args) + SolitonLayout(task_of(args, nullptr, nullptr), limits).floats;
}
inline std::int64_t floats(const SolitonStepBackward<float>& args, const Limits& limits) {
  return 2 * wave_floats(args) + SolitonLayout(task_of(args, nullptr, nullptr), limits).floats;
}
template <class Launcher>
void run(const SolitonStepForward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace, workspace + wave_floats(args)), launch);
}
template <class Launcher>
void run(const SolitonStepBackward<float>& args, float* workspace, Launcher& launch) {
  run(task_of(args, workspace, workspace + 2 * wave_floats(args)), launch);
}

struct ScanForwardKernel {
  static constexpr int kMostThreads = ScanPlan::kGroupSize;
  ScanForward<float> args;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_forward(group, args);
  }
};

inline std::int64_t floats(const ScanForward<float>&, const Limits&) { return 0; }

template <class Launcher>
void run(const ScanForward<float>& args, float*, Launcher& launch) {
  const ScanPlan plan(args.shape);
  launch(ScanForwardKernel{args}, args.shape.batch * plan.tiles, ScanPlan::kGroupSize, ScanPlan::kForwardLocal);
}

struct ScanBackwardKernel {
  static constexpr int kMostThreads = ScanPlan::kGroupSize;
  ScanBackward<float> args;
  ScanPartials partials;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_backward(group, args, partials);
  }
};

struct ScanBackwardFinishKernel {
  static constexpr int kMostThreads = ColumnSums::kGroupSize;
  ScanBackward<float> args;
  ScanPartials partials;
  ColumnSums sums;
  std::int64_t dt_groups;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_backward_finish(group, args, partials, sums, dt_groups);
  }
};

inline std::int64_t floats(const ScanBackward<float>& args, const Limits&) { return ScanPartials::floats(args.shape); }

template <class Launcher>
void run(const ScanBackward<float>& args, float* workspace, Launcher& launch) {
  const ScanPlan plan(args.shape);
  const ScanPartials partials(args.shape, workspace);
  launch(ScanBackwardKernel{args, partials}, args.shape.batch * plan.tiles, ScanPlan::kGroupSize,
         ScanPlan::kBackwardLocal);
  const ColumnSums sums = scan_column_sums(args, partials);
  const std::int64_t dt_groups = scan_dt_groups(args.shape);
  launch(ScanBackwardFinishKernel{args, partials, sums, dt_groups}, dt_groups + sums.groups(), ColumnSums::kGroupSize,
         ColumnSums::kLocalFloats);
}

}  // namespace sem::device
