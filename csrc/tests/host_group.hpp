// A Group whose threads take turns on one thread of the host: device kernels run, and no device is needed.
//
// A thread runs up to a barrier, then its neighbour does; the last one that arrives goes on first, and the turn comes
// back the other way. So what is read before a barrier says that it is there is missing for some threads, in every run,
// and what is overwritten too early is gone for others. Which end begins changes from group to group and from launch to
// launch.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "device/group.hpp"

namespace sem::testing {

// Threads that take turns, each on a stack of its own.
class Turns {
 public:
  // work(rank) for ranks below `size`; returns when all have returned.
  static void take(int size, std::function<void(Turns&, int)> work) {
    Turns turns(size, std::move(work));
    if (takes_++ % 2 != 0) {
      turns.running_ = size - 1;
      turns.step_ = -1;
    }
    entering_ = &turns;
    swapcontext(&turns.caller_, &turns.threads_[turns.running_].context);
  }

  // Of the thread that runs: waits for all others.
  void barrier() {
    const int from = running_;
    if (!is_thread(from + step_)) {
      step_ = -step_;  // all are here, so this one goes on
      return;
    }
    give_turn();
    swapcontext(&threads_[from].context, &threads_[running_].context);
  }

 private:
  static constexpr std::size_t kStack = 256 * 1024;

  struct Thread {
    ucontext_t context;
    std::unique_ptr<std::byte[]> stack;
    bool has_left = false;
  };

  Turns(int size, std::function<void(Turns&, int)> work) : work_(std::move(work)), threads_(size) {
    for (Thread& thread : threads_) prepare(thread);
  }

  // By itself: no loop may go around a function that can return twice.
  [[gnu::noinline]] void prepare(Thread& thread) {
    thread.stack = std::make_unique_for_overwrite<std::byte[]>(kStack);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = &caller_;
    makecontext(&thread.context, enter, 0);
  }

  static void enter() {
    Turns& turns = *entering_;
    const int rank = turns.running_;
    turns.work_(turns, rank);
    turns.threads_[rank].has_left = true;
    if (!turns.is_thread(rank + turns.step_)) return;  // to the caller: all have left
    turns.give_turn();
    setcontext(&turns.threads_[turns.running_].context);
  }

  bool is_thread(int rank) const { return rank >= 0 && rank < static_cast<int>(threads_.size()); }

  void give_turn() {
    running_ += step_;
    if (!threads_[running_].has_left) return;
    std::fprintf(stderr, "thread %d of a group waits at a barrier after thread %d has left\n", running_ - step_,
                 running_);
    std::abort();
  }

  static inline thread_local Turns* entering_;
  static inline thread_local unsigned takes_ = 0;
  std::function<void(Turns&, int)> work_;
  std::vector<Thread> threads_;
  ucontext_t caller_;
  int running_ = 0, step_ = 1;
};

class HostGroup {
 public:
  static constexpr int kSubGroup = 8;

  // What the threads of a group share. Local memory starts as NaN: a kernel that reads before it writes is seen.
  struct Shared {
    Shared(int size, std::int64_t local_floats)
        : local(local_floats, std::numeric_limits<float>::quiet_NaN()), exchange(size), whole(size) {}
    std::vector<float> local, exchange;
    std::vector<std::int32_t> whole;
  };

  HostGroup(Turns& turns, Shared& shared, int rank, int size, std::int64_t id, std::int64_t count)
      : turns_(turns), shared_(shared), rank_(rank), size_(size), id_(id), count_(count) {}

  int rank() const { return rank_; }
  int size() const { return size_; }
  std::int64_t id() const { return id_; }
  std::int64_t count() const { return count_; }
  float* local() const { return shared_.local.data(); }
  void barrier() const { turns_.barrier(); }
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

  Turns& turns_;
  Shared& shared_;
  int rank_, size_;
  std::int64_t id_, count_;
};

// body(group) for `groups` groups of `size` threads, one group after the other.
template <class Body>
void launch_on_host(std::int64_t groups, int size, std::int64_t local_floats, Body body) {
  if (groups == 0) return;
  HostGroup::Shared shared(size, local_floats);
  Turns::take(size, [&](Turns& turns, int rank) {
    for (std::int64_t id = 0; id < groups; ++id) {
      body(HostGroup(turns, shared, rank, size, id, groups));
      turns.barrier();
      if (id % 2 == 0) turns.barrier();  // so that groups with the same number of barriers do not all begin at one end
    }
  });
}

}  // namespace sem::testing
