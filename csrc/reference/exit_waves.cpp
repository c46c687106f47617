#include "sem/exit_waves.hpp"

#include <algorithm>

#include "reference/complex.hpp"
#include "reference/run.hpp"

namespace sem::reference {
namespace {

// use(j, m, pixel of the object, pixel of the probe, pixel of the waves)
template <class Use>
void for_each_pixel(const PatchShape& shape, const std::int32_t* corner, const Use& use) {
  for (std::int64_t j = 0; j < shape.patterns; ++j)
    for (std::int64_t m = 0; m < shape.modes; ++m)
      for (std::int64_t y = 0; y < shape.side; ++y)
        for (std::int64_t x = 0; x < shape.side; ++x) {
          const std::int64_t pixel = (m * shape.side + y) * shape.side + x, all = shape.modes * shape.frame();
          use(m, (corner[2 * j] + y) * shape.width + corner[2 * j + 1] + x, (shape.probes == 1 ? 0 : j) * all + pixel,
              j * all + pixel, y * shape.side + x);
        }
}

template <class Real>
void exit_waves_forward(const ExitWavesForward<Real>& args) {
  for_each_pixel(args.shape, args.corner,
                 [&](std::int64_t, std::int64_t o, std::int64_t p, std::int64_t w, std::int64_t) {
                   write(args.waves, w, read(args.probe, p) * read(args.object, o));
                 });
}

template <class Real>
void overlap_add(const OverlapAdd<Real>& args) {
  const PatchShape& shape = args.shape;
  const auto clear = [&](Real* array, std::int64_t count) {
    if (array != nullptr && !args.onto) std::fill_n(array, count, Real(0));
  };
  clear(args.to_object, 2 * shape.object());
  clear(args.to_probe, 2 * shape.probe());
  clear(args.illumination, shape.object());
  clear(args.exposure, shape.frame());
  for_each_pixel(shape, args.corner,
                 [&](std::int64_t m, std::int64_t o, std::int64_t p, std::int64_t w, std::int64_t f) {
                   const auto chi = read(args.waves, w), object = read(args.object, o), probe = read(args.probe, p);
                   if (args.to_object != nullptr)
                     write(args.to_object, o, read(args.to_object, o) + std::conj(probe) * chi);
                   if (args.to_probe != nullptr)
                     write(args.to_probe, p, read(args.to_probe, p) + std::conj(object) * chi);
                   if (args.illumination != nullptr) args.illumination[o] += std::norm(probe);
                   if (args.exposure != nullptr && m == 0) args.exposure[f] += std::norm(object);
                 });
}

}  // namespace

SEM_REFERENCE(ExitWavesForward, exit_waves_forward)
SEM_REFERENCE(OverlapAdd, overlap_add)

}  // namespace sem::reference
