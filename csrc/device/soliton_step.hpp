// A propagator layer's step, out = cayley(pit(psi)), in as few launches as its data allow: two forward, four backward.
//
//   forward:   pit and the solve's preparation (one group of the same launch), the solve
//   backward:  the wave between the two again, and the preparation; the solve; pit's gradients; both sums over rows
//
// Preparation reads weights alone, so it runs beside the rows of pit instead of before the solve.
#pragma once

#include <cstdint>

#include "device/cayley.hpp"
#include "device/pit.hpp"
#include "sem/soliton_step.hpp"

namespace sem::device {

// Forward: turn and cayley, with cayley.input = turn.out. Backward: all three; cayley.psi = turn.out is written again,
// cayley.input is the step's grad_out, and cayley.output = pit.grad_out lies between. The waves between the parts come
// first in the caller's workspace, then what SolitonLayout lays out.
struct SolitonTask {
  PitForward<float> turn;
  CayleyTask cayley;
  PitBackward<float> pit;
  bool backward = false;
  float* workspace = nullptr;
};

// Of a wave between two parts.
template <class Args>
std::int64_t wave_floats(const Args& args) {
  return (args.rows * args.graph.nodes * 2 + 15) / 16 * 16;
}

// `waves`: wave_floats(args) floats; backward: twice as many.
inline SolitonTask task_of(const SolitonStepForward<float>& args, float* waves, float* workspace) {
  SolitonTask task;
  task.turn = args.turn(waves);
  task.cayley = task_of(args.step(waves), nullptr);
  task.workspace = workspace;
  return task;
}

inline SolitonTask task_of(const SolitonStepBackward<float>& args, float* waves, float* workspace) {
  float* const grad_turned = waves == nullptr ? nullptr : waves + wave_floats(args);
  SolitonTask task;
  task.turn = args.turn(waves);
  task.cayley = task_of(args.step(waves, grad_turned), nullptr);
  task.pit = args.turn_back(grad_turned);
  task.backward = true;
  task.workspace = workspace;
  return task;
}

// Where the parts of a task's workspace lie, and how its shared launches are laid out.
struct SolitonLayout {
  SolitonLayout(const SolitonTask& task, const Limits& limits)
      : turn(task.turn.rows, task.turn.width, task.turn.num_bins, false, task.turn.kerr != nullptr),
        cayley(task.cayley, limits, turn.group_size) {
    cayley_at = aligned(turn.workspace_floats);
    floats = cayley_at + cayley.floats;
    if (!task.backward) return;
    pit = PitPlan(task.turn.rows, task.turn.width, task.turn.num_bins, true, task.turn.kerr != nullptr,
                  limits.summing_groups);
    pit_at = aligned(floats);
    floats = pit_at + pit.workspace_floats;
  }
  std::int64_t turn_local_floats() const {
    return turn.local_floats < cayley.prepare_local_floats ? cayley.prepare_local_floats : turn.local_floats;
  }

  PitPlan turn, pit;
  CayleyLayout cayley;
  std::int64_t cayley_at = 0, pit_at = 0, floats = 0;  // offsets in the workspace, and its size

 private:
  static std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }
};

// The groups of a launch from number `first` on, numbered from 0 again.
template <class Group>
class LaterGroups : public Group {
 public:
  SEM_DEVICE LaterGroups(const Group& group, std::int64_t first) : Group(group), first_(first) {}
  SEM_DEVICE std::int64_t id() const { return Group::id() - first_; }
  SEM_DEVICE std::int64_t count() const { return Group::count() - first_; }

 private:
  std::int64_t first_;
};

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

}  // namespace sem::device
