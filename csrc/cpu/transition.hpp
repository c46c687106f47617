// The factors of a scan's steps, for sixteen channels.
#pragma once

#include "cpu/complex.hpp"
#include "cpu/vector_math.hpp"

namespace sem::cpu::SEM_ISA {

// A(m, p) = exp(-m decay) exp(i p frequency) for m, decay >= 0.
//
// The rates are kept per factor of 2 and per quarter turn, so that taking off whole ones is exact and what is left goes
// into the polynomials as it is: 24 multiplications for a channel and step, where exp and sincos of the products take
// 36. The frequency has two parts, which leaves the phase with the error of `p` alone where there is a fused
// multiply-add. Powers below 2^-126 are zero. A phase of 8000 radians and more gives NaN.
//
// Rounding can leave |A| a little above 1 where m decay is below 2e-7; there it is made a little smaller than 1, so
// that no state grows by rounding over any number of steps. Without a turn the modulus is exact, and m = p = 0 gives 1.
class Transition {
 public:
  Transition() = default;
  Transition(vfloat decay, vfloat frequency) : halvings_(decay * -1.44269504088896341f) {
    float whole[kLanes], rest[kLanes], given[kLanes];
    store(given, frequency);
    for (int l = 0; l < kLanes; ++l) {
      const double turns = static_cast<double>(given[l]) * 0.636619772367581343;
      whole[l] = static_cast<float>(turns);
      rest[l] = static_cast<float>(turns - static_cast<double>(whole[l]));
    }
    turns_ = load(whole);
    rest_ = load(rest);
  }

  SEM_INLINE Complex operator()(vfloat m, vfloat p) const { return factors<kLanes>(m, p, halvings_, turns_, rest_); }

  // Two steps side by side: one alone is a chain of operations longer than the processor looks ahead.
  SEM_INLINE void two(const float* m, const float* p, std::int64_t stride, Complex (&out)[2]) const {
    using Pair = Halves<float, 2 * kLanes>;
    const ComplexLanes<2 * kLanes> both =
        factors<2 * kLanes>(Pair{broadcast(m[0]), broadcast(m[stride])}, Pair{broadcast(p[0]), broadcast(p[stride])},
                            Pair{halvings_, halvings_}, Pair{turns_, turns_}, Pair{rest_, rest_});
    out[0] = {both.re.low, both.im.low};
    out[1] = {both.re.high, both.im.high};
  }

 private:
  template <int kCount>
  static SEM_INLINE ComplexLanes<kCount> factors(Lanes<float, kCount> m, Lanes<float, kCount> p,
                                                 Lanes<float, kCount> halvings, Lanes<float, kCount> turns,
                                                 Lanes<float, kCount> rest) {
    using Vector = Lanes<float, kCount>;
    using Integers = Lanes<std::int32_t, kCount>;
    constexpr float kMostTurns = 8000.0f * 0.636619772367581343f;
    constexpr float kAlmostOne = 1.0f - 0x1p-22f;
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: a sum with it has the nearest integer in the low mantissa bits

    const Vector shifted = p * turns + kMagic, lowered = m * halvings + kMagic;
    const Vector whole = shifted - kMagic, octaves = lowered - kMagic;
    const Vector turn = (p * turns - whole) + p * rest, r = m * halvings - octaves;
    const Vector square = turn * turn;
    // sin and cos of turn * pi/2 and 2^r for magnitudes up to 1/2: minimax, relative errors below 4e-9 before rounding
    Vector s = square * -0.004602177068591118f + 0.07968022674322128f;
    Vector c = square * 0.0009040216682478786f - 0.02086028829216957f;
    Vector e = r * 0.00015353361959569156f + 0.0013398875016719103f;
    s = s * square - 0.6459634900093079f;
    c = c * square + 0.25366923213005066f;
    e = e * r + 0.00961843691766262f;
    s = s * square + 1.5707963705062866f;
    c = c * square - 1.2337005138397217f;
    e = e * r + 0.055503323674201965f;
    s = s * turn;
    c = c * square + 1.0f;
    e = e * r + 0.24022647738456726f;
    e = e * r + 0.6931471824645996f;
    e = e * r + 1.0f;
    e = e * as_float((as_int(lowered) << 23) + 0x3f800000);  // the magic number's own bits are shifted out
    e = select(octaves < -125.0f, Vector{}, e);
    e = select((kAlmostOne < e) & (turn != 0.0f), Vector{} + kAlmostOne, e);
    const Vector magnitude = as_float(as_int(whole) & 0x7fffffff);
    e = select(magnitude < kMostTurns, e, Vector{} + __builtin_nanf(""));

    const Integers quarter = as_int(shifted);
    const Integers swap = (quarter << 31) >> 31;
    const Integers sine_sign = (quarter & 2) << 30;
    const Integers cosine_sign = ((quarter + 1) & 2) << 30;
    const Vector sine = as_float(as_int(select(swap, c, s)) ^ sine_sign);
    const Vector cosine = as_float(as_int(select(swap, s, c)) ^ cosine_sign);
    return {e * cosine, e * sine};
  }

  vfloat halvings_, turns_, rest_;
};

}  // namespace sem::cpu::SEM_ISA
