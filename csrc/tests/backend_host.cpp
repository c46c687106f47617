// The device kernels on the host (host_group.hpp).
#define SEM_BACKEND host
#include "device/entry.hpp"
#include "device/operators.hpp"
#include "tests/backend.hpp"
#include "tests/host_group.hpp"

namespace sem::host {

class Launcher {
 public:
  // Few groups that sum over rows, so that each has several.
  device::Limits limits() const { return {64 * 1024, 64, testing::HostGroup::kSubGroup, 3}; }

  template <class Kernel>
  void operator()(const Kernel& kernel, std::int64_t groups, int group_size, std::int64_t local_floats) {
    testing::launch_on_host(groups, group_size, local_floats, [&](const testing::HostGroup& group) { kernel(group); });
  }
};

device::Limits limits(Queue, const char*) { return Launcher().limits(); }

template <class Args>
void run(const Args& args, float* workspace, Queue) {
  Launcher launch;
  device::run(args, workspace, launch);
}
SEM_DEVICE_OPERATORS(SEM_INSTANTIATE_RUN)

}  // namespace sem::host

namespace sem::backend {
namespace {

class Device {
 public:
  template <class T>
  const T* in(const T* host, std::int64_t) const {
    return host;
  }
  template <class T>
  T* out(T* host, std::int64_t, bool) const {
    return host;
  }
  float* workspace(std::int64_t floats) {
    workspace_.assign(static_cast<std::size_t>(floats), std::numeric_limits<float>::quiet_NaN());
    return workspace_.data();
  }
  Queue queue() const { return {}; }
  void finish() const {}

 private:
  std::vector<float> workspace_;
};

}  // namespace

std::string unavailable() { return {}; }

}  // namespace sem::backend

#include "tests/device_backend.hpp"
