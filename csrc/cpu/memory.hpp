// What the kernels tell the memory system about the arrays they are given.
#pragma once

#include <cstddef>
#include <cstdint>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "cpu/tile.hpp"

namespace sem::cpu::SEM_ISA {

// While one tile is computed, the memory of the array rows that are needed next: those of the coming tile to read, and
// those of this one to write. A tile's rows lie one after the other, so that node by node a node's share of lines is
// asked for and the transfer hides behind the arithmetic. Past the end of an array the hints go nowhere.
struct Ahead {
  std::uintptr_t read, write;

  Ahead(const float* in, const float* out, std::int64_t width, std::int64_t tile, std::int64_t tiles)
      : read(reinterpret_cast<std::uintptr_t>(in) + bytes(width) * (tile + (tile + 1 < tiles))),
        write(reinterpret_cast<std::uintptr_t>(out) + bytes(width) * tile) {}

  template <int kComponents>
  SEM_INLINE void fetch(std::int64_t node) const {
#pragma GCC unroll 2
    for (int c = 0; c < kComponents; ++c) {
      const auto at = static_cast<std::uintptr_t>((node * kComponents + c) * 64);
      __builtin_prefetch(reinterpret_cast<const void*>(read + at));
      __builtin_prefetch(reinterpret_cast<const void*>(write + at), 1);
    }
  }

 private:
  static std::uintptr_t bytes(std::int64_t width) {
    return static_cast<std::uintptr_t>(width) * kLanes * sizeof(float);
  }
};

// Asks for huge pages where a large output begins its life unmapped: with 4 KiB pages the faults of its first writing
// cost more than a sparse product.
inline void prefer_huge_pages(float* array, std::int64_t count) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kHugePage = std::uintptr_t{1} << 21;
  const auto begin = reinterpret_cast<std::uintptr_t>(array);
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t last = (begin + static_cast<std::uintptr_t>(count) * sizeof(float)) / kHugePage * kHugePage;
  if (first + 8 * kHugePage <= last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  static_cast<void>(array);
  static_cast<void>(count);
#endif
}

}  // namespace sem::cpu::SEM_ISA
