#include "sem/diffraction.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/backend.hpp"
#include "tests/diffraction_problem.hpp"

namespace sem {
namespace {

using testing::central_difference;
using testing::converted;
using testing::Experiment;
using testing::experiments;
using testing::Problem;
using testing::relative_error;

using Case = std::pair<std::string, Experiment>;
class DiffractionReference : public ::testing::TestWithParam<Case> {};
class DiffractionBackend : public ::testing::TestWithParam<Case> {};

TEST_P(DiffractionBackend, MatchesTheReference) {
  Problem problem(GetParam().second);
  const auto image = problem.forward<float>([](const auto& args) { backend::run(args, {nullptr, 2}); });
  const auto truth = problem.forward<double>([](const auto& args) { reference::run(args); });
  EXPECT_LE(relative_error(image, truth), 5e-7);
  auto grads = problem.backward<float>([](const auto& args) { backend::run(args, {nullptr, 2}); });
  auto exact = problem.backward<double>([](const auto& args) { reference::run(args); });
  for (std::size_t k = 0; k < grads.named().size(); ++k)
    EXPECT_LE(relative_error(*grads.named()[k].second, *exact.named()[k].second), 1e-5) << grads.named()[k].first;
}

TEST_P(DiffractionReference, FloatMatchesDouble) {
  Problem problem(GetParam().second);
  const auto truth = problem.forward<double>([](const auto& args) { reference::run(args); });
  const auto single = problem.forward<float>([](const auto& args) { reference::run(args); });
  EXPECT_LE(relative_error(single, truth), 2e-6);
}

// The largest entries of each gradient; where a step crosses an edge (a nearest index, a spot of the tophat) there is
// none to compare.
TEST_P(DiffractionReference, GradientsMatchFiniteDifferences) {
  Problem problem(GetParam().second);
  if (problem.pixels() == 0) return;
  auto grads = problem.backward<double>([](const auto& args) { reference::run(args); });
  const auto gradients = grads.named(), values = problem.value.named();
  for (std::size_t k = 0; k < gradients.size(); ++k) {
    const std::vector<double>& gradient = *gradients[k].second;
    std::vector<double>& value = *values[k].second;
    if (gradient.empty()) continue;
    const auto larger = [](double a, double b) { return std::abs(a) < std::abs(b); };
    const std::size_t entry = std::max_element(gradient.begin(), gradient.end(), larger) - gradient.begin();
    double size = 0;
    for (const double v : value) size = std::max(size, std::abs(v));
    const double slope = central_difference(value[entry], 1e-7 * size, [&] { return problem.loss(); });
    const double floor = 1e-6 * std::abs(problem.loss()) / size;
    EXPECT_NEAR(slope, gradient[entry], 2e-5 * std::abs(gradient[entry]) + floor) << gradients[k].first;
  }
}

const auto case_name = [](const auto& info) { return info.param.first; };
INSTANTIATE_TEST_SUITE_P(Experiments, DiffractionReference, ::testing::ValuesIn(experiments()), case_name);
INSTANTIATE_TEST_SUITE_P(Experiments, DiffractionBackend, ::testing::ValuesIn(experiments()), case_name);

// On the beam every cell scatters in phase: F_latt = Na Nb Nc.
TEST(DiffractionReferenceByHand, TheBeam) {
  Experiment experiment;
  experiment.slow = experiment.fast = 1;
  Problem problem(experiment);
  problem.value.frame = {0.1, 2e-4, -2e-4, 0, 0, 1, 0, -1, 0, 1, 0, 0};
  problem.value.close = {0.1};
  problem.value.incident = {1, 0, 0, 1, 0, 0};
  problem.value.weight = {1, 1};
  const auto out = problem.forward<double>([](const auto& args) { reference::run(args); });
  EXPECT_NEAR(out[0], 1.5 * (40.0 / 8 + 3600.0 * 3600.0) * 1.6e-5, 1e-9);
}

TEST(DiffractionBackendBits, DoNotDependOnThreadsOrRun) {
  Experiment experiment;
  experiment.slow = 40;
  experiment.table = 9;
  experiment.tricubic = true;
  Problem problem(experiment);
  const auto run = [&](int threads) {
    auto grads = problem.backward<float>([&](const auto& args) { backend::run(args, {nullptr, threads}); });
    std::vector<double> all =
        converted<double>(problem.forward<float>([&](const auto& args) { backend::run(args, {nullptr, threads}); }));
    for (const auto& [name, gradient] : grads.named()) all.insert(all.end(), gradient->begin(), gradient->end());
    return all;
  };
  EXPECT_EQ(run(1), run(2));
  EXPECT_EQ(run(1), run(5));
}

}  // namespace
}  // namespace sem
