// Picks the widest instruction set that this processor has, once per process.
#pragma once

namespace sem::cpu {

enum class SimdLevel { baseline, avx2, avx512 };

// The environment variable SEM_SIMD (baseline, avx2, avx512) asks for a lower level than the processor's best.
SimdLevel simd_level();
const char* simd_level_name();

}  // namespace sem::cpu
