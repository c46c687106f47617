#include "cpu/dispatch.hpp"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "sem/operators.hpp"

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
  for (const auto& [name, level] : {std::pair{"baseline", SimdLevel::baseline}, std::pair{"avx2", SimdLevel::avx2},
                                    std::pair{"avx512", SimdLevel::avx512}})
    if (std::strcmp(asked, name) == 0) return level < best ? level : best;
  throw std::invalid_argument(std::string("SEM_SIMD: expected baseline, avx2 or avx512, got ") + asked);
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
#define SEM_DISPATCH(Args)                         \
  namespace baseline {                             \
  void run(const Args<float>&, Queue);             \
  }                                                \
  namespace avx2 {                                 \
  void run(const Args<float>&, Queue);             \
  }                                                \
  namespace avx512 {                               \
  void run(const Args<float>&, Queue);             \
  }                                                \
  template <>                                      \
  void run(const Args<float>& args, Queue queue) { \
    switch (simd_level()) {                        \
      case SimdLevel::avx512:                      \
        return avx512::run(args, queue);           \
      case SimdLevel::avx2:                        \
        return avx2::run(args, queue);             \
      case SimdLevel::baseline:                    \
        return baseline::run(args, queue);         \
    }                                              \
  }
#else
#define SEM_DISPATCH(Args)                         \
  namespace baseline {                             \
  void run(const Args<float>&, Queue);             \
  }                                                \
  template <>                                      \
  void run(const Args<float>& args, Queue queue) { \
    baseline::run(args, queue);                    \
  }
#endif

SEM_OPERATORS(SEM_DISPATCH)
SEM_DISPATCH(DiffractionTrace)

}  // namespace sem::cpu
