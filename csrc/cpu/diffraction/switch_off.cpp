#include "cpu/diffraction/image.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

class OutsideSearch {
 public:
  explicit OutsideSearch(const DiffractionPlan& plan) : plan_(plan), in_(plan.in), cell_(plan.in), factors_(plan) {}

  // The first step of this tile that cannot be interpolated, if there is one.
  bool find(const Tile& tile, const Triple* table, bool fresh, int first_lane, int last_lane, SwitchOff& off) const {
    TilePosition at;
    std::int32_t earliest[kLanes], number = 0;
    for (std::int32_t& step : earliest) step = -1;
    plan_.for_each_place([&](const Place& place) {
      const Triple* row = table + plan_.row_table_at(place);
      plan_.locate<false>(row, tile.fast, place, at);
      for (std::int64_t s = 0; s < in_.sources; ++s) {
        const vint resolved = factors_.resolved(at, s);
        for (std::int64_t o = 0; o < plan_.orientations; ++o, ++number) {
          const std::int64_t orientation = plan_.orientation_of(o, fresh && number == o);
          const Triple& start = row[plan_.kHead + s * plan_.orientations + orientation];
          const TileIndices h = plan_.indices<false>(at, plan_.step(s, orientation), start);
          const vint outside = ~cell_.far_from_the_ends(h) & resolved;
          if (!any(outside)) continue;
          for (int l = first_lane; l <= last_lane; ++l)
            if (outside[l] != 0 && earliest[l] < 0) earliest[l] = number;
        }
      }
    });
    const std::int64_t pixel = tile.pixel(plan_.set);
    for (int l = first_lane; l <= last_lane; ++l)
      if (earliest[l] >= 0 && chosen(in_, pixel + l)) {
        off = {pixel + l, earliest[l]};
        return true;
      }
    return false;
  }

 private:
  const DiffractionPlan& plan_;
  const DiffractionInputs<float>& in_;
  const CellTable cell_;
  const Factors factors_;
};

}  // namespace

SwitchOff find_switch_off(const DiffractionPlan& plan, Triple* tables, Queue queue) {
  SwitchOff off;
  const DiffractionSettings& set = plan.set;
  if (!set.tricubic || plan.in.table_shape[0] == 0 || set.mode == DiffractionMode::exact) return off;
  const OutsideSearch search(plan);
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
        if (lone >= 0) any_found = search.find(tile, table, true, lone, lone, found);
        if (!any_found)
          any_found = search.find(tile, table, false, lone < 0 ? lanes.first : lone + 1, lanes.last, found);
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

}  // namespace sem::cpu::SEM_ISA
