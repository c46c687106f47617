// The arithmetic of device/two_float.hpp against double, on the host.
#include "device/two_float.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/problems.hpp"

namespace sem::device {
namespace {

constexpr double kUnit = 0x1p-47;  // a result's relative error, in exact double up to 2^-53

double value(TwoFloat x) { return static_cast<double>(x.high) + static_cast<double>(x.low); }
TwoFloat split(double x) {
  Float64Bits pattern;
  std::memcpy(&pattern, &x, sizeof x);
  return read_float64(pattern);
}
double joined(Float64Bits pattern) {
  double x;
  std::memcpy(&x, &pattern, sizeof x);
  return x;
}

class TwoFloats : public ::testing::Test {
 protected:
  std::vector<double> numbers(unsigned seed) const {
    std::mt19937 engine(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    std::vector<double> out;
    for (int k = 0; k < 2000; ++k) out.push_back(value(split(std::ldexp(uniform(engine), k % 41 - 20))));
    return out;
  }
};

TEST_F(TwoFloats, ReadFloat64To48Bits) {
  for (const double x : {0.0, 1.0, -1.0, 1 / 3.0, -1e-10, 7.94e-30, 1.26e29, 0.1, 16777217.0})
    EXPECT_LE(std::abs(value(split(x)) - x), 0x1p-48 * std::abs(x)) << x;
  EXPECT_EQ(split(0.1).high, 0.1f);  // the nearest float, and the rest below half a unit of it
  EXPECT_TRUE(std::isnan(split(std::numeric_limits<double>::quiet_NaN()).high));
  EXPECT_EQ(split(-1e300).high, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(value(split(1e-300)), 0);
}

TEST_F(TwoFloats, WriteFloat64) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float x : {0.0f, 1.0f, -1.5f, 1e-30f, -3e38f, 0.1f, infinity, -infinity})
    EXPECT_EQ(joined(float64_bits(x)), static_cast<double>(x));
  EXPECT_TRUE(std::isnan(joined(float64_bits(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_F(TwoFloats, SumsProductsAndRoots) {
  const std::vector<double> a = numbers(1), b = numbers(2);
  for (std::size_t k = 0; k < a.size(); ++k) {
    const TwoFloat x = split(a[k]), y = split(b[k]);
    EXPECT_LE(std::abs(value(x + y) - (a[k] + b[k])), kUnit * (std::abs(a[k]) + std::abs(b[k])));
    EXPECT_LE(std::abs(value(x - y) - (a[k] - b[k])), kUnit * (std::abs(a[k]) + std::abs(b[k])));
    EXPECT_LE(std::abs(value(x * y) - a[k] * b[k]), kUnit * std::abs(a[k] * b[k]));
    EXPECT_LE(std::abs(value(reciprocal(x)) * a[k] - 1), 2 * kUnit);
    const TwoFloat square = x * x;
    EXPECT_LE(std::abs(value(sqrt(square)) / std::sqrt(value(square)) - 1), 2 * kUnit);
    EXPECT_LE(std::abs(value(inverse_sqrt(square)) * std::sqrt(value(square)) - 1), 4 * kUnit);
    EXPECT_LE(std::abs(x.low), std::abs(x.high) * 0x1p-24f);
  }
  EXPECT_EQ(value(sqrt(TwoFloat{})), 0);
}

TEST_F(TwoFloats, DotLosesNothingToCancellation) {
  const std::vector<double> a = numbers(3), b = numbers(4);
  for (std::size_t k = 0; k + 2 < a.size(); k += 3) {
    const TwoFloat x[3] = {split(a[k]), split(a[k + 1]), split(a[k + 2])};
    const TwoFloat y[3] = {split(b[k]), split(b[k + 1]), split(b[k + 2])};
    double sum = 0, largest = 0;
    for (std::size_t i = k; i < k + 3; ++i) sum += a[i] * b[i], largest = std::max(largest, std::abs(a[i] * b[i]));
    EXPECT_LE(std::abs(value(dot(x, y)) - sum), 4 * kUnit * largest);
  }
}

TEST_F(TwoFloats, NearestWholeNumbersHalfWayTheLower) {
  for (double x :
       {0.0, 0.25, 0.5, -0.5, 1.5, 2.5, -2.5, 3.5 - 1e-9, 3.5 + 1e-9, -3.5 - 1e-9, 100.5 - 1e-10, 7.0 - 1e-9}) {
    x = value(split(x));
    TwoFloat rest;
    EXPECT_EQ(nearest_whole(split(x), rest), std::ceil(x - 0.5)) << x;
    EXPECT_EQ(value(rest), x - std::ceil(x - 0.5)) << x;
  }
}

TEST_F(TwoFloats, SineAndCosine) {
  for (double x = -20; x < 20; x += 0.0371) {
    TwoFloat sine, cosine;
    const double angle = value(split(x));
    sincos(split(x), sine, cosine);
    EXPECT_NEAR(value(sine), std::sin(angle), 2e-13) << x;
    EXPECT_NEAR(value(cosine), std::cos(angle), 2e-13) << x;
  }
}

}  // namespace
}  // namespace sem::device
