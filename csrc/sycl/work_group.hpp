// A work-group as the Group that kernel bodies know (device/group.hpp).
#pragma once

#include <cstdint>
#include <sycl/sycl.hpp>

namespace sem::xpu {

template <int kSubGroup>
class Group {
 public:
  Group(const sycl::nd_item<1>& item, float* local) : item_(item), local_(local) {}

  // From the sub-group's numbers, so that rank() % sub_group_size() is what shuffles go by.
  int rank() const {
    const sycl::sub_group part = item_.get_sub_group();
    return static_cast<int>(part.get_group_linear_id() * kSubGroup + part.get_local_linear_id());
  }
  int size() const { return static_cast<int>(item_.get_local_range(0)); }
  static constexpr int sub_group_size() { return kSubGroup; }
  std::int64_t id() const { return static_cast<std::int64_t>(item_.get_group(0)); }
  std::int64_t count() const { return static_cast<std::int64_t>(item_.get_group_range(0)); }
  void barrier() const { sycl::group_barrier(item_.get_group()); }
  bool any(bool condition) const { return sycl::any_of_group(item_.get_group(), condition); }
  float* local() const { return local_; }
  template <class T>
  T shuffle_xor(T value, int mask) const {
    return sycl::permute_group_by_xor(item_.get_sub_group(), value, static_cast<std::size_t>(mask));
  }

 private:
  sycl::nd_item<1> item_;
  float* local_;
};

}  // namespace sem::xpu
