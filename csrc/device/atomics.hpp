// Atomic operations on whole numbers in global memory, whose result does not depend on the order they happen in.
#pragma once

#include <cstdint>

#include "device/group.hpp"

namespace sem::device {

#if defined(__CUDA_ARCH__)
SEM_DEVICE void atomic_add(std::uint64_t* to, std::uint64_t term) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(term));
}
SEM_DEVICE void atomic_max(std::uint32_t* to, std::uint32_t value) { atomicMax(to, value); }
SEM_DEVICE void atomic_min(std::uint64_t* to, std::uint64_t value) {
  atomicMin(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
SEM_DEVICE std::uint64_t atomic_load(const std::uint64_t* from) {
  return *reinterpret_cast<const volatile std::uint64_t*>(from);
}
#elif defined(__SYCL_DEVICE_ONLY__)
template <class T>
using AtomicRef = sycl::atomic_ref<T, sycl::memory_order::relaxed, sycl::memory_scope::device,
                                   sycl::access::address_space::global_space>;
SEM_DEVICE void atomic_add(std::uint64_t* to, std::uint64_t term) { AtomicRef<std::uint64_t>(*to).fetch_add(term); }
SEM_DEVICE void atomic_max(std::uint32_t* to, std::uint32_t value) { AtomicRef<std::uint32_t>(*to).fetch_max(value); }
SEM_DEVICE void atomic_min(std::uint64_t* to, std::uint64_t value) { AtomicRef<std::uint64_t>(*to).fetch_min(value); }
SEM_DEVICE std::uint64_t atomic_load(std::uint64_t* from) { return AtomicRef<std::uint64_t>(*from).load(); }
#else
// The host's threads, and what a compiler of device code sees of it when it compiles for the host.
template <class T, class Choose>
void atomic_update(T* to, Choose choose) {
  T held = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(to, &held, choose(held), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
SEM_DEVICE void atomic_add(std::uint64_t* to, std::uint64_t term) { __atomic_fetch_add(to, term, __ATOMIC_RELAXED); }
SEM_DEVICE void atomic_max(std::uint32_t* to, std::uint32_t value) {
  atomic_update(to, [=](std::uint32_t held) { return held < value ? value : held; });
}
SEM_DEVICE void atomic_min(std::uint64_t* to, std::uint64_t value) {
  atomic_update(to, [=](std::uint64_t held) { return value < held ? value : held; });
}
SEM_DEVICE std::uint64_t atomic_load(const std::uint64_t* from) { return __atomic_load_n(from, __ATOMIC_RELAXED); }
#endif

}  // namespace sem::device
