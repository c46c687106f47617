// The tests' back end through the entry points of a device's. Included once, by the file that defines, in sem::backend,
//
//   class Device {                                    one operator's work
//     const T* in(const T* host, std::int64_t count);   the array where kernels can read it
//     T* out(T* host, std::int64_t count, bool kept);   where they can write it; the host sees it after finish().
//     `kept`:
//                                                       kernels read what the host has there. An array that is read and
//                                                       written is one array on the device too
//     float* workspace(std::int64_t floats);
//     Queue queue();
//     void finish();
//   };
#pragma once

#include <string_view>

#include "device/entry.hpp"
#include "device/operators.hpp"
#include "tests/backend.hpp"

namespace sem::backend {

namespace {

// A visitor (sem/types.hpp) that takes an operator's arrays to the device.
class Staging {
 public:
  explicit Staging(Device& device) : device_(device) {}

  template <class Number>
  void operator()(const char*, Number&) {}
  void operator()(const char* name, bool& flag) { kept_ = kept_ || (flag && std::string_view(name) == "onto"); }
  void operator()(const char*, Graph& graph) { graph.visit(*this); }
  template <class T>
  void operator()(const char*, const T*& array, std::int64_t count, Values = Values::any) {
    array = device_.in(array, count);
  }
  template <class T>
  void operator()(const char*, T*& array, std::int64_t count) {
    array = device_.out(array, count, kept_);
  }
  template <class T>
  void optional(const char* name, T*& array, std::int64_t count) {
    if (array != nullptr) (*this)(name, array, count);
  }

 private:
  Device& device_;
  bool kept_ = false;
};

}  // namespace

template <class Args>
void run(const Args& args, Queue) {
  Device device;
  Args task = args;
  Staging staging(device);
  task.visit(staging);
  const std::int64_t floats = device::floats(task, SEM_BACKEND::limits(device.queue(), Args::kName));
  SEM_BACKEND::run(task, device.workspace(floats), device.queue());
  device.finish();
}
SEM_DEVICE_OPERATORS(SEM_INSTANTIATE_BACKEND)

}  // namespace sem::backend
