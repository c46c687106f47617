#include <cmath>

#include "cpu/diffraction/forward.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

double lane_of(vfloat v, int lane) {
  float values[kLanes];
  std::memcpy(values, &v, sizeof v);
  return static_cast<double>(values[lane]);
}
double lane_of(vdouble v, int lane) {
  double values[kLanes];
  std::memcpy(values, &v, sizeof v);
  return values[lane];
}

// Writes down what the forward kernel tells of one lane of one of its tiles.
class Tracer {
 public:
  static constexpr bool kWatches = true;

  Tracer(const DiffractionPlan& plan, int tile, int lane, std::vector<TracedValue>& out)
      : plan_(plan), tile_(tile), lane_(lane), out_(out) {}

  void on_place(int tile, const Place& place, const TilePosition& at, const Factors& factors) {
    if (tile != tile_) return;
    now_ = {"", place.layer, place.sub_slow * plan_.set.oversample + place.sub_fast, -1, -1, -1, 0, {}};
    put("pixel_pos_meters", at.p);
    put("R_distance_meters", 1 / lane_of(at.inverse_r, lane_));
    put("diffracted_vec", at.d);
    put("omega_pixel_sr", lane_of(factors.solid_angle(at), lane_));
    put("capture_fraction", lane_of(factors.capture(at, place.layer), lane_));
  }

  void on_source(int tile, std::int64_t source, const TilePosition& at, const Factors& factors) {
    if (tile != tile_) return;
    now_.source = static_cast<std::int32_t>(source);
    now_.position = now_.mosaic = -1;
    const SourcePlan& beam = plan_.source(source);
    vfloat x[3];
    factors.scattering(at, source, x);
    for (vfloat& component : x) component *= static_cast<float>(1e-10 * beam.inverse_wavelength);
    put("incident_vec", {beam.incident[0], beam.incident[1], beam.incident[2]});
    put("lambda_meters", plan_.in.wavelength[source]);
    put("scattering_vec_A_inv", x);
    put("polar", lane_of(factors.polarisation(at, source), lane_));
    resolved_ = factors.resolved(at, source)[lane_] != 0;
  }

  void on_step(int tile, std::int64_t step, const TileIndices& h, const AnyLatticeFactor& lattice, vfloat square,
               vfloat cell, vfloat sum) {
    if (tile != tile_ || !resolved_) return;
    now_.position = static_cast<std::int32_t>(step / plan_.in.mosaics);
    now_.mosaic = static_cast<std::int32_t>(step % plan_.in.mosaics);
    double fractional[3], nearest[3], rest[3];
    for (int a = 0; a < 3; ++a) {
      rest[a] = lane_of(h.rest[a], lane_);
      nearest[a] = lane_of(h.whole[a], lane_);
      fractional[a] = nearest[a] + rest[a];
      if (rest[a] == -0.5) nearest[a] -= 1;
    }
    put("hkl_frac", {fractional[0], fractional[1], fractional[2]});
    put("hkl_rounded", {nearest[0], nearest[1], nearest[2]});
    double sign = 1;
    if (lattice.shape() == DomainShape::square) {
      constexpr const char* kNames[] = {"F_latt_a", "F_latt_b", "F_latt_c"};
      for (int a = 0; a < 3; ++a) {
        const double own = interference_sign(plan_.in.cells[a], nearest[a], rest[a]);
        sign *= own;
        put(kNames[a], own * lane_of(lattice.axis(a, h.rest[a], h.delta[a]), lane_));
      }
    } else if (lattice.shape() == DomainShape::round) {
      sign = sphere_sign(rest);
    }
    put("F_latt", sign * std::sqrt(lane_of(square, lane_)));
    put("F_cell", lane_of(cell, lane_));
    put("I_running", lane_of(sum, lane_));
  }

  void on_image(int tile, vfloat total, vfloat image) {
    if (tile != tile_) return;
    now_ = {"", -1, -1, -1, -1, -1, 0, {}};
    put(plan_.set.mode == DiffractionMode::exact ? "I_with_factors" : "I_before_scaling", lane_of(total, lane_));
    put("r_e_sqr_fluence", plan_.in.scale[0]);
    put("steps", static_cast<double>(plan_.steps_per_place) * plan_.set.oversample * plan_.set.oversample);
    put("I_pixel_final", lane_of(image, lane_));
  }

 private:
  // Of sin(pi N h) / sin(pi h): half turns of the numerator, and of both where N is whole and even.
  static double interference_sign(double cells, double nearest, double rest) {
    if (!(cells > 1)) return 1;
    const auto odd = [](double whole) { return std::fmod(whole, 2) != 0; };
    const bool even_block = std::fmod(cells, 2) == 0;
    const double turns = std::rint(cells * rest), left = std::fma(cells, rest, -turns);
    const int flips = odd(turns) + (even_block && odd(nearest)) + (turns != 0 && (left < 0) != (rest < 0));
    return flips % 2 != 0 ? -1 : 1;
  }
  double sphere_sign(const double (&rest)[3]) const {
    double sum = 0;
    for (int a = 0; a < 3; ++a) sum += std::pow(plan_.in.cells[a] * rest[a], 2);
    const double x = 3.14159265358979323846 * std::sqrt(plan_.in.fudge[0] * sum);
    return x > 1 && std::sin(x) / x < std::cos(x) ? -1 : 1;
  }

  template <class Vector>
  void put(const char* name, const Vector (&v)[3]) {
    TracedValue value = now_;
    value.name = name;
    value.count = 3;
    for (int i = 0; i < 3; ++i) value.value[i] = lane_of(v[i], lane_);
    out_.push_back(value);
  }
  void put(const char* name, const double (&v)[3]) {
    TracedValue value = now_;
    value.name = name;
    value.count = 3;
    for (int i = 0; i < 3; ++i) value.value[i] = v[i];
    out_.push_back(value);
  }
  void put(const char* name, double v) {
    TracedValue value = now_;
    value.name = name;
    value.count = 1;
    value.value[0] = v;
    out_.push_back(value);
  }

  const DiffractionPlan& plan_;
  int tile_, lane_;
  std::vector<TracedValue>& out_;
  TracedValue now_{};
  bool resolved_ = true;
};

void trace(const DiffractionTrace<float>& args, const DiffractionPlan& plan, Queue queue) {
  using Kernel = ForwardKernel<Any>;
  constexpr int kPixels = Kernel::kPair * kLanes;
  const ScratchOf<Triple> tables(static_cast<std::size_t>(queue.threads * plan.row_table_size()));
  const SwitchOff off = find_switch_off(plan, tables.data(), queue);
  plan.fill_row_table(args.slow, tables.data());
  const int place = args.fast % kPixels;
  const Tile tile{args.slow, args.fast - place};
  vfloat image[Kernel::kPair];
  Kernel(plan, off).forward(tile, tables.data(), fresh_lane<kPixels>(plan, tile) == place, image,
                            Tracer(plan, place / kLanes, place % kLanes, *args.out));
}

}  // namespace

void run(const DiffractionTrace<float>& args, Queue queue) {
  const DiffractionSettings& set = args.in.settings;
  args.out->clear();
  const bool inside = args.slow >= set.slow_first && args.slow <= set.slow_last && args.fast >= set.fast_first &&
                      args.fast <= set.fast_last;
  if (!inside || !chosen(args.in, std::int64_t{args.slow} * set.fast_pixels + args.fast)) return;
  const DiffractionPlan plan(args.in);
  trace(args, plan, queue);
}

}  // namespace sem::cpu::SEM_ISA
