#include "sem/pit.hpp"

#include <limits>

#include "cpu/circle_density.hpp"
#include "cpu/complex.hpp"
#include "cpu/scratch.hpp"
#include "cpu/tile.hpp"
#include "cpu/vector_math.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

constexpr float kTwoPi = 6.283185307179586f;
constexpr float kSmallest = 7.888609052210118e-31f;  // 2^-100 of the row's largest component: below it, no phase
constexpr std::int64_t kChunk = 16;                  // rows whose strength gradient is summed in one piece

SEM_INLINE float from_bits(std::int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A power of two that brings a row's largest component to [1, 2), and its reciprocal.
struct RowScale {
  bool finite, zero;
  float factor, inverse;
};

RowScale row_scale(const float* psi, std::int64_t floats) {
  vint most{};
  std::int64_t i = 0;
  for (; i + kLanes <= floats; i += kLanes) {
    const vint bits = as_int(load(psi + i)) & 0x7fffffff;
    most = vmax(bits, most);
  }
  std::int32_t largest = 0;
  for (int l = 0; l < kLanes; ++l) largest = most[l] > largest ? most[l] : largest;
  for (; i < floats; ++i) {
    std::int32_t bits;
    std::memcpy(&bits, psi + i, sizeof bits);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  std::int32_t exponent = largest >> 23;
  const bool finite = exponent < 255;
  exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
  return {finite, largest == 0, from_bits((254 - exponent) << 23), from_bits(exponent << 23)};
}

// Entries [i, i + 16) of a complex row as two planes; zeros past the end.
SEM_INLINE Complex load_complex(const float* row, std::int64_t width, std::int64_t i) {
  if (i + kLanes <= width) return separate(row + 2 * i);
  float padded[2 * kLanes] = {};
  std::memcpy(padded, row + 2 * i, static_cast<std::size_t>(width - i) * 2 * sizeof(float));
  return separate(padded);
}

SEM_INLINE void store_complex(float* row, std::int64_t width, std::int64_t i, Complex z) {
  if (i + kLanes <= width) return merge(row + 2 * i, z);
  float padded[2 * kLanes];
  merge(padded, z);
  std::memcpy(row + 2 * i, padded, static_cast<std::size_t>(width - i) * 2 * sizeof(float));
}

SEM_INLINE vfloat largest_component(vfloat re, vfloat im) { return vmax(vabs(re), vabs(im)); }

void fill(float* values, std::int64_t count, float value) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = value;
}

// One thread's memory and the steps that forward and backward share. Lanes run across the entries of one row, so rows
// cannot touch each other; a row of a few hundred entries stays in the first-level cache from its first to its last
// pass.
class RowKernel {
 public:
  static constexpr int kPlanes = 7;
  static std::int64_t padded(std::int64_t width) { return (width + kLanes - 1) / kLanes * kLanes; }
  static std::int64_t floats(std::int64_t width, std::int32_t bins) {
    return (kPlanes * padded(width) + CircleDensity::floats(bins) + kLanes - 1) / kLanes * kLanes;
  }

  RowKernel(float* memory, std::int64_t width, std::int32_t bins, PitRule rule, float strength)
      : width_(width),
        bins_(static_cast<float>(bins)),
        direction_((rule == PitRule::score ? -1.0f : 1.0f) * (kTwoPi / bins_)),
        strength_(strength),
        score_(rule == PitRule::score),
        re_(memory),
        im_(re_ + padded(width)),
        offset_(im_ + padded(width)),
        cell_(offset_ + padded(width)),
        q_re_(cell_ + padded(width)),
        q_im_(q_re_ + padded(width)),
        local_(q_im_ + padded(width)),
        density_(local_ + padded(width), bins) {}

  void forward(const float* psi, const float* reference_rms, float* out) {
    const RowScale scale = row_scale(psi, 2 * width_);
    if (!scale.finite || scale.zero) {
      fill(out, 2 * width_, scale.finite ? 0.0f : std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const double square = locate(psi, scale.factor);
    BlockSum turned_square;
    for (std::int64_t i = 0; i < width_; i += kLanes) {
      const vfloat re = load(re_ + i), im = load(im_ + i);
      const Score s = score<1>(i, kSmallest < largest_component(re, im));
      vfloat sine, cosine;
      vsincos(s.bounded * (direction_ * strength_), sine, cosine);
      const vfloat turned_re = re * cosine - im * sine;
      const vfloat turned_im = re * sine + im * cosine;
      turned_square.add_product(turned_re, turned_re);
      turned_square.add_product(turned_im, turned_im);
      turned_square.end_of_node(i / kLanes);
      store(re_ + i, turned_re);
      store(im_ + i, turned_im);
    }
    const double turned = horizontal_sum(turned_square.total());
    const float factor = reference_rms != nullptr
                             ? static_cast<float>(*reference_rms / std::sqrt(turned / static_cast<double>(width_)))
                             : static_cast<float>(std::sqrt(square / turned)) * scale.inverse;
    for (std::int64_t i = 0; i < width_; i += kLanes)
      store_complex(out, width_, i, {load(re_ + i) * factor, load(im_ + i) * factor});
  }

  // Returns the row's share of the strength gradient.
  double backward(const float* psi, const float* reference_rms, const float* grad_out, float* grad_psi,
                  float* grad_reference) {
    const RowScale scale = row_scale(psi, 2 * width_);
    if (!scale.finite || scale.zero) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      if (scale.finite && reference_rms == nullptr)
        std::memcpy(grad_psi, grad_out, static_cast<std::size_t>(width_) * 2 * sizeof(float));
      else
        fill(grad_psi, 2 * width_, scale.finite ? 0.0f : nan);
      if (grad_reference != nullptr) *grad_reference = scale.finite ? 0.0f : nan;
      return scale.finite ? 0.0 : nan;
    }
    // The formulas of sem/pit.hpp on p = psi * scale.factor; `back` turns the bracket of g_psi into dL/dpsi.
    const double square = locate(psi, scale.factor);
    const double rms = std::sqrt(square / static_cast<double>(width_));
    const double c = reference_rms != nullptr ? *reference_rms / rms : scale.inverse;
    const float back = reference_rms != nullptr ? static_cast<float>(c * scale.factor) : 1.0f;

    density_.clear();
    BlockSum radial_sum, strength_sum;
    for (std::int64_t i = 0; i < width_; i += kLanes) {
      const vfloat re = load(re_ + i), im = load(im_ + i);
      const vint counted = kSmallest < largest_component(re, im);
      const Score s = score<2>(i, counted);
      vfloat sine, cosine;
      vsincos(s.bounded * (direction_ * strength_), sine, cosine);
      const Complex g = load_complex(grad_out, width_, i);
      const vfloat q_re = cosine * g.re + sine * g.im;
      const vfloat q_im = cosine * g.im - sine * g.re;
      store(q_re_ + i, q_re);
      store(q_im_ + i, q_im);
      const vfloat w = re * q_im - im * q_re;
      radial_sum.add_product(re, q_re);
      radial_sum.add_product(im, q_im);
      radial_sum.end_of_node(i / kLanes);
      strength_sum.add_product(s.bounded, w);
      strength_sum.end_of_node(i / kLanes);
      const vfloat h = select(counted, w * s.bounded_slope * (direction_ * strength_), vfloat{});
      const vfloat by_slope = score_ ? h / s.density.value : vfloat{};
      const vfloat by_value = score_ ? -by_slope * s.value : -h * uniform_ / (s.density.value * s.density.value);
      store(local_ + i, by_slope * s.density.second + by_value * s.density.first);
      density_.add(cell_ + i, load(offset_ + i), by_value, by_slope);
    }
    density_.spread();

    const double radial = horizontal_sum(radial_sum.total());
    if (grad_reference != nullptr) *grad_reference = static_cast<float>(radial / rms);
    const float pull = reference_rms != nullptr ? static_cast<float>(radial / square) : 0.0f;
    for (std::int64_t i = 0; i < width_; i += kLanes) {
      const vfloat re = load(re_ + i), im = load(im_ + i);
      const vfloat size = largest_component(re, im);
      const vint counted = kSmallest < size;
      const vfloat inverse = 1.0f / select(counted, size, broadcast(1.0f));  // |p|^2 itself may underflow
      const vfloat x = re * inverse, y = im * inverse;
      const vfloat slope = load(local_ + i) + density_.at<1>(cell_ + i, load(offset_ + i)).first;
      const vfloat turn = select(
          counted, slope * (bins_ / kTwoPi) / select(counted, x * x + y * y, broadcast(1.0f)) * inverse, vfloat{});
      store_complex(grad_psi, width_, i,
                    {(load(q_re_ + i) - pull * re - turn * y) * back, (load(q_im_ + i) - pull * im + turn * x) * back});
    }
    return c * direction_ * horizontal_sum(strength_sum.total());
  }

 private:
  struct Score {
    KernelSum density;
    vfloat value, bounded, bounded_slope;  // s, f(s), f'(s); zero where an entry has no phase
  };

  // First pass: the scaled entries, their cells and offsets, and the density. Returns the sum of squares.
  double locate(const float* psi, float factor) {
    density_.clear();
    BlockSum square;
    vfloat count{};
    const std::int32_t cells = 2 * density_.bins();
    for (std::int64_t i = 0; i < width_; i += kLanes) {
      const Complex z = load_complex(psi, width_, i);
      const vfloat re = z.re * factor, im = z.im * factor;
      store(re_ + i, re);
      store(im_ + i, im);
      square.add_product(re, re);
      square.add_product(im, im);
      square.end_of_node(i / kLanes);

      const vint counted = kSmallest < largest_component(re, im);
      vfloat octant, rest;
      octant_angle(select(counted, re, broadcast(1.0f)), select(counted, im, vfloat{}), octant, rest);
      octant *= bins_ * 0.125f;  // exact
      rest *= bins_ / kTwoPi;
      vint cell;
      const vfloat nearest = round_to_int((octant + rest) * 2.0f, cell);
      const vfloat offset = (octant - nearest * 0.5f) + rest;
      cell += (cell >> 31) & cells;  // [-bins, bins] to [0, 2 bins)
      store(cell_ + i, as_float(cell));
      store(offset_ + i, offset);
      const vfloat weight = select(counted, broadcast(1.0f), vfloat{});
      count += weight;
      density_.add(cell_ + i, offset, weight);
    }
    density_.spread();
    uniform_ = kTwoPi / bins_ * horizontal_sum(count);
    return horizontal_sum(square.total());
  }

  template <int kDerivatives>
  SEM_INLINE Score score(std::int64_t i, vint counted) const {
    Score s;
    s.density = density_.at<kDerivatives>(cell_ + i, load(offset_ + i));
    s.density.value = select(counted, s.density.value, broadcast(1.0f));
    s.value = score_ ? s.density.first / s.density.value : uniform_ / s.density.value - 1.0f;
    s.value = select(counted, s.value, vfloat{});
    const vfloat shrink = 1.0f / vsqrt(s.value * s.value + 1.0f);
    s.bounded = s.value * shrink;
    s.bounded_slope = shrink * shrink * shrink;
    return s;
  }

  std::int64_t width_;
  float bins_, direction_, strength_, uniform_ = 0;
  bool score_;
  float *re_, *im_, *offset_, *cell_;  // cell_ holds int32 bits
  float *q_re_, *q_im_, *local_;
  CircleDensity density_;
};

std::int64_t chunk_count(std::int64_t rows) { return (rows + kChunk - 1) / kChunk; }
std::int64_t chunk_end(std::int64_t rows, std::int64_t chunk) {
  return (chunk + 1) * kChunk < rows ? (chunk + 1) * kChunk : rows;
}

}  // namespace

// Memory traffic: psi is read once, out written once.
void pit_forward(const PitForward<float>& args, Queue queue) {
  const std::int64_t memory = RowKernel::floats(args.width, args.num_bins);
  const std::int64_t row_floats = 2 * args.width;
  const Scratch scratch(static_cast<std::size_t>(queue.threads * memory));
#pragma omp parallel num_threads(queue.threads)
  {
    RowKernel kernel(scratch.data() + thread_index() * memory, args.width, args.num_bins, args.rule, args.strength[0]);
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunk_count(args.rows); ++chunk)
      for (std::int64_t row = chunk * kChunk; row < chunk_end(args.rows, chunk); ++row)
        kernel.forward(args.psi + row * row_floats, args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                       args.out + row * row_floats);
  }
}

// Memory traffic: psi and grad_out are read once, grad_psi written once. The strength gradient is summed per chunk of
// rows and then over chunks, in order and in double, so that it does not depend on the number of threads.
void pit_backward(const PitBackward<float>& args, Queue queue) {
  const std::int64_t memory = RowKernel::floats(args.width, args.num_bins);
  const std::int64_t row_floats = 2 * args.width;
  const std::int64_t chunks = chunk_count(args.rows);
  const Scratch scratch(static_cast<std::size_t>(queue.threads * memory));
  const Scratch partials(static_cast<std::size_t>(2 * chunks));
  double* partial = reinterpret_cast<double*>(partials.data());
#pragma omp parallel num_threads(queue.threads)
  {
    RowKernel kernel(scratch.data() + thread_index() * memory, args.width, args.num_bins, args.rule, args.strength[0]);
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      double sum = 0;
      for (std::int64_t row = chunk * kChunk; row < chunk_end(args.rows, chunk); ++row)
        sum += kernel.backward(args.psi + row * row_floats,
                               args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                               args.grad_out + row * row_floats, args.grad_psi + row * row_floats,
                               args.grad_reference == nullptr ? nullptr : args.grad_reference + row);
      partial[chunk] = sum;
    }
  }
  double total = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += partial[chunk];
  args.grad_strength[0] = static_cast<float>(total);
}

}  // namespace sem::cpu::SEM_ISA
