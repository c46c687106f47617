#include "sem/far_residual.hpp"

#include "cpu/complex_products.hpp"
#include "cpu/rows.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"

// Lanes run along the pixels of a pattern, which stays in cache between its two passes. Past the frame's end there are
// no counts and no waves, so nothing is added to any sum.
namespace sem::cpu::SEM_ISA {
namespace {

constexpr float kInfinity = __builtin_huge_valf();

// I - n + n log(n / I) = n (t - 1 - log t) with t = I / n, for normal t > 0. Near t = 1 the terms cancel: with u = t -
// 1 and v = u / (2 + u), log t = 2 (v + v^3 / 3 + ...) and u - 2 v = u v.
SEM_INLINE vfloat poisson_loss(vfloat intensity, vfloat n) {
  const vfloat t = intensity / n, u = (intensity - n) / n;
  // t = m 2^e with m from sqrt(1/2) to sqrt(2)
  const vint e = (as_int(t) - 0x3f3504f3) >> 23;
  const vint near = e == 0;
  const vfloat m1 = select(near, u, as_float(as_int(t) - (e << 23)) - 1.0f);
  const vfloat v = m1 / (m1 + 2.0f), v2 = v * v;
  vfloat series = broadcast(1.0f / 11.0f);
  series = series * v2 + 1.0f / 9.0f;
  series = series * v2 + 1.0f / 7.0f;
  series = series * v2 + 1.0f / 5.0f;
  series = series * v2 + 1.0f / 3.0f;
  const vfloat beyond = 2.0f * (v * v2) * series;  // log m - 2 v
  const vfloat turns = as_float(e + 0x4b400000) - 12582912.0f;
  return n * select(near, u * v - beyond, (u - turns * 0.693147180559945f) - (2.0f * v + beyond));
}

// sqrt(I) and 1 / sqrt(I), both 0 where I is below the normal numbers; without the processor's root and division, which
// would take most of the time. The root is corrected by what its square leaves.
struct Root {
  vfloat a, inverse;
  vint lit;

  explicit SEM_INLINE Root(vfloat intensity) : lit(intensity >= 0x1p-126f) {
    const vfloat r = vrsqrt(select(lit, intensity, broadcast(1.0f)));
    const vfloat estimate = intensity * r;
    a = select(lit, estimate + 0.5f * r * (intensity - estimate * estimate), vfloat{});
    inverse = select(lit, r, vfloat{});
  }
};

// Loss and slope s of sixteen pixels, for w > 0 and finite numbers.
template <ResidualKind kKind>
SEM_INLINE void residual(vfloat intensity, const Root& root, vfloat x, vfloat w, float inverse_scale, vfloat& loss,
                         vfloat& slope) {
  const vint lit = root.lit;
  const vfloat a = root.a, off = a - x;
  if constexpr (kKind == ResidualKind::amplitude || kKind == ResidualKind::projection) {
    loss = 0.5f * w * off * off;
    slope = 0.5f * w * off * root.inverse;
  } else if constexpr (kKind == ResidualKind::poisson) {
    const vfloat n = x * x;
    const vint none = n == 0.0f;
    loss = w * select(none, intensity, select(lit, poisson_loss(intensity, n), broadcast(kInfinity)));
    slope = select(none, w, select(lit, w * (intensity - n) / intensity, vfloat{}));
  } else if constexpr (kKind == ResidualKind::intensity) {
    const vfloat excess = off * (a + x);
    loss = 0.5f * w * excess * excess;
    slope = w * excess;
  } else {
    loss = w * vabs(off) * inverse_scale;
    const vfloat sign = select(off > 0.0f, broadcast(1.0f), select(off < 0.0f, broadcast(-1.0f), vfloat{}));
    slope = 0.5f * w * sign * inverse_scale * root.inverse;
  }
}

template <ResidualKind kKind, bool kWeighted>
class Pattern {
 public:
  // `factor` has room for the frame, padded to lanes: 2 s, or X / A of a projection.
  Pattern(const FarResidual<float>& args, std::int64_t j, float* factor)
      : args_(args), j_(j), weight_(args.weight_of(j)), factor_(factor) {}

  void run(float* slopes) {
    measure(slopes);
    report();
    if (slopes != nullptr && !finite_) std::memset(slopes, 0, static_cast<std::size_t>(args_.frame) * sizeof(float));
    for (std::int64_t m = 0; m < args_.modes; ++m) {
      const std::int64_t at = 2 * (j_ * args_.modes + m) * args_.frame;
      if (finite_)
        multiply(args_.psi + at, args_.out + at);
      else if (kKind == ResidualKind::projection)
        std::memmove(args_.out + at, args_.psi + at, static_cast<std::size_t>(2 * args_.frame) * sizeof(float));
      else
        std::memset(args_.out + at, 0, static_cast<std::size_t>(2 * args_.frame) * sizeof(float));
    }
  }

 private:
  void multiply(const float* psi, float* out) const {
    std::int64_t i = 0;
    for (; i + kLanes <= args_.frame; i += kLanes) {
      const vfloat by = load(factor_ + i);
      store(out + 2 * i, load(psi + 2 * i) * twice_low(by));
      store(out + 2 * i + kLanes, load(psi + 2 * i + kLanes) * twice_high(by));
    }
    if (i == args_.frame) return;
    const Complex last = load_wave(psi, args_.frame, i);
    const vfloat by = load(factor_ + i);
    store_wave(out, args_.frame, i, {last.re * by, last.im * by});
  }

  void measure(float* slopes) {
    // In registers: what is stored below could be members of this, for all that the compiler knows.
    BlockSum losses, offs, all;
    vfloat heaviest{}, brightest{}, zeros{};
    const float inverse_scale = 1.0f / args_.scale;
    const float* const data = args_.data + j_ * args_.frame;
    for (std::int64_t i = 0; i < args_.frame; i += kLanes) {
      vfloat intensity = args_.background == nullptr ? vfloat{} : load_real(args_.background, args_.frame, i);
      for (std::int64_t m = 0; m < args_.modes; ++m) {
        const Complex psi = load_wave(args_.psi + 2 * (j_ * args_.modes + m) * args_.frame, args_.frame, i);
        intensity += real_product(psi, psi);
      }
      const Root root(intensity);
      vfloat w = broadcast(1.0f), x = load_real(data, args_.frame, i);
      vint valid = broadcast_int(-1);
      if constexpr (kWeighted) {
        w = load_real(weight_, args_.frame, i);
        valid = w > 0.0f;
        x = select(w == 0.0f, vfloat{}, x);  // nobody looks at it, whatever it is
        heaviest = vmax(heaviest, w);
        zeros += w * 0.0f;
      }
      zeros += (intensity + x) * 0.0f;  // NaN from the first number on that is not finite
      vfloat loss, slope;
      residual<kKind>(intensity, root, x, w, inverse_scale, loss, slope);
      vfloat off = w * vabs(root.a - x), bright = w * x;
      if constexpr (kWeighted) {
        loss = select(valid, loss, vfloat{});
        slope = select(valid, slope, vfloat{});
        off = select(valid, off, vfloat{});
        bright = select(valid, bright, vfloat{});
      }
      if (slopes != nullptr) store_real(slopes, args_.frame, i, slope);
      brightest = vmax(brightest, bright);
      losses.add(loss);
      offs.add(off);
      all.add(bright);
      losses.end_of_node(i / kLanes);
      offs.end_of_node(i / kLanes);
      all.end_of_node(i / kLanes);
      if constexpr (kKind == ResidualKind::projection) {
        store(factor_ + i, select(valid & root.lit, x * root.inverse, broadcast(1.0f)));
      } else {
        store(factor_ + i, 2.0f * slope);
      }
    }
    loss_ = horizontal_sum(losses.total());
    off_ = horizontal_sum(offs.total());
    all_ = horizontal_sum(all.total());
    finite_ = !any(zeros != 0.0f);
    valid_ = !kWeighted || any(heaviest > 0.0f);
    counted_ = any(brightest > 0.0f);
  }

  void report() {
    const bool infinite = kKind == ResidualKind::poisson && !(loss_ < kInfinity);
    const PatternStatus status = !finite_    ? PatternStatus::nonfinite
                                 : !valid_   ? PatternStatus::masked
                                 : infinite  ? PatternStatus::infinite
                                 : !counted_ ? PatternStatus::dark
                                             : PatternStatus::ok;
    args_.status[j_] = static_cast<std::int8_t>(status);
    args_.loss[j_] = !finite_ ? 0.0f : infinite ? kInfinity : loss_;
    args_.misfit[j_] = finite_ ? off_ / all_ : __builtin_nanf("");
  }

  const FarResidual<float>& args_;
  std::int64_t j_;
  const float* weight_;
  float* factor_;
  float loss_, off_, all_;
  bool finite_, valid_, counted_;
};

template <ResidualKind kKind, bool kWeighted>
void run(const FarResidual<float>& args, Queue queue) {
  const std::int64_t padded = padded_to_lanes(args.frame);
  const int threads = team(queue, args.patterns);
  const bool background = args.to_background != nullptr;
  const Scratch factors(static_cast<std::size_t>(threads * padded));
  const Scratch slopes(static_cast<std::size_t>(background ? args.patterns * args.frame : 0));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t j = 0; j < args.patterns; ++j)
    Pattern<kKind, kWeighted>(args, j, factors.data() + thread_index() * padded)
        .run(background ? slopes.data() + j * args.frame : nullptr);
  if (!background) return;
  const Pieces pieces{args.frame, 16 * kLanes};
#pragma omp parallel for schedule(static) num_threads(team(queue, pieces.count()))
  for (std::int64_t piece = 0; piece < pieces.count(); ++piece)
    for (std::int64_t i = pieces.begin(piece); i < pieces.end(piece); i += kLanes) {
      vfloat sum = args.onto ? load_real(args.to_background, args.frame, i) : vfloat{};
      for (std::int64_t j = 0; j < args.patterns; ++j) sum += load_real(slopes.data() + j * args.frame, args.frame, i);
      store_real(args.to_background, args.frame, i, sum);
    }
}

template <ResidualKind kKind>
void run(const FarResidual<float>& args, Queue queue) {
  args.weight == nullptr ? run<kKind, false>(args, queue) : run<kKind, true>(args, queue);
}

}  // namespace

// Memory traffic: the waves are read twice, from cache the second time, and written once; the data are read once.
void run(const FarResidual<float>& args, Queue queue) {
  switch (static_cast<ResidualKind>(args.kind)) {
    case ResidualKind::amplitude:
      return run<ResidualKind::amplitude>(args, queue);
    case ResidualKind::poisson:
      return run<ResidualKind::poisson>(args, queue);
    case ResidualKind::intensity:
      return run<ResidualKind::intensity>(args, queue);
    case ResidualKind::amplitude_mae:
      return run<ResidualKind::amplitude_mae>(args, queue);
    case ResidualKind::projection:
      return run<ResidualKind::projection>(args, queue);
  }
}

}  // namespace sem::cpu::SEM_ISA
