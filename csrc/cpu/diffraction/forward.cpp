#include "cpu/diffraction/forward.hpp"

#include "cpu/memory.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

template <class Kind>
void forward(const DiffractionForward<float>& args, const DiffractionPlan& plan, Queue queue) {
  using Kernel = ForwardKernel<Kind>;
  const DiffractionSettings& set = plan.set;
  const ScratchOf<Triple> tables(static_cast<std::size_t>(queue.threads * plan.row_table_size()));
  const SwitchOff off = find_switch_off(plan, tables.data(), queue);
#pragma omp parallel num_threads(queue.threads)
  {
    const Kernel kernel(plan, off);
    Triple* table = tables.data() + thread_index() * plan.row_table_size();
#pragma omp for schedule(static)
    for (std::int64_t row = 0; row < set.slow_pixels; ++row) {
      float* out = args.out + row * set.fast_pixels;
      std::memset(out, 0, static_cast<std::size_t>(set.fast_pixels) * sizeof(float));
      if (row < set.slow_first || row > set.slow_last) continue;
      plan.fill_row_table(row, table);
      for_each_tile<Kernel::kPair * kLanes>(plan.in, row, [&](const Tile& tile, LaneRange lanes) {
        constexpr int kPixels = Kernel::kPair * kLanes;
        vfloat image[Kernel::kPair];
        float pixels[kPixels];
        kernel.forward(tile, table, false, image);
        std::memcpy(pixels, image, sizeof pixels);
        if (const int lone = fresh_lane<kPixels>(plan, tile); lone >= 0) {
          float fresh[kPixels];
          kernel.forward(tile, table, true, image);
          std::memcpy(fresh, image, sizeof fresh);
          pixels[lone] = fresh[lone];
        }
        if (plan.in.mask == nullptr) {
          std::memcpy(out + tile.fast + lanes.first, pixels + lanes.first,
                      static_cast<std::size_t>(lanes.last - lanes.first + 1) * sizeof(float));
          return true;
        }
        for (int l = lanes.first; l <= lanes.last; ++l)
          if (chosen(plan.in, tile.pixel(set) + l)) out[tile.fast + l] = pixels[l];
        return true;
      });
    }
  }
}

}  // namespace

// Memory traffic: the image is written once; a row's table of indices stays in cache.
void run(const DiffractionForward<float>& args, Queue queue) {
  prefer_huge_pages(args.out, std::int64_t{args.in.settings.slow_pixels} * args.in.settings.fast_pixels);
  const DiffractionPlan plan(args.in);
  by_kind(plan, [&]<class Kind>() { forward<Kind>(args, plan, queue); });
}

}  // namespace sem::cpu::SEM_ISA
