#include "sem/exit_waves.hpp"

#include "cpu/complex_products.hpp"
#include "cpu/rows.hpp"

// Lanes run along the rows of a patch, over real and imaginary parts as they lie. Sums over patterns belong to one
// thread for each of their pixels, which takes the patterns in order.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr std::int64_t kBand = 8;  // rows of an output that a thread takes at a time

struct Patches {
  const PatchShape& shape;
  const std::int32_t* corner;

  std::int64_t top(std::int64_t j) const { return corner[2 * j]; }
  // Of row y of pattern j's patch in the object, of its mode m's row in the probe and among the waves, in pixels.
  std::int64_t object(std::int64_t j, std::int64_t y) const { return (top(j) + y) * shape.width + corner[2 * j + 1]; }
  std::int64_t probe(std::int64_t j, std::int64_t m, std::int64_t y) const {
    return ((shape.probes == 1 ? 0 : j) * shape.modes + m) * shape.frame() + y * shape.side;
  }
  std::int64_t wave(std::int64_t j, std::int64_t m, std::int64_t y) const {
    return (j * shape.modes + m) * shape.frame() + y * shape.side;
  }
};

// The object's rows [begin, end): conj(P) chi and |P|^2.
void add_to_object(const OverlapAdd<float>& args, std::int64_t begin, std::int64_t end) {
  const PatchShape& shape = args.shape;
  const Patches at{shape, args.corner};
  if (!args.onto) {
    const auto clear = [&](float* array, std::int64_t numbers) {
      if (array != nullptr)
        std::memset(array + begin * numbers, 0, static_cast<std::size_t>((end - begin) * numbers) * sizeof(float));
    };
    clear(args.to_object, 2 * shape.width);
    clear(args.illumination, shape.width);
  }
  const std::int64_t row = 2 * shape.side;
  for (std::int64_t j = 0; j < shape.patterns; ++j) {
    const std::int64_t first = begin > at.top(j) ? begin - at.top(j) : 0;
    const std::int64_t last = end - at.top(j) < shape.side ? end - at.top(j) : shape.side;
    for (std::int64_t y = first; y < last; ++y)
      for (std::int64_t m = 0; m < shape.modes; ++m) {
        const float* const probe = args.probe + 2 * at.probe(j, m, y);
        const float* const chi = args.waves + 2 * at.wave(j, m, y);
        const std::int64_t object = at.object(j, y);
        if (args.to_object != nullptr) {
          float* const to = args.to_object + 2 * object;
          for (std::int64_t x = 0; x < row; x += kLanes)
            store_real(to, row, x,
                       add_conjugate_product(load_real(to, row, x), load_real(probe, row, x), load_real(chi, row, x)));
        }
        if (args.illumination != nullptr) {
          float* const to = args.illumination + object;
          for (std::int64_t x = 0; x < shape.side; x += kLanes) {
            const Complex p = load_wave(probe, shape.side, x);
            store_real(to, shape.side, x, load_real(to, shape.side, x) + real_product(p, p));
          }
        }
      }
  }
}

// Rows [begin, end) of a probe that patterns [from, to) share: conj(O) chi, and |O|^2.
void add_to_probe(const OverlapAdd<float>& args, std::int64_t from, std::int64_t to, std::int64_t begin,
                  std::int64_t end) {
  const PatchShape& shape = args.shape;
  const Patches at{shape, args.corner};
  const std::int64_t row = 2 * shape.side;
  for (std::int64_t y = begin; y < end; ++y) {
    for (std::int64_t m = 0; m < shape.modes && args.to_probe != nullptr; ++m) {
      float* const sums = args.to_probe + 2 * at.probe(from, m, y);
      for (std::int64_t x = 0; x < row; x += kLanes) {
        vfloat sum = args.onto ? load_real(sums, row, x) : vfloat{};
        for (std::int64_t j = from; j < to; ++j)
          sum = add_conjugate_product(sum, load_real(args.object + 2 * at.object(j, y), row, x),
                                      load_real(args.waves + 2 * at.wave(j, m, y), row, x));
        store_real(sums, row, x, sum);
      }
    }
  }
}

void add_exposure(const OverlapAdd<float>& args, std::int64_t begin, std::int64_t end) {
  const PatchShape& shape = args.shape;
  const Patches at{shape, args.corner};
  for (std::int64_t y = begin; y < end; ++y) {
    float* const row = args.exposure + y * shape.side;
    for (std::int64_t x = 0; x < shape.side; x += kLanes) {
      vfloat sum = args.onto ? load_real(row, shape.side, x) : vfloat{};
      for (std::int64_t j = 0; j < shape.patterns; ++j) {
        const Complex o = load_wave(args.object + 2 * at.object(j, y), shape.side, x);
        sum += real_product(o, o);
      }
      store_real(row, shape.side, x, sum);
    }
  }
}

}  // namespace

// Memory traffic: the waves are written once; object and probe stay in cache.
void run(const ExitWavesForward<float>& args, Queue queue) {
  const PatchShape& shape = args.shape;
  const Patches at{shape, args.corner};
  const std::int64_t row = 2 * shape.side;
#pragma omp parallel for schedule(static) num_threads(team(queue, shape.patterns))
  for (std::int64_t j = 0; j < shape.patterns; ++j)
    for (std::int64_t m = 0; m < shape.modes; ++m)
      for (std::int64_t y = 0; y < shape.side; ++y) {
        const float* const object = args.object + 2 * at.object(j, y);
        const float* const probe = args.probe + 2 * at.probe(j, m, y);
        float* const wave = args.waves + 2 * at.wave(j, m, y);
        for (std::int64_t x = 0; x < row; x += kLanes)
          store_real(wave, row, x, add_product(vfloat{}, load_real(probe, row, x), load_real(object, row, x)));
      }
}

// Memory traffic: the waves are read twice, once if only one of object and probe is wanted.
void run(const OverlapAdd<float>& args, Queue queue) {
  const PatchShape& shape = args.shape;
  if (args.to_object != nullptr || args.illumination != nullptr) {
    const Pieces bands{shape.height, kBand};
#pragma omp parallel for schedule(dynamic, 1) num_threads(team(queue, bands.count()))
    for (std::int64_t band = 0; band < bands.count(); ++band) add_to_object(args, bands.begin(band), bands.end(band));
  }
  const Pieces bands{shape.side, kBand};
  const bool shared = shape.probes == 1;
  const std::int64_t pieces = shared ? bands.count() : shape.patterns;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team(queue, pieces))
  for (std::int64_t piece = 0; piece < pieces; ++piece)
    if (shared)
      add_to_probe(args, 0, shape.patterns, bands.begin(piece), bands.end(piece));
    else
      add_to_probe(args, piece, piece + 1, 0, shape.side);
  if (args.exposure == nullptr) return;
#pragma omp parallel for schedule(dynamic, 1) num_threads(team(queue, bands.count()))
  for (std::int64_t band = 0; band < bands.count(); ++band) add_exposure(args, bands.begin(band), bands.end(band));
}

}  // namespace sem::cpu::SEM_ISA
