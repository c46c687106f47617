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

namespace sem::device {

// Forward: turn and cayley, with cayley.input = turn.out. Backward: all three; cayley.psi = turn.out is written again,
// cayley.input is the step's grad_out, and cayley.output = pit.grad_out lies between. Workspaces are the step's.
struct SolitonTask {
  PitForward<float> turn;
  CayleyTask cayley;
  PitBackward<float> pit;
  bool backward = false;
  float* workspace = nullptr;
};

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

}  // namespace sem::device
