// A Group whose threads are the host's: device kernels run, race detectors look at them, and no device is needed.
#pragma once

#include <barrier>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "device/group.hpp"

namespace sem::testing {

class HostGroup {
 public:
  static constexpr int kSubGroup = 8;

  // What the threads of a group share. Local memory starts as NaN: a kernel that reads before it writes is seen.
  struct Shared {
    Shared(int size, std::int64_t local_floats)
        : barrier(size), local(local_floats, std::numeric_limits<float>::quiet_NaN()), exchange(size), whole(size) {}
    std::barrier<> barrier;
    std::vector<float> local, exchange;
    std::vector<std::int32_t> whole;
  };

  HostGroup(Shared& shared, int rank, int size, std::int64_t id, std::int64_t count)
      : shared_(shared), rank_(rank), size_(size), id_(id), count_(count) {}

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::int64_t id() const { return id_; }
  std::int64_t count() const { return count_; }
  float* local() const { return shared_.local.data(); }
  void barrier() const { shared_.barrier.arrive_and_wait(); }
  int sub_group_size() const { return kSubGroup; }
  float shuffle_xor(float value, int mask) const { return exchanged(shared_.exchange, value, mask); }
  std::int32_t shuffle_xor(std::int32_t value, int mask) const { return exchanged(shared_.whole, value, mask); }
  bool any(bool condition) const {
    shared_.whole[rank_] = condition;
    barrier();
    bool found = false;
    for (int r = 0; r < size_; ++r) found = found || shared_.whole[r] != 0;
    barrier();
    return found;
  }

 private:
  template <class T>
  T exchanged(std::vector<T>& values, T value, int mask) const {
    values[rank_] = value;
    barrier();
    const T other = values[rank_ ^ mask];
    barrier();
    return other;
  }

  Shared& shared_;
  int rank_, size_;
  std::int64_t id_, count_;
};

// body(group) for `groups` groups of `size` threads, one group after the other.
template <class Body>
void launch_on_host(std::int64_t groups, int size, std::int64_t local_floats, Body body) {
  if (groups == 0) return;
  HostGroup::Shared shared(size, local_floats);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      for (std::int64_t id = 0; id < groups; ++id) {
        body(HostGroup(shared, rank, size, id, groups));
        shared.barrier.arrive_and_wait();
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace sem::testing
