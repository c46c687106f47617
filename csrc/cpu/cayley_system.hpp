// What a Cayley solve makes of a graph, its weights and its settings before it looks at a row, and where it is kept.
//
// For one row that takes several times as long as the solve, and a model that decodes asks for the same few again and
// again. So the last ones are kept, and found by what they were made of, bit for bit; a kept one gives the bits of a
// new one.
#pragma once

#include <cstring>

#include "cpu/cayley_guess.hpp"
#include "cpu/cg_tile.hpp"
#include "sem/cayley.hpp"

namespace sem::cpu::SEM_ISA {

// What rounding in float32 can do to a step's residual, in relation to the norm of its row.
struct CayleyBounds {
  float reach;     // of the norm of aH
  float rounding;  // of the difference between the residual that a solve measures and that of what is returned

  CayleyBounds(const TileGraph& h, float half_dt) {
    const double unit = TileGraph::kUnit, norm = std::fabs(half_dt) * h.norm_bound();
    reach = static_cast<float>(norm);
    rounding = static_cast<float>(5 * unit + norm * (4 * unit + h.rounding()));
  }
};

// I + a^2 H^2 with its preconditioner, and the polynomial guess of (I + iaH)^-1.
struct CayleySystem {
  CayleySystem(const Graph& graph, const float* edge_weight, float a, const CayleySettings<float>& settings)
      : half_dt(a),
        tol(settings.tol),
        max_iter(settings.max_iter),
        h(graph, edge_weight),
        bounds(h, a),
        normal_form(h, {1.0f, 0.0f, a * a}),
        guess(graph, edge_weight, h, a, tol, max_iter) {}

  const float half_dt, tol;
  const std::int32_t max_iter;
  const TileGraph h;
  const CayleyBounds bounds;
  const PreconditionedSystem normal_form;
  const CayleyGuess guess;
};

// The system of one call, a kept one where there are few rows. Kept ones are one call's at a time: where another thread
// has them, or had when the process was forked, a new system is as good.
class PreparedCayley {
 public:
  PreparedCayley(const Graph& graph, const float* edge_weight, float a, const CayleySettings<float>& settings,
                 std::int64_t rows)
      : claim_(rows <= kMostRows && graph.nodes + graph.edges <= kMostSize),
        system_(claim_.holds ? kept(graph, edge_weight, a, settings)
                             : new CayleySystem(graph, edge_weight, a, settings)) {}
  ~PreparedCayley() {
    if (!claim_.holds) delete system_;
  }
  PreparedCayley(const PreparedCayley&) = delete;
  PreparedCayley& operator=(const PreparedCayley&) = delete;

  const CayleySystem& operator*() const { return *system_; }

 private:
  static constexpr std::int64_t kMostRows = 2 * kLanes;
  static constexpr std::int64_t kMostSize = 1 << 15;  // nodes and edges: less than 2 MiB a system
  static constexpr int kMost = 16;

  // Of the kept ones, if it is wanted and they are free.
  struct Claim {
    explicit Claim(bool wanted) : holds(wanted && !__atomic_test_and_set(&taken_, __ATOMIC_ACQUIRE)) {}
    ~Claim() {
      if (holds) __atomic_clear(&taken_, __ATOMIC_RELEASE);
    }
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    const bool holds;
  };

  struct Kept {
    Kept(const Graph& graph, const float* edge_weight, float a, const CayleySettings<float>& settings)
        : system(graph, edge_weight, a, settings),
          nodes(graph.nodes),
          edges(graph.edges),
          lists(static_cast<std::size_t>(nodes + 1 + 4 * edges)),
          weights(static_cast<std::size_t>(edges)) {
      std::int32_t* const neighbour = lists.data() + nodes + 1;
      std::memcpy(lists.data(), graph.row_start, bytes(nodes + 1));
      std::memcpy(neighbour, graph.neighbour, bytes(2 * edges));
      std::memcpy(neighbour + 2 * edges, graph.incident, bytes(2 * edges));
      std::memcpy(weights.data(), edge_weight, bytes(edges));
    }

    bool is_of(const Graph& graph, const float* edge_weight, float a, const CayleySettings<float>& settings) const {
      const std::int32_t* const neighbour = lists.data() + nodes + 1;
      return nodes == graph.nodes && edges == graph.edges && same(&system.half_dt, &a, 1) &&
             same(&system.tol, &settings.tol, 1) && system.max_iter == settings.max_iter &&
             same(weights.data(), edge_weight, edges) && same(lists.data(), graph.row_start, nodes + 1) &&
             same(neighbour, graph.neighbour, 2 * edges) && same(neighbour + 2 * edges, graph.incident, 2 * edges);
    }

    static std::size_t bytes(std::int64_t numbers) { return static_cast<std::size_t>(numbers) * 4; }
    static bool same(const void* a, const void* b, std::int64_t numbers) {
      return std::memcmp(a, b, bytes(numbers)) == 0;
    }

    const CayleySystem system;
    const std::int64_t nodes, edges;
    const ScratchOf<std::int32_t> lists;  // row_start, neighbour, incident
    const Scratch weights;
    std::uint64_t used = 0;
  };

  // In place of the one that was not asked for for longest, if it is not there.
  static const CayleySystem* kept(const Graph& graph, const float* edge_weight, float a,
                                  const CayleySettings<float>& settings) {
    Kept** oldest = kept_;
    for (Kept*& place : kept_) {
      if (place != nullptr && place->is_of(graph, edge_weight, a, settings)) {
        place->used = ++uses_;
        return &place->system;
      }
      if (*oldest != nullptr && (place == nullptr || place->used < (*oldest)->used)) oldest = &place;
    }
    Kept* const made = new Kept(graph, edge_weight, a, settings);
    delete *oldest;
    *oldest = made;
    made->used = ++uses_;
    return &made->system;
  }

  static inline Kept* kept_[kMost] = {};  // the process's, to its end
  static inline std::uint64_t uses_ = 0;
  static inline bool taken_ = false;

  const Claim claim_;
  const CayleySystem* const system_;
};

}  // namespace sem::cpu::SEM_ISA
