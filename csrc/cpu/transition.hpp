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
    turns_rest_ = load(rest);
  }

  SEM_INLINE Complex operator()(vfloat m, vfloat p) const {
    constexpr float kMostTurns = 8000.0f * 0.636619772367581343f;
    constexpr float kAlmostOne = 1.0f - 0x1p-22f;
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: a sum with it has the nearest integer in the low mantissa bits

    const vfloat shifted = p * turns_ + kMagic;
    vfloat whole = shifted - kMagic;
    whole = select(vabs(whole) < kMostTurns, whole, broadcast(__builtin_nanf("")));
    const vfloat turn = (p * turns_ - whole) + p * turns_rest_;
    const vfloat square = turn * turn;
    // sin and cos of turn * pi/2 and below 2^turn, |turn| <= 1/2: minimax, relative errors below 4e-9 before rounding
    vfloat s = broadcast(-0.004602177068591118f);
    s = s * square + 0.07968022674322128f;
    s = s * square - 0.6459634900093079f;
    s = s * square + 1.5707963705062866f;
    s = s * turn;
    vfloat c = broadcast(0.0009040216682478786f);
    c = c * square - 0.02086028829216957f;
    c = c * square + 0.25366923213005066f;
    c = c * square - 1.2337005138397217f;
    c = c * square + 1.0f;

    const vfloat lowered = m * halvings_ + kMagic;
    const vfloat octaves = lowered - kMagic;
    const vfloat r = m * halvings_ - octaves;
    vfloat e = broadcast(0.00015353361959569156f);
    e = e * r + 0.0013398875016719103f;
    e = e * r + 0.00961843691766262f;
    e = e * r + 0.055503323674201965f;
    e = e * r + 0.24022647738456726f;
    e = e * r + 0.6931471824645996f;
    e = e * r + 1.0f;
    e = e * as_float((as_int(lowered) << 23) + 0x3f800000);  // the magic number's own bits are shifted out
    e = select(octaves < -125.0f, vfloat{}, e);
    e = select((kAlmostOne < e) & (turn != 0.0f), broadcast(kAlmostOne), e);

    const vint quarter = as_int(shifted);
    const vint swap = (quarter << 31) >> 31;
    const vint sine_sign = (quarter & 2) << 30;
    const vint cosine_sign = ((quarter + 1) & 2) << 30;
    const vfloat sine = as_float(as_int(select(swap, c, s)) ^ sine_sign);
    const vfloat cosine = as_float(as_int(select(swap, s, c)) ^ cosine_sign);
    return {e * cosine, e * sine};
  }

 private:
  vfloat halvings_, turns_, turns_rest_;
};

}  // namespace sem::cpu::SEM_ISA
