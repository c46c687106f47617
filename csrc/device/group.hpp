// What a kernel body knows of the threads that run it, the same for CUDA and SYCL.
//
// A device kernel is one template over `Group`, in csrc/device, and a few lines per back end that launch it. A Group is
// CUDA's thread block or SYCL's work-group:
//
//   int rank() const;               this thread's number in the group, from 0
//   int size() const;               threads in the group: a power of two, a multiple of the sub-group's size
//   std::int64_t id() const;        this group's number in the launch, from 0
//   std::int64_t count() const;     groups in the launch
//   void barrier() const;           all threads of the group; makes writes to local memory visible
//   float* local() const;           the group's local (CUDA: shared) memory, 16-byte aligned, sized by the host
//   template <int K> void sum(float (&values)[K], float* scratch) const;
//
// `sum` replaces each value by its sum over the group, which every thread receives. The order of additions is fixed by
// the group's size alone, so bits do not change from run to run. `scratch` is local memory of K * size() floats at
// most, which the caller does not use at the same time; there is a barrier before and after.
//
// Bodies use float only (many Intel GPUs have no double), no atomics, no allocation, and the functions of math.hpp.
#pragma once

#if defined(__CUDACC__)
#define SEM_DEVICE __device__ __forceinline__
#else
#define SEM_DEVICE inline
#endif

// Before a loop of constant length whose arrays are to stay in registers.
#if defined(__CUDACC__) || defined(__clang__)
#define SEM_UNROLL _Pragma("unroll")
#else
#define SEM_UNROLL _Pragma("GCC unroll 64")
#endif
