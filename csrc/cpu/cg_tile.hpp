// Preconditioned conjugate gradients on one tile: sixteen systems S x = b, S = alpha I + beta H + gamma H^2, side by
// side.
//
// Every lane has its own step lengths, tolerance test, iteration count and status. A lane that believes it is done is
// frozen; when no lane is left running, the true residuals of the frozen ones are computed once for the whole tile and
// each is accepted, sent on, or given up. So a lane's arithmetic never depends on the others, and a tile pays for one
// verification, not one per lane.
//
// Per iteration and node a tile reads p, q, r, x and writes q, r, x, p; all of it stays in cache.
#pragma once

#include "cpu/laplacian_tile.hpp"
#include "sem/laplacian_cg.hpp"

namespace sem::cpu::SEM_ISA {

struct LaneResult {
  vint status;
  vint iterations;
  vfloat residual;
};

// The four vectors of a solve, each [nodes][kComponents][16].
struct CgVectors {
  float *x, *r, *p, *q;
};

// S and its diagonal preconditioner in normal form, 1 / (alpha + beta h_kk + gamma h_kk^2), made once per operator
// call.
class PreconditionedSystem {
 public:
  PreconditionedSystem(const TileGraph& h, const ShiftedLaplacian<float>& system)
      : h(h), s(system), inverse_(static_cast<std::size_t>(h.nodes())) {
    for (std::int64_t i = 0; i < h.nodes(); ++i) {
      const float d = h.diagonal(i);
      inverse_.data()[i] = 1.0f / (s.alpha + s.beta * d + s.gamma * d * d);
    }
  }
  SEM_INLINE vfloat preconditioner(std::int64_t i) const { return broadcast(inverse_.data()[i]); }

  const TileGraph& h;
  const ShiftedLaplacian<float> s;

 private:
  Scratch inverse_;
};

// One thread's memory for a solve: the right-hand side (or wave), the solver's four vectors, and what is touched where
// a solution is measured in float64: a vector of float32 and one of float64.
struct TileMemory {
  static constexpr int kVectors = 8;
  float* wave;
  CgVectors solver;
  float* left;
  double* wide;
  TileMemory(float* base, std::int64_t tile_floats)
      : wave(base),
        solver{base + tile_floats, base + 2 * tile_floats, base + 3 * tile_floats, base + 4 * tile_floats},
        left(base + 5 * tile_floats),
        wide(reinterpret_cast<double*>(base + 6 * tile_floats)) {}
};

SEM_INLINE void store_report(const SolveReport<float>& report, std::int64_t tile, int rows, const LaneResult& result) {
  store_rows(report.status, tile, rows, result.status);
  store_rows(report.iterations, tile, rows, result.iterations);
  store_rows(report.residual, tile, rows, result.residual);
}

// Largest exponent field of the lane's entries; 255 marks NaN or Inf, 0 an all-zero lane (denormals count as zero
// only if all entries are).
struct LaneScale {
  vint finite;   // mask
  vint nonzero;  // mask
  vfloat down, up;

  explicit SEM_INLINE LaneScale(const float* tile, std::int64_t width) {
    vint largest{};
    for (std::int64_t n = 0; n < width; ++n) {
      const vint bits = as_int(load(tile + n * kLanes)) & 0x7fffffff;
      largest = vmax(bits, largest);
    }
    vint exponent = largest >> 23;
    finite = exponent != 255;
    nonzero = largest != 0;
    exponent = vmax(exponent, broadcast_int(1));
    exponent = vmin(exponent, broadcast_int(253));
    down = as_float((254 - exponent) << 23);
    up = as_float(exponent << 23);
  }

  // Brings every row to entries of magnitude 1 to 2, exactly (a power of two), so that no norm can over- or underflow;
  // rows with NaN or Inf become zero and are reported later.
  SEM_INLINE void apply(float* tile, std::int64_t width) const {
    for (std::int64_t n = 0; n < width; ++n) {
      float* at = tile + n * kLanes;
      store(at, select(finite, load(at) * down, vfloat{}));
    }
  }
};

template <int kComponents>
SEM_INLINE BlockSum squared_norm(const float* tile, std::int64_t nodes) {
  BlockSum sum;
  for (std::int64_t i = 0; i < nodes; ++i) {
    for (int c = 0; c < kComponents; ++c) {
      const vfloat v = load(tile + (i * kComponents + c) * kLanes);
      sum.add_product(v, v);
    }
    sum.end_of_node(i);
  }
  return sum;
}

// `Problem` states what is being solved:
//   kEnergyEstimate            whether sqrt(r' M r) estimates the residual that `tol` speaks of; if not, ||r|| does
//   start(v, norm, target)     writes a first x and returns the norm of the original system's true residual, per lane;
//                              unless that meets the target in every lane, writes r = b - S x too
//   iterations_to_start()      the iterations that start() is counted as
//   verify(v)                  returns the norm of the true residual of the original system, per lane, leaving what
//                              recompute() needs in v.q; it never exceeds ||r|| but for rounding
//   recompute(v, lanes)        replaces r by the true residual of S x = b in the given lanes
template <int kComponents, class Problem>
class TileSolver {
 public:
  TileSolver(const PreconditionedSystem& system, const Problem& problem, const CgVectors& vectors)
      : system_(system), h_(system.h), problem_(problem), v_(vectors) {}

  // `norm` is the norm that tol is relative to; lanes outside `active`, whose right-hand side is zero, stay at x = 0.
  LaneResult solve(vint active, vfloat norm, float tol, vint max_iter) {
    target_ = norm * tol;
    const vfloat first = problem_.start(v_, norm, target_);
    LaneResult result{vint{}, active & problem_.iterations_to_start(), select(active, first / norm, vfloat{})};
    vint running = active & ~(first <= target_), waiting{};
    if (!any(running)) return result;
    begin_direction(broadcast_int(-1));
    vfloat calibration = broadcast(1.0f);     // true residual over its estimate, learned when an estimate was too low
    vfloat last_drift = broadcast(0x1p126f);  // true residual when the recursion was last found to have drifted
    while (true) {
      const vint overflow = running & ~(rr_ <= 0x1p126f);
      result.status = (result.status & ~overflow) | (overflow & static_cast<std::int32_t>(Status::nonfinite));
      running &= ~overflow;
      const vfloat bound = vsqrt(rr_);
      const vfloat estimate = Problem::kEnergyEstimate ? vmin(vsqrt(rz_) * calibration, bound) : bound;
      const vint done = running & ((estimate <= target_) | (result.iterations >= max_iter));
      waiting |= done;
      running &= ~done;
      if (!any(running)) {
        if (!any(waiting)) break;
        const vfloat truth = problem_.verify(v_);
        result.residual = select(waiting, truth / norm, result.residual);
        const vint good = waiting & (truth <= target_);  // status stays 0, converged
        const vint spent = waiting & ~good & (result.iterations >= max_iter);
        // The recursion's r promised more than the true residual holds: rounding has drifted. Start over from the true
        // residual as long as each time at least halves it; what gains less has reached the end of float32. Within
        // twice the target, where half of it would do, any gain is worth another start.
        const vint drifted = waiting & ~good & ~spent & (bound <= target_);
        const vint near = (truth <= target_ * 2.0f) & (truth < last_drift);
        const vint stuck = drifted & ~(near | (truth <= last_drift * 0.5f));
        result.status |= spent & static_cast<std::int32_t>(Status::max_iter);
        result.status |= stuck & static_cast<std::int32_t>(Status::stagnated);
        const vint restart = drifted & ~stuck;
        const vint resume = waiting & ~good & ~spent & ~drifted;
        calibration = select(resume, truth / vsqrt(rz_), calibration);
        last_drift = select(restart, truth, last_drift);
        if (any(restart)) {
          problem_.recompute(v_, restart);
          begin_direction(restart);
        }
        running = restart | resume;
        waiting = vint{};
        if (!any(running)) break;
      }
      iterate(running);
      result.iterations -= running;  // a true lane is -1
    }
    return result;
  }

 private:
  // p = M r, rz = <r, M r>, rr = <r, r> in the given lanes.
  void begin_direction(vint lanes) {
    BlockSum rz, rr;
    for (std::int64_t i = 0; i < h_.nodes(); ++i) {
      const vfloat m = system_.preconditioner(i);
      for (int c = 0; c < kComponents; ++c) {
        const std::int64_t at = (i * kComponents + c) * kLanes;
        const vfloat r = load(v_.r + at);
        store(v_.p + at, select(lanes, m * r, load(v_.p + at)));
        rz.add_product(m * r, r);
        rr.add_product(r, r);
      }
      rz.end_of_node(i);
      rr.end_of_node(i);
    }
    rz_ = select(lanes, rz.total(), rz_);
    rr_ = select(lanes, rr.total(), rr_);
  }

  void iterate(vint running) {
    const float alpha = system_.s.alpha, beta = system_.s.beta, gamma = system_.s.gamma;
    // q = H p, and <p, S p> = alpha <p, p> + beta <p, q> + gamma <q, q> without forming S p
    BlockSum curvature;
    h_.template for_each_row<kComponents>(v_.p, [&](std::int64_t i, const vfloat(&q)[kComponents]) SEM_INLINE_LAMBDA {
      for (int c = 0; c < kComponents; ++c) {
        const std::int64_t at = (i * kComponents + c) * kLanes;
        const vfloat p = load(v_.p + at);
        store(v_.q + at, q[c]);
        curvature.add_product(alpha * p + beta * q[c], p);
        curvature.add_product(gamma * q[c], q[c]);
      }
      curvature.end_of_node(i);
    });
    const vfloat step = select(running, rz_ / curvature.total(), vfloat{});

    // r -= step S p
    BlockSum rz, rr;
    const auto descend = [&](std::int64_t i, const vfloat(&hq)[kComponents]) SEM_INLINE_LAMBDA {
      const vfloat m = system_.preconditioner(i);
      for (int c = 0; c < kComponents; ++c) {
        const std::int64_t at = (i * kComponents + c) * kLanes;
        const vfloat sp = alpha * load(v_.p + at) + beta * load(v_.q + at) + gamma * hq[c];
        const vfloat before = load(v_.r + at);
        const vfloat r = select(running, before - step * sp, before);
        store(v_.r + at, r);
        rz.add_product(m * r, r);
        rr.add_product(r, r);
      }
      rz.end_of_node(i);
      rr.end_of_node(i);
    };
    if (gamma != 0) {
      h_.template for_each_row<kComponents>(v_.q, descend);
    } else {
      const vfloat none[kComponents] = {};
      for (std::int64_t i = 0; i < h_.nodes(); ++i) descend(i, none);
    }
    const vfloat rz_next = rz.total();
    const vfloat turn = select(running, rz_next / rz_, vfloat{});

    // x += step p and the next direction p = M r + turn p
    for (std::int64_t i = 0; i < h_.nodes(); ++i) {
      const vfloat m = system_.preconditioner(i);
      for (int c = 0; c < kComponents; ++c) {
        const std::int64_t at = (i * kComponents + c) * kLanes;
        const vfloat p = load(v_.p + at);
        const vfloat x = load(v_.x + at);
        store(v_.x + at, select(running, x + step * p, x));
        store(v_.p + at, select(running, m * load(v_.r + at) + turn * p, p));
      }
    }
    rz_ = select(running, rz_next, rz_);
    rr_ = select(running, rr.total(), rr_);
  }

  const PreconditionedSystem& system_;
  const TileGraph& h_;
  const Problem& problem_;
  const CgVectors v_;
  vfloat target_{}, rz_{}, rr_{};
};

}  // namespace sem::cpu::SEM_ISA
