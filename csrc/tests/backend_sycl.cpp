// The SYCL back end on the first CPU device: kernels read and write the host's arrays themselves.
#define SEM_BACKEND xpu
#include <sycl/sycl.hpp>

#include "device/entry.hpp"
#include "device/operators.hpp"
#include "sycl/runtime.hpp"
#include "tests/backend.hpp"

namespace sem::backend {
namespace {

// Never destroyed: a queue must not outlive SYCL's own libraries at exit.
sycl::queue& device_queue() {
  static sycl::queue* const queue = [] {
    xpu::set_sources(SEM_KERNEL_SOURCES);
    return new sycl::queue(sycl::cpu_selector_v, sycl::property::queue::in_order());
  }();
  return *queue;
}

template <class Use>
void run(Use use) {
  use(Queue{&device_queue(), 1});
  device_queue().wait_and_throw();
}

std::vector<float> workspace_of(std::int64_t floats) {
  return std::vector<float>(static_cast<std::size_t>(floats), std::numeric_limits<float>::quiet_NaN());
}

template <class Task, class Use>
void run_task(Task task, Use use) {
  auto workspace = workspace_of(device::floats(task, xpu::limits(Queue{&device_queue(), 1})));
  task.workspace = workspace.data();
  run([&](Queue queue) { use(task, queue); });
}

template <class Args, class Use>
void run_with_workspace(const Args& args, Use use) {
  auto workspace = workspace_of(device::floats(args));
  run([&](Queue queue) { use(args, workspace.data(), queue); });
}

}  // namespace

std::string unavailable() {
  try {
    device_queue();
    return {};
  } catch (const sycl::exception& error) {
    return std::string("no SYCL CPU device: ") + error.what();
  }
}

void laplacian_forward(const LaplacianForward<float>& args, Queue) {
  run([&](Queue queue) { xpu::laplacian_forward(args, queue); });
}

void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, Queue) {
  run_with_workspace(args, xpu::laplacian_weight_gradient);
}

void cayley_forward(const CayleyForward<float>& args, Queue) {
  device::CayleyTask task;
  task.graph = args.graph;
  task.rows = args.rows;
  task.edge_weight = args.edge_weight;
  task.half_dt = &args.half_dt;
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.input = args.psi;
  task.output = args.psi_out;
  task.report = args.report;
  run_task(task, xpu::cayley);
}

void cayley_backward(const CayleyBackward<float>& args, Queue) {
  device::CayleyTask task;
  task.graph = args.graph;
  task.rows = args.rows;
  task.edge_weight = args.edge_weight;
  task.half_dt = &args.half_dt;
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.input = args.grad_out;
  task.output = args.grad_psi;
  task.report = args.report;
  task.adjoint = true;
  task.psi = args.psi;
  task.psi_out = args.psi_out;
  task.grad_weight = args.grad_weight;
  task.grad_half_dt = args.grad_half_dt;
  run_task(task, xpu::cayley);
}

void laplacian_cg_forward(const LaplacianCgForward<float>& args, Queue) {
  device::LaplacianCgTask task;
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
  run_task(task, xpu::laplacian_cg);
}

void laplacian_cg_backward(const LaplacianCgBackward<float>& args, Queue) {
  device::LaplacianCgTask task;
  task.graph = args.graph;
  task.rows = args.rows;
  task.components = args.components;
  task.edge_weight = args.edge_weight;
  task.system = args.system;
  task.tol = args.tol;
  task.max_iter = args.max_iter;
  task.input = args.grad_out;
  task.output = args.grad_b;
  task.report = args.report;
  task.x = args.x;
  task.grad_weight = args.grad_weight;
  run_task(task, xpu::laplacian_cg);
}

void pit_forward(const PitForward<float>& args, Queue) { run_with_workspace(args, xpu::pit_forward); }

void pit_backward(const PitBackward<float>& args, Queue) { run_with_workspace(args, xpu::pit_backward); }

void scan_forward(const ScanForward<float>& args, Queue) {
  run([&](Queue queue) { xpu::scan_forward(args, queue); });
}

void scan_backward(const ScanBackward<float>& args, Queue) { run_with_workspace(args, xpu::scan_backward); }

}  // namespace sem::backend
