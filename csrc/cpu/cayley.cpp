#include "sem/cayley.hpp"

#include "cpu/cayley_system.hpp"
#include "cpu/certificate.hpp"
#include "cpu/laplacian_tile.hpp"
#include "cpu/memory.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

constexpr int kComponents = 2;

// y = (I + iaH)^-1 psi through (I + a^2 H^2) y = (I - iaH) psi. The true residual e = psi - (I + iaH) y and CG's own
// r = (I - iaH) e satisfy ||e||^2 = r' S^-1 r <= ||r||^2, and M is close to S^-1, so r' M r estimates ||e||^2.
struct CayleyProblem {
  static constexpr bool kEnergyEstimate = true;
  const TileGraph& h;
  const CayleyGuess& guess;
  const float* psi;
  float half_dt;
  const Ahead& ahead;

  // A guess that is no better than zero (the weights may overflow) is dropped.
  vfloat start(const CgVectors& v, vfloat norm, vfloat target) const {
    guess.apply(psi, v.p, v.q, v.x);
    const vfloat truth = verify(v);
    if (!any(~(truth <= target))) return truth;
    const vint useful = truth < norm;
    for (std::int64_t n = 0; n < h.nodes() * kComponents; ++n) {
      const std::int64_t at = n * kLanes;
      store(v.x + at, select(useful, load(v.x + at), vfloat{}));
      store(v.q + at, select(useful, load(v.q + at), load(psi + at)));
    }
    times_adjoint(v.q, v.r, broadcast_int(-1));
    return truth;
  }
  std::int32_t iterations_to_start() const { return guess.iterations(); }

  vfloat verify(const CgVectors& v) const {
    BlockSum norm;
    h.for_each_row<kComponents>(v.x, [&](std::int64_t i, const vfloat(&hy)[kComponents]) SEM_INLINE_LAMBDA {
      const std::int64_t re = i * kComponents * kLanes, im = re + kLanes;
      ahead.fetch<kComponents>(i);
      const vfloat e_re = (load(psi + re) - load(v.x + re)) + half_dt * hy[1];
      const vfloat e_im = (load(psi + im) - load(v.x + im)) - half_dt * hy[0];
      store(v.q + re, e_re);
      store(v.q + im, e_im);
      norm.add_product(e_re, e_re);
      norm.add_product(e_im, e_im);
      norm.end_of_node(i);
    });
    return vsqrt(norm.total());
  }

  void recompute(const CgVectors& v, vint lanes) const { times_adjoint(v.q, v.r, lanes); }

 private:
  // out = (I - iaH) u in the given lanes
  void times_adjoint(const float* u, float* out, vint lanes) const {
    h.for_each_row<kComponents>(u, [&](std::int64_t i, const vfloat(&hu)[kComponents]) SEM_INLINE_LAMBDA {
      const std::int64_t re = i * kComponents * kLanes, im = re + kLanes;
      store(out + re, select(lanes, load(u + re) + half_dt * hu[1], load(out + re)));
      store(out + im, select(lanes, load(u + im) - half_dt * hu[0], load(out + im)));
    });
  }
};

// Subtracts from each component its mean over nodes.
void take_out_mean(float* tile, std::int64_t nodes, vfloat (&mean)[kComponents]) {
  BlockSum sum[kComponents];
  for (std::int64_t i = 0; i < nodes; ++i)
    for (int c = 0; c < kComponents; ++c) {
      sum[c].add(load(tile + (i * kComponents + c) * kLanes));
      sum[c].end_of_node(i);
    }
  for (int c = 0; c < kComponents; ++c) mean[c] = sum[c].total() / static_cast<float>(nodes);
  for (std::int64_t i = 0; i < nodes; ++i)
    for (int c = 0; c < kComponents; ++c) {
      float* at = tile + (i * kComponents + c) * kLanes;
      store(at, load(at) - mean[c]);
    }
}

// e = psi - (I + iaH) y for y = (out + psi) / 2, and its norm over that of psi, in float64 until they are whole. Lanes
// of zeros count as solved. `wide` is working memory.
vfloat measure(const TileGraph& h, float half_dt, const float* psi, const float* out, double* wide, float* e) {
  for (std::int64_t n = 0; n < h.nodes() * kComponents; ++n)
    store_wide(wide + n * kLanes, to_double(load(psi + n * kLanes)) + to_double(load(out + n * kLanes)));
  vdouble norm2{}, size2{}, turned{};
  const auto twice_y = [&](std::int64_t at) SEM_INLINE_LAMBDA { return load_wide(wide + at); };
  const double half = 0.5 * half_dt;
  const auto put = [&](std::int64_t at, vdouble through_graph) SEM_INLINE_LAMBDA {
    const vdouble own = to_double(load(psi + at));
    const vdouble left = 0.5 * (own - to_double(load(out + at))) + half * through_graph;
    store(e + at, to_float(left));
    norm2 += left * left;
    size2 += own * own;
  };
  h.for_each_wide<kComponents>(twice_y, [&](std::int64_t at, vdouble hy) SEM_INLINE_LAMBDA {
    if (at % (kComponents * kLanes) == 0) {
      turned = hy;
    } else {
      put(at - kLanes, hy);
      put(at, -turned);
    }
  });
  const vfloat size = to_float(size2);
  return vsqrt(to_float(norm2) / select(size > 0.0f, size, broadcast(1.0f)));
}

// Makes (I + iaH)^-1 (I - iaH) psi of the rows that load_rows reads and leaves it in memory.wave.
template <class Load>
void step_tile(const CayleySystem& system, const Ahead& ahead, const TileMemory& memory, LaneResult& result,
               Load load_rows) {
  using Solver = TileSolver<kComponents, CayleyProblem>;
  const TileGraph& h = system.h;
  const CgVectors& v = memory.solver;
  float* const psi = memory.wave;
  const std::int64_t width = h.nodes() * kComponents;
  load_rows(psi);
  const LaneScale scale(psi, width);
  scale.apply(psi, width);
  BlockSum psi_norm2 = squared_norm<kComponents>(psi, h.nodes());
  // H leaves the mean over nodes alone: psi is solved for without it.
  vfloat mean[kComponents];
  take_out_mean(psi, h.nodes(), mean);
  const vfloat norm = select(scale.nonzero, vsqrt(psi_norm2.total()), broadcast(1.0f));

  const CayleyProblem problem{h, system.guess, psi, system.half_dt, ahead};
  const vint active = scale.finite & scale.nonzero;
  const vint max_iter = broadcast_int(system.max_iter);
  result = Solver(system.normal_form, problem, v).solve(active, norm, system.tol, max_iter);

  BlockSum out_norm2;
  for (std::int64_t i = 0; i < h.nodes(); ++i) {
    for (int c = 0; c < kComponents; ++c) {
      const std::int64_t at = (i * kComponents + c) * kLanes;
      const vfloat out = (2.0f * load(v.x + at) - load(psi + at)) + mean[c];
      store(psi + at, out);
      out_norm2.add_product(out, out);
    }
    out_norm2.end_of_node(i);
  }
  const vint claimed = Certificate::claimed(active, result);
  // The factor to the input's norm is 1 + grow, sqrt(1 + d) - 1 = d / (1 + sqrt(1 + d)): rounded to float32, the factor
  // itself would be off by the same little in every step.
  const vfloat d = psi_norm2.minus(out_norm2) / out_norm2.total();
  vfloat grow = select(claimed, d / (1.0f + vsqrt(1.0f + d)), vfloat{});

  // y grows with the step, and its residual by at most half of that times the norm of (I - iaH) psi.
  const Certificate certificate(system.tol, system.max_iter);
  const vfloat by_growth = vabs(grow) * (0.5f * (1.0f + system.bounds.reach));
  const vint unsure = certificate.unsure(active, result, by_growth + system.bounds.rounding);
  result.residual = select(unsure, result.residual, result.residual + by_growth);
  if (any(unsure)) {
    add(psi, psi, grow, width);
    grow = vfloat{};
    const auto measure_left = [&] {
      load_rows(v.r);
      scale.apply(v.r, width);
      return measure(h, system.half_dt, v.r, psi, memory.wide, memory.left);
    };
    const auto correct = [&](vint lanes, vint iterations) {
      const vfloat left_norm = vsqrt(squared_norm<kComponents>(memory.left, h.nodes()).total());
      vfloat left_mean[kComponents];
      take_out_mean(memory.left, h.nodes(), left_mean);
      const CayleyProblem rest{h, system.guess, memory.left, system.half_dt, ahead};
      const LaneResult more =
          Solver(system.normal_form, rest, v).solve(lanes, left_norm, Certificate::kGain, iterations);
      for (std::int64_t i = 0; i < h.nodes(); ++i)
        for (int c = 0; c < kComponents; ++c) {
          float* const at = v.x + (i * kComponents + c) * kLanes;
          store(at, load(at) + left_mean[c]);
        }
      add(psi, v.x, select(lanes, broadcast(2.0f), vfloat{}), width);
      return more.iterations;
    };
    certificate.refine(unsure, system.guess.iterations(), result, measure_left, correct);
  }

  result.status |= ~scale.finite & kNonfinite;
  const vfloat nan = broadcast(__builtin_nanf(""));
  const vint bad = result.status == kNonfinite;
  result.residual = select(bad, nan, result.residual);
  for (std::int64_t n = 0; n < width; ++n) {
    float* at = psi + n * kLanes;
    store(at, select(bad, nan, (load(at) + load(at) * grow) * scale.up));
  }
}

// a = (a + b) / 2
void average(float* a, const float* b, std::int64_t width) {
  for (std::int64_t n = 0; n < width; ++n) {
    float* at = a + n * kLanes;
    store(at, 0.5f * (load(at) + load(b + n * kLanes)));
  }
}

}  // namespace

void run(const CayleyForward<float>& args, Queue queue) {
  const float a = *args.settings.half_dt;
  const PreparedCayley system(args.graph, args.edge_weight, a, args.settings, args.rows);
  const std::int64_t width = args.graph.nodes * kComponents;
  const std::int64_t tile_floats = width * kLanes;
  const Scratch scratch(static_cast<std::size_t>(queue.threads * TileMemory::kVectors * tile_floats));
#pragma omp parallel num_threads(queue.threads)
  {
    const TileMemory memory(scratch.data() + thread_index() * TileMemory::kVectors * tile_floats, tile_floats);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t tile = 0; tile < tile_count(args.rows); ++tile) {
      const int rows = rows_in_tile(args.rows, tile);
      LaneResult result;
      const Ahead ahead(args.psi, args.psi_out, width, tile, tile_count(args.rows));
      step_tile(*system, ahead, memory, result, [&](float* psi) { load_tile(args.psi, width, tile, rows, psi); });
      store_tile(args.psi_out, width, tile, rows, memory.wave);
      store_report(args.report, tile, rows, result);
    }
  }
}

// The adjoint of a unitary step is the step with time reversed, so g_psi comes from the forward's own code with -a, and
// z = (g_psi + g) / 2 as y = (psi_out + psi) / 2.
void run(const CayleyBackward<float>& args, Queue queue) {
  const float a = *args.settings.half_dt;
  const PreparedCayley system(args.graph, args.edge_weight, -a, args.settings, args.rows);
  const std::int64_t edges = args.graph.edges;
  const std::int64_t width = args.graph.nodes * kComponents;
  const std::int64_t tile_floats = width * kLanes;
  const std::int64_t tiles = tile_count(args.rows);
  const std::int64_t chunks = chunk_count(tiles);
  const bool to_weights = args.to_weights;
  const Scratch scratch(static_cast<std::size_t>(queue.threads * TileMemory::kVectors * tile_floats));
  const Scratch partials(to_weights ? static_cast<std::size_t>(chunks * edges) : 0);
#pragma omp parallel num_threads(queue.threads)
  {
    const TileMemory memory(scratch.data() + thread_index() * TileMemory::kVectors * tile_floats, tile_floats);
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* partial = partials.data() + (to_weights ? chunk * edges : 0);
      if (to_weights) zero(partial, edges);
      for (std::int64_t tile = chunk_begin(tiles, chunks, chunk); tile < chunk_begin(tiles, chunks, chunk + 1);
           ++tile) {
        const int rows = rows_in_tile(args.rows, tile);
        LaneResult result;
        const Ahead ahead(args.grad_out, args.grad_psi, width, tile, tiles);
        step_tile(*system, ahead, memory, result,
                  [&](float* grad) { load_tile(args.grad_out, width, tile, rows, grad); });
        store_tile(args.grad_psi, width, tile, rows, memory.wave);
        store_report(args.report, tile, rows, result);
        if (!to_weights) continue;
        float *z = memory.solver.r, *y = memory.solver.p, *psi_out = memory.solver.q;
        load_tile(args.grad_out, width, tile, rows, z);
        load_tile(args.psi, width, tile, rows, y);
        load_tile(args.psi_out, width, tile, rows, psi_out);
        average(z, memory.wave, width);
        average(y, psi_out, width);
        drop_unused_lanes(z, y, width);
        accumulate_edge_currents(args.graph, z, y, partial);
      }
    }
  }
  if (!to_weights) return;
  double grad_half_dt = 0;
  for (std::int64_t e = 0; e < edges; ++e) {
    const float current = sum_chunks(partials.data(), chunks, edges, e);
    args.grad_weight[e] = 2.0f * a * current;
    grad_half_dt += 2.0 * args.edge_weight[e] * current;
  }
  *args.grad_half_dt = static_cast<float>(grad_half_dt);
}

}  // namespace sem::cpu::SEM_ISA
