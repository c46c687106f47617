// The SYCL back end on the first CPU device: kernels read and write the host's arrays themselves.
#define SEM_BACKEND xpu
#include <cstdlib>
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
  Queue queue() const { return Queue{&device_queue(), 1}; }
  void finish() const { device_queue().wait_and_throw(); }

 private:
  std::vector<float> workspace_;
};

}  // namespace

// With SEM_REQUIRE_SYCL set, a missing device fails tests instead of skipping them.
std::string unavailable() {
  try {
    device_queue();
    return {};
  } catch (const sycl::exception& error) {
    if (std::getenv("SEM_REQUIRE_SYCL") != nullptr) throw;
    return std::string("no SYCL CPU device: ") + error.what();
  }
}

}  // namespace sem::backend

#include "tests/device_backend.hpp"
