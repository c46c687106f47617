// Preconditioned conjugate gradients for a tile of rows, S x = b with S = alpha I + beta H + gamma H^2.
//
// Every row has its own step lengths, tolerance test, iteration count and status; all threads of a row hold them. A row
// that believes it is done is frozen; when no row of the tile is left running, the true residuals of the frozen ones
// are computed together and each row is accepted, sent on, or given up. So a row's arithmetic never depends on the
// others.
//
// Per iteration, two products: p and H p are gathered, x and r never leave their thread.
#pragma once

#include <cstdint>

#include "device/tile.hpp"

namespace sem::device {

struct RowResult {
  std::int32_t status = 0;
  std::int32_t iterations = 0;
  float residual = 0;
};

inline constexpr std::int32_t kMaxIter = static_cast<std::int32_t>(Status::max_iter);
inline constexpr std::int32_t kStagnated = static_cast<std::int32_t>(Status::stagnated);
inline constexpr std::int32_t kNonfinite = static_cast<std::int32_t>(Status::nonfinite);

// `Problem` states what is being solved:
//   kEnergyEstimate       whether sqrt(r' M r) estimates the residual that `tol` speaks of; if not, ||r|| does
//   start(x, r, target)   writes a first x and returns the norm of the original system's true residual; unless that
//                         meets the target in every row of the tile, writes r = b - S x too
//   iterations_to_start() the iterations that start() is counted as
//   verify(x, e)          returns the norm of the true residual of the original system, and leaves in e what recompute
//                         needs; the norm never exceeds ||r|| but for rounding
//   recompute(e, r, row)  replaces r by b - S x if `row`
template <class Tile, class Problem>
class ConjugateGradients {
 public:
  using Vector = typename Tile::Vector;

  SEM_DEVICE ConjugateGradients(const Tile& tile, const Prepared& h, const ShiftedLaplacian<float>& system,
                                const Problem& problem)
      : tile_(tile), h_(h), system_(system), problem_(problem) {}

  // `norm` is what tol is relative to; a row that is not `active` has a right-hand side of zero and stays at x = 0.
  SEM_DEVICE RowResult solve(bool active, float norm, float tol, std::int32_t max_iter, Vector& x) {
    const float target = norm * tol;
    Vector r = tile_.vector(kResidual), e = tile_.vector(kCheck);
    const float first = problem_.start(x, r, target);
    RowResult result;
    if (active) result = {0, problem_.iterations_to_start(), first / norm};
    bool running = active && !(first <= target), waiting = false;
    if (!tile_.group.any(running)) return result;
    begin_direction(r, true);
    float calibration = 1.0f;     // true residual over its estimate, learned when an estimate was too low
    float last_drift = 0x1p126f;  // true residual when the recursion was last found to have drifted
    while (true) {
      if (running && !(rr_ <= 0x1p126f)) {
        result.status = kNonfinite;
        running = false;
      }
      const float bound = sqrt(rr_);
      const float energy = sqrt(rz_) * calibration;
      const float estimate = Problem::kEnergyEstimate && energy < bound ? energy : bound;
      if (running && (estimate <= target || result.iterations >= max_iter)) {
        waiting = true;
        running = false;
      }
      if (!tile_.group.any(running)) {
        if (!tile_.group.any(waiting)) break;
        const float truth = problem_.verify(x, e);
        bool restart = false;
        if (waiting) {
          result.residual = truth / norm;
          if (!(truth <= target)) {
            // The recursion's r promised more than the true residual holds: rounding has drifted. Start over from the
            // true residual as long as each time at least halves it; what gains less has reached the end of float32.
            // Within twice the target, where half of it would do, any gain is worth another start.
            const bool near = truth <= 2.0f * target && truth < last_drift;
            if (result.iterations >= max_iter) {
              result.status = kMaxIter;
            } else if (!(bound <= target)) {
              calibration = truth / sqrt(rz_);
              running = true;
            } else if (near || truth <= 0.5f * last_drift) {
              last_drift = truth;
              running = restart = true;
            } else {
              result.status = kStagnated;
            }
          }
          waiting = false;
        }
        if (tile_.group.any(restart)) {
          problem_.recompute(e, r, restart);
          begin_direction(r, restart);
        }
        if (!tile_.group.any(running)) break;
      }
      iterate(x, r, running);
      result.iterations += running ? 1 : 0;
    }
    return result;
  }

  // Numbers of the vectors in a spilled plan's workspace.
  static constexpr int kInput = 0, kSolution = 1, kResidual = 2, kCheck = 3;

 private:
  // p = M r, rz = <r, M r>, rr = <r, r> where `row`
  SEM_DEVICE void begin_direction(Vector& r, bool row) {
    float sums[2] = {0, 0};
    add_norms(r, sums);
    tile_.row_sum(sums);
    if (row) {
      rz_ = sums[0];
      rr_ = sums[1];
      tile_.each([&](int k, std::int64_t i) {
        SEM_UNROLL
        for (int c = 0; c < kComponents; ++c) p(i)[c] = h_.inverse[i] * r.at(k, i, c);
      });
    }
    tile_.group.barrier();
  }

  SEM_DEVICE void iterate(Vector& x, Vector& r, bool running) {
    const float alpha = system_.alpha, beta = system_.beta, gamma = system_.gamma;
    // q = H p, and <p, S p> = alpha <p, p> + beta <p, q> + gamma <q, q> without forming S p
    float curvature[1] = {0};
    tile_.each([&](int, std::int64_t i) {
      float hp[kComponents];
      tile_.product(h_, tile_.one, i, hp);
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) {
        q(i)[c] = hp[c];
        curvature[0] += (alpha * p(i)[c] + beta * hp[c]) * p(i)[c];
        curvature[0] += gamma * hp[c] * hp[c];
      }
    });
    tile_.row_sum(curvature);
    const float step = rz_ / curvature[0];

    float sums[2] = {0, 0};
    tile_.each([&](int k, std::int64_t i) {
      float hq[kComponents] = {};
      if (gamma != 0) tile_.product(h_, tile_.two, i, hq);
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) {
        const float sp = alpha * p(i)[c] + beta * q(i)[c] + gamma * hq[c];
        if (running) r.at(k, i, c) -= step * sp;
      }
    });
    add_norms(r, sums);
    tile_.row_sum(sums);
    if (running) {
      const float turn = sums[0] / rz_;
      rz_ = sums[0];
      rr_ = sums[1];
      tile_.each([&](int k, std::int64_t i) {
        SEM_UNROLL
        for (int c = 0; c < kComponents; ++c) {
          x.at(k, i, c) += step * p(i)[c];
          p(i)[c] = h_.inverse[i] * r.at(k, i, c) + turn * p(i)[c];
        }
      });
    }
    tile_.group.barrier();
  }

  SEM_DEVICE void add_norms(Vector& r, float (&sums)[2]) const {
    tile_.each([&](int k, std::int64_t i) {
      SEM_UNROLL
      for (int c = 0; c < kComponents; ++c) {
        const float value = r.at(k, i, c);
        sums[0] += h_.inverse[i] * value * value;
        sums[1] += value * value;
      }
    });
  }

  static constexpr int kComponents = Problem::kComponents;
  SEM_DEVICE float* p(std::int64_t i) const { return tile_.one + i * tile_.stride(); }
  SEM_DEVICE float* q(std::int64_t i) const { return tile_.two + i * tile_.stride(); }

  const Tile& tile_;
  const Prepared& h_;
  const ShiftedLaplacian<float>& system_;
  const Problem& problem_;
  float rz_ = 0, rr_ = 0;
};

SEM_DEVICE void write_report(const SolveReport<float>& report, std::int64_t row, const RowResult& result) {
  if (report.status != nullptr) report.status[row] = result.status;
  if (report.iterations != nullptr) report.iterations[row] = result.iterations;
  if (report.residual != nullptr) report.residual[row] = result.residual;
}

}  // namespace sem::device
