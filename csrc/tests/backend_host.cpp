#include "device/pit.hpp"
#include "device/scan.hpp"
#include "tests/backend.hpp"
#include "tests/host_group.hpp"

namespace sem::backend {

using testing::HostGroup;
using testing::launch_on_host;

namespace {

std::vector<float> workspace_of(std::int64_t floats) {
  return std::vector<float>(static_cast<std::size_t>(floats), std::numeric_limits<float>::quiet_NaN());
}

}  // namespace

std::string unavailable() { return {}; }

void pit_forward(const PitForward<float>& args, Queue) {
  const device::PitPlan plan(args.rows, args.width, args.num_bins, false, args.kerr != nullptr);
  auto workspace = workspace_of(plan.workspace_floats);
  launch_on_host(plan.groups, plan.group_size, plan.local_floats, [&](const HostGroup& group) {
    if (plan.in_registers)
      device::pit_forward<true>(group, args, plan, workspace.data());
    else
      device::pit_forward<false>(group, args, plan, workspace.data());
  });
}

void pit_backward(const PitBackward<float>& args, Queue) {
  const device::PitPlan plan(args.rows, args.width, args.num_bins, true, args.kerr != nullptr);
  auto workspace = workspace_of(plan.workspace_floats);
  launch_on_host(plan.groups, plan.group_size, plan.local_floats, [&](const HostGroup& group) {
    if (plan.in_registers)
      device::pit_backward<true>(group, args, plan, workspace.data());
    else
      device::pit_backward<false>(group, args, plan, workspace.data());
  });
  const device::ColumnSums sums = device::pit_column_sums(args, plan, workspace.data());
  launch_on_host(sums.groups(), sums.kGroupSize, sums.kLocalFloats,
                 [&](const HostGroup& group) { device::column_sums(group, sums, group.id()); });
}

void scan_forward(const ScanForward<float>& args, Queue) {
  const device::ScanPlan plan(args.shape);
  launch_on_host(args.shape.batch * plan.tiles, plan.kGroupSize, plan.kForwardLocal,
                 [&](const HostGroup& group) { device::scan_forward(group, args); });
}

void scan_backward(const ScanBackward<float>& args, Queue) {
  const device::ScanPlan plan(args.shape);
  auto workspace = workspace_of(device::ScanPartials::floats(args.shape));
  const device::ScanPartials partials(args.shape, workspace.data());
  launch_on_host(args.shape.batch * plan.tiles, plan.kGroupSize, plan.kBackwardLocal,
                 [&](const HostGroup& group) { device::scan_backward(group, args, partials); });
  const device::ColumnSums sums = device::scan_column_sums(args, partials);
  const std::int64_t dt_groups = device::scan_dt_groups(args.shape);
  launch_on_host(dt_groups + sums.groups(), sums.kGroupSize, sums.kLocalFloats, [&](const HostGroup& group) {
    device::scan_backward_finish(group, args, partials, sums, dt_groups);
  });
}

}  // namespace sem::backend
