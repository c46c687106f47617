// Generated test problems: random arrays and small-world graphs, all from explicit seeds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "sem/types.hpp"

namespace sem::testing {

template <class Real>
std::vector<Real> normal_array(std::size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  std::vector<Real> out(count);
  for (Real& value : out) value = static_cast<Real>(static_cast<float>(normal(engine)));
  return out;
}

template <class Real>
std::vector<Real> uniform_array(std::size_t count, double low, double high, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<Real> out(count);
  for (Real& value : out) value = static_cast<Real>(static_cast<float>(uniform(engine)));
  return out;
}

template <class To, class From>
std::vector<To> converted(const std::vector<From>& from) {
  return std::vector<To>(from.begin(), from.end());
}

// ||a - b|| / ||b||, in double; b is the truth.
template <class A, class B>
double relative_error(const std::vector<A>& a, const std::vector<B>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// The slope of `objective()` along `entry`, one of the numbers that it reads.
template <class Objective>
double central_difference(double& entry, double step, const Objective& objective) {
  const double held = entry;
  entry = held + step;
  const double up = objective();
  entry = held - step;
  const double down = objective();
  entry = held;
  return (up - down) / (2 * step);
}

class OwnedGraph {
 public:
  // A ring with `neighbours` on each side plus `chords` random edges.
  static OwnedGraph small_world(int nodes, int neighbours, int chords, unsigned seed) {
    std::set<std::pair<int, int>> edges;
    auto insert = [&](int a, int b) {
      if (a != b) edges.insert({std::min(a, b), std::max(a, b)});
    };
    for (int i = 0; i < nodes; ++i)
      for (int k = 1; k <= neighbours; ++k) insert(i, (i + k) % nodes);
    std::mt19937 engine(seed);
    std::uniform_int_distribution<int> pick(0, nodes - 1);
    for (int c = 0; c < chords; ++c) insert(pick(engine), pick(engine));
    return OwnedGraph(nodes, edges);
  }

  OwnedGraph(int nodes, const std::set<std::pair<int, int>>& edges) : nodes_(nodes) {
    std::vector<std::vector<std::pair<int, int>>> rows(nodes);
    for (const auto& [i, j] : edges) {
      const int e = static_cast<int>(edge_i_.size());
      edge_i_.push_back(i);
      edge_j_.push_back(j);
      rows[i].push_back({j, e});
      rows[j].push_back({i, e});
    }
    row_start_.push_back(0);
    for (auto& row : rows) {
      std::sort(row.begin(), row.end());
      for (const auto& [j, e] : row) {
        neighbour_.push_back(j);
        incident_.push_back(e);
      }
      row_start_.push_back(static_cast<std::int32_t>(neighbour_.size()));
    }
  }

  Graph view() const {
    return {nodes_,
            static_cast<std::int64_t>(edge_i_.size()),
            edge_i_.data(),
            edge_j_.data(),
            row_start_.data(),
            neighbour_.data(),
            incident_.data()};
  }
  std::size_t edges() const { return edge_i_.size(); }

 private:
  std::int64_t nodes_;
  std::vector<std::int32_t> edge_i_, edge_j_, row_start_, neighbour_, incident_;
};

}  // namespace sem::testing
