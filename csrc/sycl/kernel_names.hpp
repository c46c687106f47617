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
SEM_KERNEL_NAME(DiffractionPrepareKernel)
SEM_KERNEL_NAME(DiffractionSwitchOffKernel)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::square, true>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::square, false>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::round, true>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::round, false>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::gauss, true>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::gauss, false>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::tophat, true>)
SEM_KERNEL_NAME(DiffractionForwardKernel<sem::DomainShape::tophat, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::square, true, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::square, false, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::square, false, true>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::round, true, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::round, false, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::round, false, true>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::gauss, true, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::gauss, false, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::gauss, false, true>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::tophat, true, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::tophat, false, false>)
SEM_KERNEL_NAME(DiffractionBackwardKernel<sem::DomainShape::tophat, false, true>)
SEM_KERNEL_NAME(DiffractionFinishKernel)

#undef SEM_KERNEL_NAME

}  // namespace sem::xpu
