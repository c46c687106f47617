#include "sem/diffraction.hpp"

#include "cpu/diffraction_cell.hpp"
#include "cpu/diffraction_factors.hpp"
#include "cpu/diffraction_gradient.hpp"
#include "cpu/diffraction_lattice.hpp"
#include "cpu/diffraction_plan.hpp"
#include "cpu/memory.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

// Sixteen neighbouring pixels of a row.
struct Tile {
  std::int64_t row, fast;

  std::int64_t pixel(const DiffractionSettings& set) const { return row * set.fast_pixels + fast; }
};

// Sum and what its rounding lost, so that thousands of steps stay at float32's precision.
struct Sum {
  vfloat value{}, lost{};

  SEM_INLINE void add(vfloat term) {
    const vfloat corrected = term - lost, next = value + corrected;
    lost = (next - value) - corrected;
    value = next;
  }
};

// kPlain: a flat detector and one structure factor for every reflection.
template <DomainShape kShape, bool kPlain>
class ImageKernel {
 public:
  ImageKernel(const DiffractionPlan& plan, const SwitchOff& off)
      : plan_(plan),
        in_(plan.in),
        set_(plan.set),
        block_(plan.in),
        lattice_(block_),
        cell_(plan.in),
        factors_(plan),
        off_(off),
        exact_(plan.set.mode == DiffractionMode::exact),
        steps_(static_cast<double>(plan.steps_per_place) * set_.oversample * set_.oversample),
        scale_(static_cast<float>(plan.in.scale[0] / steps_)),
        background_(static_cast<float>(plan.in.background[0])),
        shares_(static_cast<double>(in_.sources) * set_.oversample * set_.oversample),
        default_(static_cast<float>(plan.in.default_factor[0])) {}

  // kPair tiles side by side: one alone would wait for its own square root and divisions.
  static constexpr int kPair = 2;

  void forward(const Tile& tile, const Triple* table, bool fresh, vfloat (&image)[kPair]) const {
    TilePosition at[kPair];
    Sum total[kPair];
    vdouble own[kPair], capture[kPair];
    vint limit[kPair];
    for (int t = 0; t < kPair; ++t) {
      if (!exact_) total[t].value = broadcast(background_);
      limit[t] = interpolated_steps({tile.row, tile.fast + t * kLanes});
    }
    std::int32_t number = 0;
    plan_.for_each_place([&](const Place& place) SEM_INLINE_LAMBDA {
      for (int t = 0; t < kPair; ++t) {
        plan_.locate(tile.row, tile.fast + t * kLanes, place, at[t]);
        if (exact_ || place == plan_.last_place()) capture[t] = to_double(factors_.capture(at[t], place.layer));
        if (!exact_ && place == plan_.first_place())
          own[t] = factors_.polarisation(at[t], 0) * factors_.solid_angle(at[t]);
      }
      const Triple* row = table + plan_.row_table_at(place);
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const float weight = plan_.source(s).weight;
        const vfloat constant = broadcast(weight * default_ * default_);
        Sum sum[kPair];
        for (int t = 0; t < kPair; ++t)
          if (!exact_) sum[t] = total[t];
        for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
          const std::int64_t orientation = plan_.orientation_of(o, fresh);
          const StepPlan& step = plan_.step(s, orientation);
          const Triple& start = row[s * plan_.orientations + orientation];
#pragma GCC unroll 2
          for (int t = 0; t < kPair; ++t) {
            const TileIndices h = indices(at[t], step, start);
            const vfloat lattice = lattice_.value(h.rest, h.delta);
            if constexpr (kPlain) {
              sum[t].add(lattice * constant);
            } else {
              const vfloat f = cell_value(h, limit[t], number);
              sum[t].add((weight * f * f) * lattice);
            }
          }
        }
        for (int t = 0; t < kPair; ++t) {
          if (set_.d_min > 0) {
            const vint resolved = factors_.resolved(at[t], s);
            const Sum before = exact_ ? Sum{} : total[t];
            sum[t] = {select(resolved, sum[t].value, before.value), select(resolved, sum[t].lost, before.lost)};
          }
          if (exact_) {
            const vdouble factor = capture[t] * factors_.polarisation(at[t], s) * factors_.solid_angle(at[t]);
            total[t].add((scale_ * sum[t].value + static_cast<float>(in_.background[0] / shares_)) * to_float(factor));
          } else {
            total[t] = sum[t];
          }
        }
      }
    });
    for (int t = 0; t < kPair; ++t)
      image[t] =
          exact_ ? total[t].value : to_float(to_double(total[t].value) * (in_.scale[0] / steps_) * capture[t] * own[t]);
  }

  void backward(const Tile& tile, const Triple* table, bool fresh, vfloat grad, GradientSums& to) const {
    TilePosition at, first;
    vfloat own{}, intensity = broadcast(background_);
    const bool one_place = plan_.one_place();
    const Place last_place = plan_.last_place();
    plan_.locate(tile.row, tile.fast, last_place, at);
    if (!exact_) {
      if (one_place)
        first = at;
      else
        plan_.locate(tile.row, tile.fast, plan_.first_place(), first);
      own = factors_.capture(at, last_place.layer) *
            to_float(factors_.polarisation(first, 0) * factors_.solid_angle(first));
    }
    const vint limit = interpolated_steps(tile);
    std::int32_t number = 0;
    plan_.for_each_place([&](const Place& place) SEM_INLINE_LAMBDA {
      if (!one_place) plan_.locate(tile.row, tile.fast, place, at);
      const Triple* row = table + plan_.row_table_at(place);
      vfloat by_d[3] = {}, by_p[3] = {};
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const SourcePlan& source = plan_.source(s);
        if (exact_)
          own = factors_.capture(at, place.layer) * to_float(factors_.polarisation(at, s) * factors_.solid_angle(at));
        const vint resolved = factors_.resolved(at, s);
        const vfloat by_intensity = select(resolved, grad * own * scale_, vfloat{});
        vfloat x[3], by_x[3] = {};
        factors_.scattering(at, s, x);
        vfloat term = source_backward(at, s, row, fresh, limit, number, by_intensity, x, by_x, to);
        term = select(resolved, term, vfloat{});
        number += static_cast<std::int32_t>(plan_.orientations);
        float* sums = to.source(s);
        vfloat along{};
        for (int i = 0; i < 3; ++i) {
          by_d[i] += by_x[i];
          along += by_x[i] * x[i];
          accumulate(sums + i * kLanes, -by_x[i]);
        }
        accumulate(sums + 3 * kLanes, -along);
        accumulate(sums + 4 * kLanes, by_intensity * term);
        if (exact_) {
          const vfloat before = scale_ * source.weight * term + static_cast<float>(in_.background[0] / shares_);
          accumulate(to.scale(), grad * own * source.weight * term);
          accumulate(to.background(), grad * own);
          factor_gradients(at, s, place.layer, grad * own * before, true, true, by_d, by_p, to);
        } else {
          intensity += source.weight * term;
        }
      }
      position_gradient(at, tile.row, place, by_d, by_p, to);
    });
    if (exact_) return;
    accumulate(to.scale(), grad * own * intensity);
    accumulate(to.background(), grad * own);
    const vfloat by_log = grad * own * intensity * scale_;
    vfloat by_d[3] = {}, by_p[3] = {};
    factor_gradients(first, 0, 0, by_log, true, one_place, by_d, by_p, to);
    position_gradient(first, tile.row, plan_.first_place(), by_d, by_p, to);
    if (one_place) return;
    vfloat last_by_d[3] = {}, last_by_p[3] = {};
    factor_gradients(at, 0, last_place.layer, by_log, false, true, last_by_d, last_by_p, to);
    position_gradient(at, tile.row, last_place, last_by_d, last_by_p, to);
  }

  // The first step of this tile that cannot be interpolated, if there is one.
  bool find_outside(const Tile& tile, const Triple* table, bool fresh, int first_lane, int last_lane,
                    SwitchOff& off) const {
    TilePosition at;
    std::int32_t earliest[kLanes], number = 0;
    for (std::int32_t& step : earliest) step = -1;
    plan_.for_each_place([&](const Place& place) {
      plan_.locate(tile.row, tile.fast, place, at);
      const Triple* row = table + plan_.row_table_at(place);
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const vint resolved = factors_.resolved(at, s);
        for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
          const std::int64_t orientation = plan_.orientation_of(o, fresh);
          const std::int64_t step = s * plan_.orientations + orientation;
          const TileIndices h = indices(at, plan_.step(s, orientation), row[step]);
          const vint outside = ~cell_.far_from_the_ends(h) & resolved;
          if (!any(outside)) continue;
          for (int l = first_lane; l <= last_lane; ++l)
            if (outside[l] != 0 && earliest[l] < 0) earliest[l] = number;
        }
      }
    });
    const std::int64_t pixel = tile.pixel(set_);
    for (int l = first_lane; l <= last_lane; ++l)
      if (earliest[l] >= 0 && (in_.mask == nullptr || in_.mask[pixel + l] != 0)) {
        off = {pixel + l, earliest[l]};
        return true;
      }
    return false;
  }

 private:
  SEM_INLINE TileIndices indices(const TilePosition& at, const StepPlan& step, const Triple& start) const {
    TileIndices h;
    for (int a = 0; a < 3; ++a) {
      vdouble along;
      if (kPlain || !set_.curved)
        along = at.f * step.along_fast[a] + start[a];
      else
        along = at.p[0] * step.axes[a][0] + at.p[1] * step.axes[a][1] + at.p[2] * step.axes[a][2];
      const vdouble exact = along * at.inverse_r - step.at_beam[a];
      h.whole[a] = nearest_whole(exact);
      h.rest[a] = exact - h.whole[a];
      h.delta[a] = to_float(h.rest[a]);
    }
    return h;
  }

  vint interpolated_steps(const Tile& tile) const {
    return !kPlain && set_.tricubic ? cell_.interpolated_steps(off_, tile.pixel(set_)) : vint{};
  }

  SEM_INLINE vfloat cell_value(const TileIndices& h, vint limit, std::int32_t number) const {
    if (in_.table_shape[0] == 0) return broadcast(default_);
    vfloat unused[3];
    return cell_.template value<false>(cell_.place(h, limit, number), unused);
  }

  // Adds what one source's reflections give; returns sum F_cell^2 L.
  SEM_INLINE vfloat source_backward(const TilePosition& at, std::int64_t s, const Triple* row, bool fresh, vint limit,
                                    std::int32_t number, vfloat by_intensity, const vfloat (&x)[3], vfloat (&by_x)[3],
                                    GradientSums& to) const {
    const bool tabled = !kPlain && in_.table_shape[0] > 0;
    const SourcePlan& source = plan_.source(s);
    const vfloat weighted = by_intensity * source.weight;
    const float per_metre = static_cast<float>(GradientSums::kLength * source.inverse_wavelength);
    const vfloat q[3] = {x[0] * per_metre, x[1] * per_metre, x[2] * per_metre};
    vfloat total{}, cells[3] = {}, fudge{};
    for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
      const std::int64_t orientation = plan_.orientation_of(o, fresh);
      const StepPlan& step = plan_.step(s, orientation);
      const TileIndices h = indices(at, step, row[s * plan_.orientations + orientation]);
      LatticeSlopes slopes;
      lattice_.slopes(h.rest, h.delta, slopes);
      vfloat f = broadcast(default_), by_index[3] = {};
      if (tabled) {
        const CellTable::Place place = cell_.place(h, limit, number);
        f = cell_.template value<true>(place, by_index);
        const vfloat by_factor = 2.0f * weighted * f * slopes.value;
        cell_.scatter(place, by_factor, to.table, to.default_factor);
        for (vfloat& slope : by_index) slope *= by_factor;
      }
      const vfloat square = f * f, by_lattice = weighted * square;
      total += square * slopes.value;
      float* by_axes = to.orientation(orientation);
      for (int a = 0; a < 3; ++a) {
        const vfloat by_h = by_lattice * slopes.by_delta[a] + by_index[a];
        for (int i = 0; i < 3; ++i) {
          accumulate(by_axes + (3 * a + i) * kLanes, by_h * q[i]);
          by_x[i] += by_h * step.axes_float[a][i];
        }
        cells[a] += by_lattice * slopes.by_cells[a];
      }
      if constexpr (kShape != DomainShape::square) fudge += by_lattice * slopes.by_fudge;
      if constexpr (kShape == DomainShape::gauss)
        for (int a = 0; a < 9; ++a) accumulate(to.metric() + a * kLanes, by_lattice * slopes.by_metric[a / 3][a % 3]);
    }
    for (int a = 0; a < 3; ++a) accumulate(to.cells() + a * kLanes, cells[a]);
    accumulate(to.fudge(), fudge);
    // total is F^2 sum L with one F
    if (!tabled && default_ != 0) accumulate(to.constant_factor(), weighted * total * (2.0f / default_));
    return total;
  }

  SEM_INLINE void factor_gradients(const TilePosition& at, std::int64_t s, std::int32_t layer, vfloat g, bool seen,
                                   bool captured, vfloat (&by_d)[3], vfloat (&by_p)[3], GradientSums& to) const {
    if (seen) {
      vfloat close{};
      factors_.solid_angle_gradient(at, g, by_p, close);
      accumulate(to.close(), close);
      if (set_.polarised) {
        vfloat moments[6] = {};
        factors_.polarisation_gradient(at, s, g, by_d, moments);
        for (int i = 0; i < 6; ++i) accumulate(to.source(s) + (5 + i) * kLanes, moments[i]);
      }
    }
    if (captured && !factors_.captures_all()) {
      vfloat normal[3] = {};
      factors_.capture_gradient(at, layer, g, by_d, normal);
      for (int i = 0; i < 3; ++i) accumulate(to.frame() + (9 + i) * kLanes, normal[i]);
    }
  }

  // From gradients at the direction d = p / |p| and at p itself to the detector's frame.
  SEM_INLINE void position_gradient(const TilePosition& at, std::int64_t row, const Place& place,
                                    const vfloat (&by_d)[3], vfloat (&by_p)[3], GradientSums& to) const {
    const vfloat radial = by_d[0] * at.d[0] + by_d[1] * at.d[1] + by_d[2] * at.d[2];
    for (int i = 0; i < 3; ++i) by_p[i] += at.inverse_r_float * (by_d[i] - radial * at.d[i]);
    if (set_.curved) plan_.unbend(at, row, place, by_p, to.curved_frame, to.curvature);
    const vfloat f = to_float(at.f);
    const float s = static_cast<float>(plan_.slow_coordinate(row, place));
    const float o = static_cast<float>(place.layer * set_.layer_step);
    float* frame = to.frame();
    for (int i = 0; i < 3; ++i) {
      accumulate(frame + i * kLanes, by_p[i]);
      accumulate(frame + (3 + i) * kLanes, by_p[i] * f);
      accumulate(frame + (6 + i) * kLanes, by_p[i] * s);
      if (set_.layers > 1) accumulate(frame + (9 + i) * kLanes, by_p[i] * o);
    }
  }

  const DiffractionPlan& plan_;
  const DiffractionInputs<float>& in_;
  const DiffractionSettings& set_;
  const BlockShape block_;
  const LatticeFactor<kShape> lattice_;
  const CellTable cell_;
  const Factors factors_;
  const SwitchOff off_;
  const bool exact_;
  const double steps_;
  const float scale_, background_;
  const double shares_;  // that the background is divided into in mode exact
  const float default_;
};

// Which lanes of a tile are computed.
struct LaneRange {
  int first, last;
};
template <int kPixels>
LaneRange lanes_of(const DiffractionSettings& set, std::int64_t fast) {
  const std::int64_t first = set.fast_first - fast, last = set.fast_last - fast;
  return {first > 0 ? static_cast<int>(first) : 0, last < kPixels - 1 ? static_cast<int>(last) : kPixels - 1};
}
bool chosen(const DiffractionInputs<float>& in, std::int64_t pixel) {
  return in.mask == nullptr || in.mask[pixel] != 0;
}

// Calls visit(tile, lanes) for the tiles of a row that hold a pixel to compute, from left to right, until it returns
// false. Tiles begin at multiples of their size, so that a pixel's lane does not depend on the region.
template <int kPixels, class Visit>
void for_each_tile(const DiffractionInputs<float>& in, std::int64_t row, Visit visit) {
  const DiffractionSettings& set = in.settings;
  for (std::int64_t fast = set.fast_first / kPixels * kPixels; fast <= set.fast_last; fast += kPixels) {
    const LaneRange lanes = lanes_of<kPixels>(set, fast);
    bool needed = in.mask == nullptr;
    for (int l = lanes.first; l <= lanes.last; ++l) needed = needed || chosen(in, row * set.fast_pixels + fast + l);
    if (needed && !visit(Tile{row, fast}, lanes)) return;
  }
}

// The lane of the first pixel, which no orientation is carried over to, or -1.
template <int kPixels>
int fresh_lane(const DiffractionPlan& plan, const Tile& tile) {
  const std::int64_t lane = plan.first_pixel - tile.pixel(plan.set);
  return plan.set.phi_carryover && lane >= 0 && lane < kPixels ? static_cast<int>(lane) : -1;
}

template <class Kernel>
SwitchOff find_switch_off(const DiffractionPlan& plan, Triple* tables, Queue queue) {
  SwitchOff off;
  const DiffractionSettings& set = plan.set;
  if (!set.tricubic || set.mode == DiffractionMode::exact) return off;
  const Kernel kernel(plan, off);
  std::int64_t earliest_row = INT64_MAX;
#pragma omp parallel num_threads(queue.threads)
  {
    Triple* table = tables + thread_index() * plan.row_table_size();
#pragma omp for schedule(dynamic, 4)
    for (std::int64_t row = set.slow_first; row <= set.slow_last; ++row) {
      std::int64_t known;
#pragma omp atomic read
      known = earliest_row;
      if (row > known) continue;
      plan.fill_row_table(row, table);
      for_each_tile<kLanes>(plan.in, row, [&](const Tile& tile, LaneRange lanes) {
        SwitchOff found;
        const int lone = fresh_lane<kLanes>(plan, tile);
        bool any_found = false;
        if (lone >= 0) any_found = kernel.find_outside(tile, table, true, lone, lone, found);
        if (!any_found)
          any_found = kernel.find_outside(tile, table, false, lone < 0 ? lanes.first : lone + 1, lanes.last, found);
        if (!any_found) return true;
#pragma omp critical(sem_diffraction_switch_off)
        {
          if (found.pixel < off.pixel) off = found;
#pragma omp atomic write
          earliest_row = off.pixel / set.fast_pixels;
        }
        return false;
      });
    }
  }
  return off;
}

template <DomainShape kShape, bool kPlain>
void forward(const DiffractionForward<float>& args, const DiffractionPlan& plan, Queue queue) {
  using Kernel = ImageKernel<kShape, kPlain>;
  const DiffractionSettings& set = plan.set;
  const ScratchOf<Triple> tables(static_cast<std::size_t>(queue.threads * plan.row_table_size()));
  const SwitchOff off = find_switch_off<Kernel>(plan, tables.data(), queue);
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

template <DomainShape kShape, bool kPlain>
void backward(const DiffractionBackward<float>& args, const DiffractionPlan& plan, Queue queue) {
  using Kernel = ImageKernel<kShape, kPlain>;
  const DiffractionSettings& set = plan.set;
  const ScratchOf<Triple> tables(static_cast<std::size_t>(queue.threads * plan.row_table_size()));
  const SwitchOff off = find_switch_off<Kernel>(plan, tables.data(), queue);
  const GradientLayout layout(plan);
  const std::int64_t rows = set.slow_last - set.slow_first + 1;
  const std::int64_t chunks = layout.chunks(rows, std::int64_t{set.slow_pixels} * set.fast_pixels);
  const Scratch lanes_memory(static_cast<std::size_t>(queue.threads * layout.lane_floats()));
  const ScratchOf<double> partials(static_cast<std::size_t>(chunks * layout.doubles()));
#pragma omp parallel num_threads(queue.threads)
  {
    const Kernel kernel(plan, off);
    Triple* table = tables.data() + thread_index() * plan.row_table_size();
    float* lane_sums = lanes_memory.data() + thread_index() * layout.lane_floats();
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      GradientSums sums(layout, lane_sums, partials.data() + chunk * layout.doubles());
      for (std::int64_t row = rows * chunk / chunks; row < rows * (chunk + 1) / chunks; ++row) {
        plan.fill_row_table(set.slow_first + row, table);
        for_each_tile<kLanes>(plan.in, set.slow_first + row, [&](const Tile& tile, LaneRange lanes) {
          float grad[kLanes] = {}, fresh[kLanes] = {};
          const int lone = fresh_lane<kLanes>(plan, tile);
          for (int l = lanes.first; l <= lanes.last; ++l)
            if (chosen(plan.in, tile.pixel(set) + l))
              (l == lone ? fresh : grad)[l] = args.grad_out[tile.pixel(set) + l];
          kernel.backward(tile, table, false, load(grad), sums);
          if (lone >= 0) kernel.backward(tile, table, true, load(fresh), sums);
          return true;
        });
        sums.end_row();
      }
    }
  }
  layout.finish(partials.data(), chunks, args);
}

template <DomainShape kShape>
void forward_of(const DiffractionForward<float>& args, const DiffractionPlan& plan, Queue queue) {
  const bool plain = !plan.set.curved && plan.in.table_shape[0] == 0;
  plain ? forward<kShape, true>(args, plan, queue) : forward<kShape, false>(args, plan, queue);
}
template <DomainShape kShape>
void backward_of(const DiffractionBackward<float>& args, const DiffractionPlan& plan, Queue queue) {
  const bool plain = !plan.set.curved && plan.in.table_shape[0] == 0;
  plain ? backward<kShape, true>(args, plan, queue) : backward<kShape, false>(args, plan, queue);
}

}  // namespace

// Memory traffic: the image is written once; a row's table of indices stays in cache.
void diffraction_forward(const DiffractionForward<float>& args, Queue queue) {
  prefer_huge_pages(args.out, std::int64_t{args.in.settings.slow_pixels} * args.in.settings.fast_pixels);
  const DiffractionPlan plan(args.in);
  switch (plan.set.shape) {
    case DomainShape::square:
      return forward_of<DomainShape::square>(args, plan, queue);
    case DomainShape::round:
      return forward_of<DomainShape::round>(args, plan, queue);
    case DomainShape::gauss:
      return forward_of<DomainShape::gauss>(args, plan, queue);
    case DomainShape::tophat:
      return forward_of<DomainShape::tophat>(args, plan, queue);
  }
}

// Memory traffic: grad_out is read once; everything else is sums.
void diffraction_backward(const DiffractionBackward<float>& args, Queue queue) {
  const DiffractionPlan plan(args.in);
  switch (plan.set.shape) {
    case DomainShape::square:
      return backward_of<DomainShape::square>(args, plan, queue);
    case DomainShape::round:
      return backward_of<DomainShape::round>(args, plan, queue);
    case DomainShape::gauss:
      return backward_of<DomainShape::gauss>(args, plan, queue);
    case DomainShape::tophat:
      return backward_of<DomainShape::tophat>(args, plan, queue);
  }
}

}  // namespace sem::cpu::SEM_ISA
