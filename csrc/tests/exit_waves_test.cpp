#include "sem/exit_waves.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/backend.hpp"
#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::dot;
using testing::normal_array;
using testing::relative_error;

template <class Real>
struct Problem {
  PatchShape shape;
  std::vector<std::int32_t> corner;
  std::vector<Real> object, probe, waves;

  template <class To>
  Problem<To> as() const {
    return {shape, corner, converted<To>(object), converted<To>(probe), converted<To>(waves)};
  }
};

// Patterns at all four corners of the object, one of them twice, and between.
Problem<float> random_problem(std::int64_t patterns, bool shared, std::int64_t modes, std::int64_t side,
                              std::int64_t height, std::int64_t width) {
  const PatchShape shape{patterns, shared ? 1 : patterns, modes, side, height, width};
  std::vector<std::int32_t> corner;
  const auto bottom = static_cast<std::int32_t>(height - side), right = static_cast<std::int32_t>(width - side);
  const std::int32_t first[5][2] = {{0, 0}, {0, right}, {bottom, 0}, {bottom, right}, {bottom, right}};
  for (std::int32_t j = 0; j < patterns; ++j) {
    corner.push_back(j < 5 ? first[j][0] : 3 * j % (bottom + 1));
    corner.push_back(j < 5 ? first[j][1] : 7 * j % (right + 1));
  }
  return {shape, corner, normal_array<float>(2 * shape.object(), 1), normal_array<float>(2 * shape.probe(), 2),
          normal_array<float>(2 * shape.waves(), 3)};
}

template <class Real>
struct Result {
  std::vector<Real> waves, to_object, to_probe, illumination, exposure;
};

template <class Real, class Forward, class Add>
Result<Real> run(const Problem<Real>& problem, Forward forward, Add add, bool onto = false) {
  const PatchShape& shape = problem.shape;
  const auto held = [&](std::int64_t count) {  // what is there counts only where it is added to
    return onto ? normal_array<Real>(count, 9) : std::vector<Real>(count, std::numeric_limits<Real>::quiet_NaN());
  };
  Result<Real> out{std::vector<Real>(problem.waves.size()), held(2 * shape.object()), held(2 * shape.probe()),
                   held(shape.object()), held(shape.frame())};
  forward(ExitWavesForward<Real>{shape, problem.corner.data(), problem.object.data(), problem.probe.data(),
                                 out.waves.data()});
  add(OverlapAdd<Real>{shape, onto, problem.corner.data(), problem.waves.data(), problem.object.data(),
                       problem.probe.data(), out.to_object.data(), out.to_probe.data(), out.illumination.data(),
                       out.exposure.data()});
  return out;
}

Result<double> by_reference(const Problem<double>& problem, bool onto = false) {
  return run(problem, reference::run<ExitWavesForward<double>>, reference::run<OverlapAdd<double>>, onto);
}
Result<float> by_backend(const Problem<float>& problem, int threads, bool onto = false) {
  const Queue queue{nullptr, threads};
  return run(
      problem, [&](const ExitWavesForward<float>& args) { backend::run(args, queue); },
      [&](const OverlapAdd<float>& args) { backend::run(args, queue); }, onto);
}

TEST(ExitWavesReference, TwoPatchesByHand) {
  // an object of 1 x 3 with two patches of one pixel, in columns 0 and 2, and chi = 1, i
  const Problem<double> problem{{2, 1, 1, 1, 1, 3}, {0, 0, 0, 2}, {1, 0, 5, 5, 0, 2}, {3, 4}, {1, 0, 0, 1}};
  const Result<double> out = by_reference(problem);
  EXPECT_EQ(out.waves, (std::vector<double>{3, 4, -8, 6}));
  EXPECT_EQ(out.to_object, (std::vector<double>{3, -4, 0, 0, 4, 3}));
  EXPECT_EQ(out.to_probe, (std::vector<double>{1 + 2, 0}));
  EXPECT_EQ(out.illumination, (std::vector<double>{25, 0, 25}));
  EXPECT_EQ(out.exposure, (std::vector<double>{1 + 4}));
}

// <A x, chi> = <x, A^H chi>, in the object and in the probe.
TEST(ExitWavesReference, OverlapAddIsTheAdjoint) {
  for (const bool shared : {true, false}) {
    const Problem<double> problem = random_problem(7, shared, 2, 4, 9, 11).as<double>();
    const Result<double> out = by_reference(problem);
    EXPECT_NEAR(dot(out.waves, problem.waves), dot(problem.object, out.to_object), 1e-10);
    EXPECT_NEAR(dot(out.waves, problem.waves), dot(problem.probe, out.to_probe), 1e-10);
  }
}

class ExitWavesBackend : public ::testing::TestWithParam<std::tuple<int, bool, int, int, int, int>> {};

TEST_P(ExitWavesBackend, MatchesReferenceForAnyNumberOfThreads) {
  const auto [patterns, shared, modes, side, height, width] = GetParam();
  const Problem<float> problem = random_problem(patterns, shared, modes, side, height, width);
  for (const bool onto : {false, true}) {
    const Result<double> expected = by_reference(problem.as<double>(), onto);
    const Result<float> out = by_backend(problem, 1, onto), team = by_backend(problem, 3, onto);
    EXPECT_LE(relative_error(out.waves, expected.waves), 2e-7);
    EXPECT_LE(relative_error(out.to_object, expected.to_object), 1e-6);
    EXPECT_LE(relative_error(out.to_probe, expected.to_probe), 1e-6);
    EXPECT_LE(relative_error(out.illumination, expected.illumination), 1e-6);
    EXPECT_LE(relative_error(out.exposure, expected.exposure), 1e-6);
    EXPECT_EQ(out.waves, team.waves);
    EXPECT_EQ(out.to_object, team.to_object);
    EXPECT_EQ(out.to_probe, team.to_probe);
    EXPECT_EQ(out.illumination, team.illumination);
    EXPECT_EQ(out.exposure, team.exposure);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ExitWavesBackend,
                         ::testing::Values(std::tuple{0, true, 1, 3, 5, 4}, std::tuple{1, true, 1, 1, 1, 1},
                                           std::tuple{6, true, 1, 16, 40, 33}, std::tuple{9, true, 3, 17, 31, 50},
                                           std::tuple{6, false, 2, 15, 20, 15}, std::tuple{20, true, 2, 64, 90, 75},
                                           std::tuple{2, false, 3, 33, 70, 34}));

TEST(ExitWavesBackendSums, OfMorePatternsThanAGroupLooksAtAtATime) {
  const Problem<float> problem = random_problem(2100, true, 1, 3, 20, 40);
  const Problem<double> wide = problem.as<double>();
  std::vector<float> to_object(problem.object.size()), illumination(problem.shape.object());
  std::vector<double> exact_object(to_object.size()), exact_illumination(illumination.size());
  const auto sums = [](const auto& given, auto& object, auto& light, auto run) {
    run({given.shape, false, given.corner.data(), given.waves.data(), given.object.data(), given.probe.data(),
         object.data(), nullptr, light.data(), nullptr});
  };
  sums(problem, to_object, illumination, [](const OverlapAdd<float>& args) { backend::run(args, {nullptr, 1}); });
  sums(wide, exact_object, exact_illumination, [](const OverlapAdd<double>& args) { reference::run(args); });
  EXPECT_LE(relative_error(to_object, exact_object), 1e-6);
  EXPECT_LE(relative_error(illumination, exact_illumination), 1e-6);
}

// What is wanted alone has the bits that it has beside the others.
TEST(ExitWavesBackendSums, AreWantedOneByOne) {
  for (const auto& [shared, height] : {std::pair{true, 15}, std::pair{false, 60}}) {
    const Problem<float> problem = random_problem(7, shared, 2, 9, height, 34);
    const Result<float> all = by_backend(problem, 1);
    for (int wanted = 0; wanted < 4; ++wanted) {
      Result<float> some = all;
      for (std::vector<float>* array : {&some.to_object, &some.to_probe, &some.illumination, &some.exposure})
        array->assign(array->size(), 7.0f);
      const auto if_wanted = [&](int number, std::vector<float>& array) {
        return number == wanted ? array.data() : nullptr;
      };
      backend::run(
          OverlapAdd<float>{problem.shape, false, problem.corner.data(), problem.waves.data(), problem.object.data(),
                            problem.probe.data(), if_wanted(0, some.to_object), if_wanted(1, some.to_probe),
                            if_wanted(2, some.illumination), if_wanted(3, some.exposure)},
          {nullptr, 1});
      const std::pair<const std::vector<float>*, const std::vector<float>*> pairs[] = {
          {&some.to_object, &all.to_object},
          {&some.to_probe, &all.to_probe},
          {&some.illumination, &all.illumination},
          {&some.exposure, &all.exposure}};
      for (int number = 0; number < 4; ++number)
        EXPECT_EQ(*pairs[number].first,
                  number == wanted ? *pairs[number].second : std::vector<float>(pairs[number].first->size(), 7.0f))
            << number << ' ' << wanted;
    }
  }
}

// Patterns in two calls, the second onto the sums of the first, give the bits of one call.
TEST(ExitWavesBackendBlocks, BitsDoNotDependOnWhereBlocksEnd) {
  const Problem<float> problem = random_problem(11, true, 2, 16, 30, 41);
  const Result<float> whole = by_backend(problem, 2);
  Result<float> parts = whole;
  for (const auto& [from, to] : {std::pair{0, 4}, std::pair{4, 11}}) {
    PatchShape shape = problem.shape;
    shape.patterns = to - from;
    const std::int64_t wave = 2 * shape.modes * shape.frame();
    backend::run(
        OverlapAdd<float>{shape, from > 0, problem.corner.data() + 2 * from, problem.waves.data() + from * wave,
                          problem.object.data(), problem.probe.data(), parts.to_object.data(), parts.to_probe.data(),
                          parts.illumination.data(), parts.exposure.data()},
        {nullptr, 2});
  }
  EXPECT_EQ(whole.to_object, parts.to_object);
  EXPECT_EQ(whole.to_probe, parts.to_probe);
  EXPECT_EQ(whole.illumination, parts.illumination);
  EXPECT_EQ(whole.exposure, parts.exposure);
}

TEST(ExitWavesBackendRows, APatternsWavesDoNotDependOnTheOthers) {
  const Problem<float> problem = random_problem(6, false, 2, 17, 30, 41);
  const Result<float> whole = by_backend(problem, 1);
  const std::size_t wave = 2 * 2 * 17 * 17;
  for (const std::int64_t j : {0, 5}) {
    Problem<float> one = problem;
    one.shape.patterns = one.shape.probes = 1;
    one.corner = {problem.corner[2 * j], problem.corner[2 * j + 1]};
    one.probe.assign(problem.probe.begin() + j * wave, problem.probe.begin() + (j + 1) * wave);
    one.waves.assign(problem.waves.begin() + j * wave, problem.waves.begin() + (j + 1) * wave);
    const Result<float> alone = by_backend(one, 1);
    for (std::size_t i = 0; i < wave; ++i) {
      EXPECT_EQ(alone.waves[i], whole.waves[j * wave + i]);
      EXPECT_EQ(alone.to_probe[i], whole.to_probe[j * wave + i]);
    }
  }
}

TEST(ExitWavesBackendRows, NanStaysInItsPatch) {
  Problem<float> problem = random_problem(4, true, 1, 8, 20, 24);   // four patches that do not overlap
  problem.waves[2 * 64] = std::numeric_limits<float>::quiet_NaN();  // first pixel of the second pattern
  const Result<float> out = by_backend(problem, 1);
  const std::size_t there = 2 * 16;
  for (std::size_t i = 0; i < out.to_object.size(); ++i) EXPECT_EQ(std::isnan(out.to_object[i]), i / 2 == there / 2);
}

}  // namespace
}  // namespace sem
