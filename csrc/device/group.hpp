// What a kernel body knows of the threads that run it, the same for CUDA and SYCL.
//
// A device kernel is one template over `Group`, in csrc/device, and a few lines per back end that launch it. A Group is
// CUDA's thread block or SYCL's work-group:
//
//   int rank() const;               this thread's number in the group, from 0
//   int size() const;               threads in the group: a power of two, a multiple of the sub-group's size
//   int sub_group_size() const;     threads that exchange registers: those of equal rank() / sub_group_size()
//   std::int64_t id() const;        this group's number in the launch, from 0
//   std::int64_t count() const;     groups in the launch
//   void barrier() const;           all threads of the group; makes writes to local and global memory visible to it
//   bool any(bool) const;           whether it holds for a thread of the group; a barrier too
//   float* local() const;           the group's local (CUDA: shared) memory, 16-byte aligned, sized by the host
//   float shuffle_xor(float value, int mask) const;         the value of the thread whose rank differs by `mask`, which
//   std::int32_t shuffle_xor(std::int32_t, int) const;      is less than sub_group_size()
//
// Sums over a group are those of reduce.hpp and fold.hpp. Bodies use float only (many Intel GPUs have no double), no
// atomics but on whole numbers (atomics.hpp), no allocation, and the functions of math.hpp and two_float.hpp.
#pragma once

#if defined(__CUDACC__)
#define SEM_DEVICE __device__ __forceinline__
#define SEM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SEM_DEVICE inline
#define SEM_HOST_DEVICE inline
#endif

// Before a loop of constant length whose arrays are to stay in registers; and before one whose loads, taken more than
// two at a time, would leave too few of them.
#if defined(__CUDACC__) || defined(__clang__)
#define SEM_UNROLL _Pragma("unroll")
#define SEM_UNROLL_TWICE _Pragma("unroll 2")
#else
#define SEM_UNROLL _Pragma("GCC unroll 64")
#define SEM_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
