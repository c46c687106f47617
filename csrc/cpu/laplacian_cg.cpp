#include "sem/laplacian_cg.hpp"

#include "cpu/certificate.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

template <int kComponents>
struct ShiftedProblem {
  static constexpr bool kEnergyEstimate = false;
  const TileGraph& h;
  const float* b;
  ShiftedLaplacian<float> system;

  vfloat start(const CgVectors& v, vfloat norm, vfloat) const {
    zero(v.x, h.nodes() * kComponents * kLanes);
    for (std::int64_t n = 0; n < h.nodes() * kComponents; ++n) store(v.r + n * kLanes, load(b + n * kLanes));
    return norm;
  }
  std::int32_t iterations_to_start() const { return 0; }

  // r = b - S x takes two products: Hx into q, then H(Hx) row by row. The frozen lanes' r must survive a check, so only
  // the norm is kept and recompute() does the work again.
  vfloat verify(const CgVectors& v) const {
    h.template product<kComponents>(v.x, v.q);
    BlockSum norm;
    for_each_residual(v, [&](std::int64_t i, const vfloat(&e)[kComponents]) SEM_INLINE_LAMBDA {
      for (int c = 0; c < kComponents; ++c) norm.add_product(e[c], e[c]);
      norm.end_of_node(i);
    });
    return vsqrt(norm.total());
  }

  void recompute(const CgVectors& v, vint lanes) const {
    for_each_residual(v, [&](std::int64_t i, const vfloat(&e)[kComponents]) SEM_INLINE_LAMBDA {
      for (int c = 0; c < kComponents; ++c) {
        float* r = v.r + (i * kComponents + c) * kLanes;
        store(r, select(lanes, e[c], load(r)));
      }
    });
  }

 private:
  // use(i, e) for every node, e = (b - S x)_i; v.q holds H x
  template <class Use>
  SEM_INLINE void for_each_residual(const CgVectors& v, Use use) const {
    const auto residual = [&](std::int64_t i, const vfloat(&hhx)[kComponents]) SEM_INLINE_LAMBDA {
      vfloat e[kComponents];
      for (int c = 0; c < kComponents; ++c) {
        const std::int64_t at = (i * kComponents + c) * kLanes;
        e[c] = load(b + at) - (system.alpha * load(v.x + at) + system.beta * load(v.q + at) + system.gamma * hhx[c]);
      }
      use(i, e);
    };
    if (system.gamma != 0) return h.template for_each_row<kComponents>(v.q, residual);
    const vfloat none[kComponents] = {};
    for (std::int64_t i = 0; i < h.nodes(); ++i) residual(i, none);
  }
};

// Of the tolerance; the rest is for rounding.
constexpr float kAim = 0.8f;

// What rounding can do to verify()'s norm, over that of x and over that of b.
struct Rounding {
  float of_x, of_b;

  explicit Rounding(const PreconditionedSystem& system) {
    const double bound = system.h.norm_bound(), product = system.h.rounding(), unit = TileGraph::kUnit;
    const ShiftedLaplacian<float> s = system.s;
    of_x = static_cast<float>(3 * unit * s.alpha + (product + 2 * unit) * s.beta * bound +
                              (2 * product + 2 * unit) * s.gamma * bound * bound);
    of_b = static_cast<float>(2 * unit);
  }
};

// e = b - S x and its norm, in float64 until they are whole; `wide` is working memory.
template <int kComponents>
vfloat measure(const TileGraph& h, const ShiftedLaplacian<float>& s, const float* b, const float* x, double* wide,
               float* e) {
  const auto narrow = [&](std::int64_t at) SEM_INLINE_LAMBDA { return to_double(load(x + at)); };
  const auto product = [&](std::int64_t at) SEM_INLINE_LAMBDA { return load_wide(wide + at); };
  const double alpha = s.alpha, beta = s.beta, gamma = s.gamma;
  vdouble norm2{};
  const auto put = [&](std::int64_t at, vdouble sx) SEM_INLINE_LAMBDA {
    const vdouble left = to_double(load(b + at)) - sx;
    store(e + at, to_float(left));
    norm2 += left * left;
  };
  h.for_each_wide<kComponents>(narrow, [&](std::int64_t at, vdouble hx) SEM_INLINE_LAMBDA {
    gamma != 0 ? store_wide(wide + at, hx) : put(at, alpha * narrow(at) + beta * hx);
  });
  if (gamma != 0)
    h.for_each_wide<kComponents>(product, [&](std::int64_t at, vdouble hhx) SEM_INLINE_LAMBDA {
      put(at, alpha * narrow(at) + beta * product(at) + gamma * hhx);
    });
  return vsqrt(to_float(norm2));
}

// Solves for the tile that load_rows reads; the solution, in the caller's scale, is left in memory.solver.x.
template <int kComponents, class Load>
void solve_tile(const PreconditionedSystem& system, float tol, std::int32_t max_iter, const TileMemory& memory,
                LaneResult& result, Load load_rows) {
  using Solver = TileSolver<kComponents, ShiftedProblem<kComponents>>;
  const TileGraph& h = system.h;
  const CgVectors& v = memory.solver;
  float* const b = memory.wave;
  const std::int64_t width = h.nodes() * kComponents;
  load_rows(b);
  const LaneScale scale(b, width);
  scale.apply(b, width);
  const vfloat norm = select(scale.nonzero, vsqrt(squared_norm<kComponents>(b, h.nodes()).total()), broadcast(1.0f));
  const vint active = scale.finite & scale.nonzero;
  const ShiftedProblem<kComponents> problem{h, b, system.s};
  result = Solver(system, problem, v).solve(active, norm, kAim * tol, broadcast_int(max_iter));

  const Rounding rounding(system);
  const vfloat size = vsqrt(squared_norm<kComponents>(v.x, h.nodes()).total()) / norm;
  const Certificate certificate(tol, max_iter);
  const vint unsure = certificate.unsure(active, result, rounding.of_x * size + rounding.of_b);
  if (any(unsure)) {
    float *const x = memory.left, *const left = memory.wave;
    copy(v.x, x, width);
    const auto measure_left = [&] {
      load_rows(v.p);
      scale.apply(v.p, width);
      return measure<kComponents>(h, system.s, v.p, x, memory.wide, left) / norm;
    };
    const auto correct = [&](vint lanes, vint iterations) {
      const vfloat left_norm = vsqrt(squared_norm<kComponents>(left, h.nodes()).total());
      const LaneResult more = Solver(system, problem, v).solve(lanes, left_norm, Certificate::kGain, iterations);
      add(x, v.x, select(lanes, broadcast(1.0f), vfloat{}), width);
      return more.iterations;
    };
    certificate.refine(unsure, 1, result, measure_left, correct);
    copy(x, v.x, width);
  }

  result.status |= ~scale.finite & kNonfinite;
  const vfloat nan = broadcast(__builtin_nanf(""));
  const vint bad = result.status == kNonfinite;
  result.residual = select(bad, nan, result.residual);
  for (std::int64_t n = 0; n < width; ++n) {
    float* at = v.x + n * kLanes;
    store(at, select(bad, nan, load(at) * scale.up));
  }
}

template <int kComponents>
void forward(const LaplacianCgForward<float>& args, Queue queue) {
  const TileGraph h(args.graph, args.edge_weight);
  const PreconditionedSystem system(h, args.system);
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
      solve_tile<kComponents>(system, args.tol, args.max_iter, memory, result,
                              [&](float* b) { load_tile(args.b, width, tile, rows, b); });
      store_tile(args.x, width, tile, rows, memory.solver.x);
      store_report(args.report, tile, rows, result);
    }
  }
}

template <int kComponents>
void backward(const LaplacianCgBackward<float>& args, Queue queue) {
  const TileGraph h(args.graph, args.edge_weight);
  const PreconditionedSystem system(h, args.system);
  const std::int64_t edges = args.graph.edges;
  const std::int64_t width = args.graph.nodes * kComponents;
  const std::int64_t tile_floats = width * kLanes;
  const std::int64_t tiles = tile_count(args.rows);
  const std::int64_t chunks = chunk_count(tiles);
  const bool to_weights = args.to_weights;
  const float beta = args.system.beta, gamma = args.system.gamma;
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
        solve_tile<kComponents>(system, args.tol, args.max_iter, memory, result,
                                [&](float* b) { load_tile(args.grad_out, width, tile, rows, b); });
        const float* l = memory.solver.x;
        store_tile(args.grad_b, width, tile, rows, l);
        store_report(args.report, tile, rows, result);
        if (!to_weights) continue;
        float *x = memory.wave, *product = memory.solver.p;
        load_tile(args.x, width, tile, rows, x);
        drop_unused_lanes(l, x, width);
        accumulate_edge_products<kComponents>(args.graph, l, x, -beta, partial);
        if (gamma == 0) continue;
        h.product<kComponents>(x, product);
        accumulate_edge_products<kComponents>(args.graph, l, product, -gamma, partial);
        h.product<kComponents>(l, product);
        accumulate_edge_products<kComponents>(args.graph, product, x, -gamma, partial);
      }
    }
  }
  if (!to_weights) return;
  for (std::int64_t e = 0; e < edges; ++e) args.grad_weight[e] = sum_chunks(partials.data(), chunks, edges, e);
}

}  // namespace

void run(const LaplacianCgForward<float>& args, Queue queue) {
  args.components == 1 ? forward<1>(args, queue) : forward<2>(args, queue);
}

void run(const LaplacianCgBackward<float>& args, Queue queue) {
  args.components == 1 ? backward<1>(args, queue) : backward<2>(args, queue);
}

}  // namespace sem::cpu::SEM_ISA
