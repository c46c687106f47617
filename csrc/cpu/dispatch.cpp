#include "cpu/dispatch.hpp"

#include <cstdlib>
#include <cstring>

#include "sem/causal_conv.hpp"
#include "sem/cayley.hpp"
#include "sem/diffraction.hpp"
#include "sem/gated_rotation.hpp"
#include "sem/laplacian.hpp"
#include "sem/laplacian_cg.hpp"
#include "sem/pit.hpp"
#include "sem/rms_norm.hpp"
#include "sem/scan.hpp"
#include "sem/state_space.hpp"

namespace sem::cpu {
namespace {

SimdLevel best_level() {
#ifdef SEM_X86_LEVELS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return SimdLevel::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return SimdLevel::avx2;
#endif
  return SimdLevel::baseline;
}

SimdLevel choose_level() {
  const SimdLevel best = best_level();
  const char* asked = std::getenv("SEM_SIMD");
  if (asked == nullptr) return best;
  SimdLevel level = best;
  if (std::strcmp(asked, "baseline") == 0) level = SimdLevel::baseline;
  if (std::strcmp(asked, "avx2") == 0) level = SimdLevel::avx2;
  return level < best ? level : best;
}

}  // namespace

SimdLevel simd_level() {
  static const SimdLevel level = choose_level();
  return level;
}

const char* simd_level_name() {
  switch (simd_level()) {
    case SimdLevel::avx512:
      return "avx512";
    case SimdLevel::avx2:
      return "avx2";
    case SimdLevel::baseline:
      break;
  }
  return "baseline";
}

#ifdef SEM_X86_LEVELS
#define SEM_DISPATCH(name, Args)             \
  namespace baseline {                       \
  void name(const Args&, Queue);             \
  }                                          \
  namespace avx2 {                           \
  void name(const Args&, Queue);             \
  }                                          \
  namespace avx512 {                         \
  void name(const Args&, Queue);             \
  }                                          \
  void name(const Args& args, Queue queue) { \
    switch (simd_level()) {                  \
      case SimdLevel::avx512:                \
        return avx512::name(args, queue);    \
      case SimdLevel::avx2:                  \
        return avx2::name(args, queue);      \
      case SimdLevel::baseline:              \
        return baseline::name(args, queue);  \
    }                                        \
  }
#else
#define SEM_DISPATCH(name, Args) \
  namespace baseline {           \
  void name(const Args&, Queue); \
  }                              \
  void name(const Args& args, Queue queue) { baseline::name(args, queue); }
#endif

SEM_DISPATCH(laplacian_forward, LaplacianForward<float>)
SEM_DISPATCH(laplacian_weight_gradient, LaplacianWeightGradient<float>)
SEM_DISPATCH(cayley_forward, CayleyForward<float>)
SEM_DISPATCH(cayley_backward, CayleyBackward<float>)
SEM_DISPATCH(laplacian_cg_forward, LaplacianCgForward<float>)
SEM_DISPATCH(laplacian_cg_backward, LaplacianCgBackward<float>)
SEM_DISPATCH(pit_forward, PitForward<float>)
SEM_DISPATCH(pit_backward, PitBackward<float>)
SEM_DISPATCH(scan_forward, ScanForward<float>)
SEM_DISPATCH(scan_backward, ScanBackward<float>)
SEM_DISPATCH(rms_norm_forward, RmsNormForward<float>)
SEM_DISPATCH(rms_norm_backward, RmsNormBackward<float>)
SEM_DISPATCH(gated_rotation_forward, GatedRotationForward<float>)
SEM_DISPATCH(gated_rotation_backward, GatedRotationBackward<float>)
SEM_DISPATCH(causal_conv_forward, CausalConvForward<float>)
SEM_DISPATCH(causal_conv_backward, CausalConvBackward<float>)
SEM_DISPATCH(state_space_forward, StateSpaceForward<float>)
SEM_DISPATCH(state_space_backward, StateSpaceBackward<float>)
SEM_DISPATCH(diffraction_forward, DiffractionForward<float>)
SEM_DISPATCH(diffraction_backward, DiffractionBackward<float>)
SEM_DISPATCH(diffraction_trace, DiffractionTrace)

}  // namespace sem::cpu
