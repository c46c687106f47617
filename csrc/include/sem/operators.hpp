// Every operator's kernels: the lists that bindings, dispatch and device back ends are made from.
#pragma once

#include "sem/born_step.hpp"
#include "sem/causal_conv.hpp"
#include "sem/cayley.hpp"
#include "sem/complex_rms_norm.hpp"
#include "sem/diffraction.hpp"
#include "sem/encoder_step.hpp"
#include "sem/exit_waves.hpp"
#include "sem/far_residual.hpp"
#include "sem/gated_rotation.hpp"
#include "sem/laplacian_cg.hpp"
#include "sem/laplacian_matvec.hpp"
#include "sem/pit.hpp"
#include "sem/potential_step.hpp"
#include "sem/ring_echo.hpp"
#include "sem/scan.hpp"
#include "sem/shift_ramp.hpp"
#include "sem/soliton_step.hpp"
#include "sem/spinor_step.hpp"
#include "sem/state_space.hpp"
#include "sem/wave_gate.hpp"

// X(Args) for each struct of arguments that device back ends have a kernel for, and for those that the CPU alone has.
#define SEM_DEVICE_OPERATORS(X)    \
  X(LaplacianMatvecForward)        \
  X(LaplacianMatvecWeightGradient) \
  X(CayleyForward)                 \
  X(CayleyBackward)                \
  X(LaplacianCgForward)            \
  X(LaplacianCgBackward)           \
  X(PitForward)                    \
  X(PitBackward)                   \
  X(SolitonStepForward)            \
  X(SolitonStepBackward)           \
  X(ScanForward)                   \
  X(ScanBackward)                  \
  X(DiffractionForward)            \
  X(DiffractionBackward)           \
  X(ExitWavesForward)              \
  X(OverlapAdd)                    \
  X(FarResidual)                   \
  X(ShiftRampForward)              \
  X(ShiftRampBackward)
#define SEM_CPU_OPERATORS(X) \
  X(ComplexRmsNormForward)   \
  X(ComplexRmsNormBackward)  \
  X(GatedRotationForward)    \
  X(GatedRotationBackward)   \
  X(WaveGateForward)         \
  X(WaveGateBackward)        \
  X(PotentialStepForward)    \
  X(PotentialStepBackward)   \
  X(RingEchoForward)         \
  X(RingEchoBackward)        \
  X(CausalConvForward)       \
  X(CausalConvBackward)      \
  X(StateSpaceForward)       \
  X(StateSpaceBackward)      \
  X(SpinorStep)              \
  X(EncoderStep)             \
  X(BornStep)
#define SEM_OPERATORS(X)  \
  SEM_DEVICE_OPERATORS(X) \
  SEM_CPU_OPERATORS(X)
