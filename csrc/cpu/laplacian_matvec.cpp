#include "sem/laplacian_matvec.hpp"

#include "cpu/laplacian_tile.hpp"
#include "cpu/memory.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

// Memory traffic: x is read once and out written once; a tile stays in cache between the two turns and the product.
template <int kComponents>
void forward(const LaplacianMatvecForward<float>& args, Queue queue) {
  const TileGraph h(args.graph, args.edge_weight);
  const std::int64_t width = args.graph.nodes * kComponents;
  const std::int64_t tile_floats = width * kLanes;
  const Scratch scratch(static_cast<std::size_t>(queue.threads * 2 * tile_floats));
  prefer_huge_pages(args.out, args.rows * width);
#pragma omp parallel num_threads(queue.threads)
  {
    float* x = scratch.data() + thread_index() * 2 * tile_floats;
    float* out = x + tile_floats;
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < tile_count(args.rows); ++tile) {
      const int rows = rows_in_tile(args.rows, tile);
      load_tile(args.x, width, tile, rows, x);
      const Ahead ahead(args.x, args.out, width, tile, tile_count(args.rows));
      h.for_each_row<kComponents>(x, [&](std::int64_t i, const vfloat(&hx)[kComponents]) SEM_INLINE_LAMBDA {
        ahead.fetch<kComponents>(i);
        for (int c = 0; c < kComponents; ++c) store(out + (i * kComponents + c) * kLanes, hx[c]);
      });
      store_tile(args.out, width, tile, rows, out);
    }
  }
}

template <int kComponents>
void weight_gradient(const LaplacianMatvecWeightGradient<float>& args, Queue queue) {
  const std::int64_t edges = args.graph.edges;
  const std::int64_t width = args.graph.nodes * kComponents;
  const std::int64_t tile_floats = width * kLanes;
  const std::int64_t tiles = tile_count(args.rows);
  const std::int64_t chunks = chunk_count(tiles);
  const Scratch scratch(static_cast<std::size_t>(queue.threads * 2 * tile_floats));
  const Scratch partials(static_cast<std::size_t>(chunks * edges));
#pragma omp parallel num_threads(queue.threads)
  {
    float* x = scratch.data() + thread_index() * 2 * tile_floats;
    float* g = x + tile_floats;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* partial = partials.data() + chunk * edges;
      zero(partial, edges);
      for (std::int64_t tile = chunk_begin(tiles, chunks, chunk); tile < chunk_begin(tiles, chunks, chunk + 1);
           ++tile) {
        const int rows = rows_in_tile(args.rows, tile);
        load_tile(args.x, width, tile, rows, x);
        load_tile(args.grad_out, width, tile, rows, g);
        drop_unused_lanes(g, x, width);
        accumulate_edge_products<kComponents>(args.graph, g, x, 1.0f, partial);
      }
    }
  }
  for (std::int64_t e = 0; e < edges; ++e) args.grad_weight[e] = sum_chunks(partials.data(), chunks, edges, e);
}

}  // namespace

void run(const LaplacianMatvecForward<float>& args, Queue queue) {
  args.components == 1 ? forward<1>(args, queue) : forward<2>(args, queue);
}

void run(const LaplacianMatvecWeightGradient<float>& args, Queue queue) {
  args.components == 1 ? weight_gradient<1>(args, queue) : weight_gradient<2>(args, queue);
}

}  // namespace sem::cpu::SEM_ISA
