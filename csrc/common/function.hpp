// How formulas are declared that the CPU's kernels and devices share.
//
// The CPU's kernels are compiled once per instruction set, and a function that two of them emitted would be linked into
// both, with instructions that the one may not use. So everything here is inlined by force, and nothing is a lambda.
#pragma once

#if defined(__CUDACC__)
#define SEM_COMMON __device__ __forceinline__
#else
#define SEM_COMMON inline __attribute__((always_inline))
#endif
