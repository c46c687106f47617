#include "sem/spinor_step.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "tests/problems.hpp"

namespace sem {
namespace {

using testing::converted;
using testing::normal_array;
using testing::relative_error;
using testing::uniform_array;

struct Sizes {
  int batch, num_blocks, size, taps, groups, states;
  bool rotates = true, gates = true;

  int dim() const { return num_blocks * size; }
};

template <class Real>
struct Problem {
  Sizes sizes;
  std::vector<std::vector<Real>> inputs;  // in the order of the fields, x to out_matrix

  template <class To>
  Problem<To> as() const {
    Problem<To> other{sizes, {}};
    for (const auto& input : inputs) other.inputs.push_back(converted<To>(input));
    return other;
  }
};

// Time steps between a tenth and a few, so that both limits are met.
Problem<float> random_problem(const Sizes& s) {
  const int dim = s.dim(), turned = s.rotates ? dim : 0, gated = s.gates ? dim : 0;
  const double narrow = 1 / std::sqrt(2.0 * dim);
  const auto scaled = [](std::vector<float> values, double scale) {
    for (float& value : values) value = static_cast<float>(value * scale);
    return values;
  };
  return {s,
          {normal_array<float>(s.batch * dim * 2, 1), normal_array<float>(s.batch * (s.taps - 1) * dim * 2, 2),
           normal_array<float>(s.batch * s.groups * s.states * 2, 3), uniform_array<float>(dim, 0.5, 2, 4),
           scaled(normal_array<float>(turned * dim * 2, 5), narrow), normal_array<float>(turned, 6),
           normal_array<float>(turned * s.size * 2, 7), normal_array<float>(s.taps * dim * 2, 8),
           normal_array<float>(dim * 2, 9), normal_array<float>(dim, 10),
           scaled(normal_array<float>(2 * s.groups * dim * 2, 11), 2 * narrow), normal_array<float>(2 * s.groups, 12),
           normal_array<float>(s.states * dim * 2, 13), normal_array<float>(s.states * dim * 2, 14),
           uniform_array<float>(s.groups * s.states, 0, 2, 15), normal_array<float>(s.groups * s.states, 16),
           scaled(normal_array<float>(gated * dim * 2, 18), narrow), normal_array<float>(gated, 19),
           scaled(normal_array<float>(dim * 2 * dim * 2, 17), narrow)}};
}

template <class Real>
struct Result {
  std::vector<Real> out, history, state;
};

template <class Real, class Run>
Result<Real> stepped(const Problem<Real>& problem, Run run) {
  const Sizes& s = problem.sizes;
  const auto& in = problem.inputs;
  Result<Real> result{std::vector<Real>(in[0].size()), std::vector<Real>(in[1].size()),
                      std::vector<Real>(in[2].size())};
  SpinorStep<Real> args{s.batch,
                        s.dim(),
                        s.rotates ? s.num_blocks : 0,
                        s.size,
                        s.gates ? s.dim() : 0,
                        s.taps,
                        s.groups,
                        s.states,
                        Real(1e-6),
                        Real(0.2),
                        Real(1.5)};
  const Real** const fields[] = {&args.x,          &args.history,   &args.state,         &args.gamma,     &args.gate,
                                 &args.gate_bias,  &args.blocks,    &args.taps,          &args.offset,    &args.theta,
                                 &args.time_steps, &args.time_bias, &args.into,          &args.out_of,    &args.decay,
                                 &args.frequency,  &args.out_gate,  &args.out_gate_bias, &args.out_matrix};
  for (std::size_t k = 0; k < in.size(); ++k) *fields[k] = in[k].data();
  args.out = result.out.data();
  args.history_after = result.history.data();
  args.state_after = result.state.data();
  run(args);
  return result;
}

Result<double> by_reference(const Problem<double>& problem) {
  return stepped(problem, reference::run<SpinorStep<double>>);
}
Result<float> by_cpu(const Problem<float>& problem, int threads) {
  return stepped(problem, [&](const SpinorStep<float>& args) { cpu::run(args, {nullptr, threads}); });
}

// The fields by their place among the inputs.
constexpr std::size_t kGate = 4, kGateBias = 5, kBlocks = 6, kOutGate = 16, kOutGateBias = 17;

TEST(SpinorStepReference, AGateOfTheOutputScalesWhatIsAdded) {
  Problem<double> problem = random_problem({2, 3, 2, 3, 2, 4}).as<double>();
  Problem<double> plain = problem;
  plain.sizes.gates = false;
  plain.inputs[kOutGate].clear();
  plain.inputs[kOutGateBias].clear();
  const Result<double> added = by_reference(plain);
  for (double& value : problem.inputs[kOutGate]) value = 0;
  for (double bias : {100.0, -1000.0}) {
    for (double& value : problem.inputs[kOutGateBias]) value = bias;
    const Result<double> out = by_reference(problem);
    for (std::size_t i = 0; i < out.out.size(); ++i) {
      const double x = problem.inputs[0][i];
      EXPECT_NEAR(out.out[i] - x, bias > 0 ? bias * (added.out[i] - x) : 0.0, 1e-10);
    }
    EXPECT_EQ(out.state, added.state);
    EXPECT_EQ(out.history, added.history);
  }
}

TEST(SpinorStepReference, NoRotationIsOneByTheIdentity) {
  Problem<double> problem = random_problem({2, 3, 2, 3, 2, 4}).as<double>();
  Problem<double> plain = problem;
  plain.sizes.rotates = false;
  for (std::size_t k : {kGate, kGateBias, kBlocks}) plain.inputs[k].clear();
  std::vector<double>& blocks = problem.inputs[kBlocks];
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = i % 8 == 0 || i % 8 == 6 ? 1 : 0;
  const Result<double> turned = by_reference(problem), out = by_reference(plain);
  EXPECT_LE(relative_error(out.out, turned.out), 1e-14);
  EXPECT_LE(relative_error(out.history, turned.history), 1e-14);
}

using Case = std::tuple<Sizes, bool, bool>;
class SpinorStepCpu : public ::testing::TestWithParam<Case> {};

TEST_P(SpinorStepCpu, MatchesReferenceForAnyNumberOfThreads) {
  auto [sizes, rotates, gates] = GetParam();
  sizes.rotates = rotates;
  sizes.gates = gates;
  const Problem<float> problem = random_problem(sizes);
  const Result<double> expected = by_reference(problem.as<double>());
  const Result<float> out = by_cpu(problem, 1);
  EXPECT_LE(relative_error(out.out, expected.out), 3e-6);
  EXPECT_LE(relative_error(out.history, expected.history), 3e-6);
  EXPECT_LE(relative_error(out.state, expected.state), 3e-6);
  const Result<float> shared = by_cpu(problem, 3);
  EXPECT_EQ(out.out, shared.out);
  EXPECT_EQ(out.history, shared.history);
  EXPECT_EQ(out.state, shared.state);
}

// The last is large enough for a team of threads.
INSTANTIATE_TEST_SUITE_P(Sizes, SpinorStepCpu,
                         ::testing::Combine(::testing::Values(Sizes{0, 2, 3, 4, 2, 5}, Sizes{1, 1, 1, 1, 1, 1},
                                                              Sizes{1, 2, 3, 2, 3, 5}, Sizes{3, 5, 3, 4, 5, 7},
                                                              Sizes{2, 16, 8, 4, 8, 16}, Sizes{5, 34, 6, 3, 12, 16}),
                                            ::testing::Bool(), ::testing::Bool()));

TEST(SpinorStepCpuRows, RowsKnowNothingOfEachOther) {
  const Sizes sizes{3, 4, 4, 3, 2, 6};
  Problem<float> problem = random_problem(sizes);
  const Result<float> clean = by_cpu(problem, 1);
  problem.inputs[0][32 + 5] = std::numeric_limits<float>::quiet_NaN();  // of the second row
  const Result<float> out = by_cpu(problem, 1);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(out.out[i], clean.out[i]);
    EXPECT_EQ(out.out[64 + i], clean.out[64 + i]);
    EXPECT_TRUE(std::isnan(out.out[32 + i]));
  }
  Problem<float> alone = problem;
  alone.sizes.batch = 1;
  for (int k = 0; k < 3; ++k) alone.inputs[k].resize(alone.inputs[k].size() / 3);
  const Result<float> one = by_cpu(alone, 1);
  EXPECT_EQ(std::vector<float>(out.out.begin(), out.out.begin() + 32), one.out);
  EXPECT_EQ(std::vector<float>(out.state.begin(), out.state.begin() + 24), one.state);
}

}  // namespace
}  // namespace sem
