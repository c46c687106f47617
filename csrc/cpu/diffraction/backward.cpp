#include "cpu/diffraction/gradient.hpp"
#include "cpu/diffraction/image.hpp"
#include "cpu/memory.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

template <class Kind>
class BackwardKernel : public ImageKernel<Kind> {
 public:
  BackwardKernel(const DiffractionBackward<float>& args, const DiffractionPlan& plan, const SwitchOff& off)
      : ImageKernel<Kind>(plan, off), to_detector_and_beam_(args.to_detector_and_beam) {}

  void backward(const Tile& tile, const Triple* table, bool fresh, vfloat grad, GradientSums& to) const {
    TilePosition first, captured;
    vfloat own{}, intensity = broadcast(background_);
    const bool one_place = plan_.one_place();
    const Place capturing = plan_.capturing_place();
    plan_.template locate<kPlain>(table, tile.fast, plan_.first_place(), first);
    if (!exact()) {
      captured = first;
      if (set_.layers > 1)
        plan_.template locate<kPlain>(table + plan_.row_table_at(capturing), tile.fast, capturing, captured);
      own = factor(captured, capturing.layer, first, 0);
    }
    TilePosition at = first;
    const vint limit = interpolated_steps(tile);
    std::int32_t number = 0;
    plan_.for_each_place([&](const Place& place) SEM_INLINE_LAMBDA {
      const Triple* row = table + plan_.row_table_at(place);
      if (!one_place) plan_.template locate<kPlain>(row, tile.fast, place, at);
      vfloat by_d[3] = {}, by_p[3] = {};
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const SourcePlan& source = plan_.source(s);
        if (exact()) own = factor(at, place.layer, at, s);
        const vint resolved = factors_.resolved(at, s);
        const vfloat by_intensity = select(resolved, grad * own * scale_, vfloat{});
        vfloat x[3], by_x[3] = {};
        factors_.scattering(at, s, x);
        vfloat term = source_backward(at, s, row, fresh && number == 0, limit, number, by_intensity, x, by_x, to);
        term = select(resolved, term, vfloat{});
        number += static_cast<std::int32_t>(plan_.orientations);
        float* sums = to.source(s);
        if (to_detector_and_beam_) {
          vfloat along{};
          for (int i = 0; i < 3; ++i) {
            by_d[i] += by_x[i];
            along += by_x[i] * x[i];
            accumulate(sums + i * kLanes, -by_x[i]);
          }
          accumulate(sums + 3 * kLanes, -along);
        }
        accumulate(sums + 4 * kLanes, by_intensity * term);
        if (exact()) {
          const vfloat before = scale_ * source.weight * term + share_;
          accumulate(to.scale(), grad * own * source.weight * term);
          accumulate(to.background(), grad * own);
          if (to_detector_and_beam_)
            factor_gradients(at, s, place.layer, grad * own * before, true, true, by_d, by_p, to);
        } else {
          intensity += source.weight * term;
        }
      }
      if (to_detector_and_beam_) position_gradient(at, tile.row, place, by_d, by_p, to);
    });
    if (exact()) return;
    accumulate(to.scale(), grad * own * intensity);
    accumulate(to.background(), grad * own);
    if (!to_detector_and_beam_) return;
    const vfloat by_log = grad * own * intensity * scale_;
    for (int end = 0; end < (set_.layers > 1 ? 2 : 1); ++end) {
      const bool is_first = end == 0, captures = end == 1 || set_.layers == 1;
      const TilePosition& where = is_first ? first : captured;
      const Place place = is_first ? plan_.first_place() : capturing;
      vfloat by_d[3] = {}, by_p[3] = {};
      factor_gradients(where, 0, place.layer, by_log, is_first, captures, by_d, by_p, to);
      position_gradient(where, tile.row, place, by_d, by_p, to);
    }
  }

 private:
  static constexpr DomainShape kShape = Kind::Lattice::shape();

  using Base = ImageKernel<Kind>;
  using Base::absorbs;
  using Base::background_;
  using Base::cell_;
  using Base::curved;
  using Base::default_;
  using Base::exact;
  using Base::factors_;
  using Base::in_;
  using Base::indices;
  using Base::interpolated_steps;
  using Base::kPlain;
  using Base::lattice_;
  using Base::plan_;
  using Base::scale_;
  using Base::set_;
  using Base::share_;

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
      const TileIndices h = indices(at, step, row[plan_.kHead + s * plan_.orientations + orientation]);
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
        for (int i = 0; i < 3; ++i) accumulate(by_axes + (3 * a + i) * kLanes, by_h * q[i]);
        if (to_detector_and_beam_)
          for (int i = 0; i < 3; ++i) by_x[i] += by_h * step.axes_float[a][i];
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

  // Of mode nanobragg the first place is `seen` and the last layer's first one captures.
  SEM_INLINE vfloat factor(const TilePosition& captured, std::int32_t layer, const TilePosition& seen,
                           std::int64_t s) const {
    return factors_.capture(captured, layer) *
           to_float(factors_.template polarisation<kPlain>(seen, s) * factors_.solid_angle(seen));
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
    if (captured && absorbs()) {
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
    if (curved()) plan_.unbend(at, row, place, by_p, to.curved_frame, to.curvature);
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

  const bool to_detector_and_beam_;
};

template <class Kind>
void backward(const DiffractionBackward<float>& args, const DiffractionPlan& plan, Queue queue) {
  const DiffractionSettings& set = plan.set;
  const ScratchOf<Triple> tables(static_cast<std::size_t>(queue.threads * plan.row_table_size()));
  const SwitchOff off = find_switch_off(plan, tables.data(), queue);
  const GradientLayout layout(plan);
  const std::int64_t rows = set.slow_last - set.slow_first + 1;
  const std::int64_t chunks = layout.chunks(rows, std::int64_t{set.slow_pixels} * set.fast_pixels);
  const Scratch lanes_memory(static_cast<std::size_t>(queue.threads * layout.lane_floats()));
  const ScratchOf<double> partials(static_cast<std::size_t>(chunks * layout.doubles()));
#pragma omp parallel num_threads(queue.threads)
  {
    const BackwardKernel<Kind> kernel(args, plan, off);
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

}  // namespace

// Memory traffic: grad_out is read once; everything else is sums.
void run(const DiffractionBackward<float>& args, Queue queue) {
  const DiffractionPlan plan(args.in);
  by_kind(plan, [&]<class Kind>() { backward<Kind>(args, plan, queue); });
}

}  // namespace sem::cpu::SEM_ISA
