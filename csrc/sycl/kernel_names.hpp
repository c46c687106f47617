// The kernels' names in the source that is compiled at run time.
#pragma once

#include "device/operators.hpp"

namespace sem::xpu {

template <class Kernel>
struct KernelName;

#define SEM_KERNEL_NAME(...)                          \
  template <>                                         \
  struct KernelName<device::__VA_ARGS__> {            \
    static constexpr const char* name = #__VA_ARGS__; \
  };

SEM_KERNEL_NAME(ColumnSumsKernel)
SEM_KERNEL_NAME(LaplacianForwardKernel<1>)
SEM_KERNEL_NAME(LaplacianForwardKernel<2>)
SEM_KERNEL_NAME(LaplacianWeightKernel<1>)
SEM_KERNEL_NAME(LaplacianWeightKernel<2>)
SEM_KERNEL_NAME(CayleyPrepareKernel)
SEM_KERNEL_NAME(CayleySolveKernel<0>)
SEM_KERNEL_NAME(CayleySolveKernel<2>)
SEM_KERNEL_NAME(CayleySolveKernel<8>)
SEM_KERNEL_NAME(LaplacianCgPrepareKernel)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<1, 0>)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<1, 2>)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<1, 8>)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<2, 0>)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<2, 2>)
SEM_KERNEL_NAME(LaplacianCgSolveKernel<2, 8>)
SEM_KERNEL_NAME(PitForwardKernel<true>)
SEM_KERNEL_NAME(PitForwardKernel<false>)
SEM_KERNEL_NAME(PitBackwardKernel<true>)
SEM_KERNEL_NAME(PitBackwardKernel<false>)
SEM_KERNEL_NAME(SolitonTurnKernel<true>)
SEM_KERNEL_NAME(SolitonTurnKernel<false>)
SEM_KERNEL_NAME(SolitonSumsKernel)
SEM_KERNEL_NAME(ScanForwardKernel)
SEM_KERNEL_NAME(ScanBackwardKernel)
SEM_KERNEL_NAME(ScanBackwardFinishKernel)

#undef SEM_KERNEL_NAME

}  // namespace sem::xpu
