// The complex selective scan and its gradients. A group owns 32 neighbouring channels of one batch row, so that every
// access to memory is contiguous, and walks along time in blocks. Within a block time is shared out: each of eight time
// lanes takes a run of steps, reduces it to the map h -> P h + s that the run is, starts from the state that the lanes
// before it lead to, and goes over its run again in registers. So x is read once, the states are written once and A is
// computed once, in one launch; how time is cut up is fixed, so bits depend on a row alone.
#pragma once

#include <cstdint>

#include "device/column_sums.hpp"
#include "device/complex.hpp"
#include "device/group.hpp"
#include "device/math.hpp"
#include "device/plan.hpp"
#include "sem/scan.hpp"

namespace sem::device {

struct ScanPlan {
  static constexpr int kChannels = 32;
  static constexpr int kTimeLanes = 8;
  static constexpr int kGroupSize = kChannels * kTimeLanes;
  static constexpr int kForwardRun = 8;   // steps of one time lane in a block
  static constexpr int kBackwardRun = 4;  // fewer: three arrays are held where the forward holds one
  static constexpr int kPadded = kChannels + 1;
  static constexpr std::int64_t kMapFloats = 4 * kGroupSize;
  static constexpr std::int64_t kForwardLocal = 2 * kMapFloats;
  static constexpr std::int64_t kBackwardLocal = kMapFloats + 2 * kTimeLanes * kBackwardRun * kPadded;

  explicit ScanPlan(const ScanShape& shape)
      : tiles((shape.channels + kChannels - 1) / kChannels), slots(tiles + shape.groups) {}

  std::int64_t tiles;  // of channels
  std::int64_t slots;  // (tile, group) pairs: tile + group is one's own for every pair that shares a channel
};

// Where the backward leaves sums that cross tiles or batch rows.
struct ScanPartials {
  ScanPartials(const ScanShape& shape, float* workspace)
      : dt(workspace), channel(workspace + 2 * shape.batch * ScanPlan(shape).slots * shape.steps) {}
  static std::int64_t floats(const ScanShape& shape) {
    return 2 * shape.batch * (ScanPlan(shape).slots * shape.steps + shape.channels);
  }

  float* dt;       // [mag or phase, batch, slots, steps]
  float* channel;  // [batch, decay or frequency, channels]
};

// A = exp(-m decay) exp(i p frequency). Rounding can leave |A| a little above 1 where m decay is below 1e-7; there it
// is made a little smaller than 1, so that no state grows by rounding over any number of steps. m = p = 0 gives 1
// exactly. A phase beyond the range of sincos gives NaN.
SEM_DEVICE Complex scan_transition(float m, float p, float decay, float frequency) {
  constexpr float kBelowOne = 1.0f - 0x1p-24f, kShrink = 0x1p-22f;
  float sine, cosine;
  sincos(p * frequency, sine, cosine);
  const float radius = exp(0.0f - m * decay);
  const Complex a{radius * cosine, radius * sine};
  const float im_square = a.im * a.im;
  const float square = a.re * a.re + im_square;
  const float scale = kBelowOne < square && 0.0f < im_square ? (1.5f - kShrink) - 0.5f * square : 1.0f;
  return scale * a;
}

// What a run of steps does to a state: h -> product h + sum.
struct ScanMap {
  Complex product{1, 0}, sum;
};

// The maps of one block's time lanes, in local memory.
class ScanMaps {
 public:
  SEM_DEVICE ScanMaps(float* local, int channel) : at_(local + channel) {}
  SEM_DEVICE void store(int lane, const ScanMap& map) const {
    float* const to = at_ + lane * 4 * ScanPlan::kChannels;
    to[0] = map.product.re;
    to[ScanPlan::kChannels] = map.product.im;
    to[2 * ScanPlan::kChannels] = map.sum.re;
    to[3 * ScanPlan::kChannels] = map.sum.im;
  }
  SEM_DEVICE Complex apply(int lane, Complex h) const {
    const float* const from = at_ + lane * 4 * ScanPlan::kChannels;
    const Complex product{from[0], from[ScanPlan::kChannels]};
    const Complex sum{from[2 * ScanPlan::kChannels], from[3 * ScanPlan::kChannels]};
    return product * h + sum;
  }

 private:
  float* at_;
};

// One group's place: a batch row and 32 channels of it.
struct ScanPlace {
  template <class Group>
  SEM_DEVICE ScanPlace(const Group& group, const ScanShape& shape)
      : tile(group.id() % tiles(shape)),
        row(group.id() / tiles(shape)),
        offset(group.rank() % ScanPlan::kChannels),
        lane(group.rank() / ScanPlan::kChannels),
        channel(tile * ScanPlan::kChannels + offset),
        inside(channel < shape.channels),
        group_of_channel(inside ? channel / (shape.channels / shape.groups) : 0) {}

  static SEM_DEVICE std::int64_t tiles(const ScanShape& shape) {
    return (shape.channels + ScanPlan::kChannels - 1) / ScanPlan::kChannels;
  }

  std::int64_t tile, row;
  int offset, lane;
  std::int64_t channel;
  bool inside;
  std::int64_t group_of_channel;
};

// Groups: batch * tiles. Memory traffic: x is read once and the states are written once.
template <class Group>
SEM_DEVICE void scan_forward(const Group& group, const ScanForward<float>& args) {
  constexpr int kRun = ScanPlan::kForwardRun, kLanes = ScanPlan::kTimeLanes;
  const std::int64_t steps = args.shape.steps, channels = args.shape.channels, groups = args.shape.groups;
  const ScanPlace place(group, args.shape);
  const std::int64_t at_row = place.row * channels + place.channel;
  const float decay = place.inside ? args.decay[place.channel] : 0.0f;
  const float frequency = place.inside ? args.frequency[place.channel] : 0.0f;
  Complex carried = place.inside ? load(args.initial_state, at_row) : Complex{};
  if (steps == 0 && place.inside && place.lane == 0) store(args.final_state, at_row, carried);

  int parity = 0;  // two sets of maps: one barrier a block is enough
  for (std::int64_t block = 0; block < steps; block += kRun * kLanes, parity ^= 1) {
    const std::int64_t begin = block + place.lane * kRun;
    Complex input[kRun], a[kRun];
    float m[kRun], p[kRun];
    SEM_UNROLL
    for (int j = 0; j < kRun; ++j) {
      const bool there = place.inside && begin + j < steps;
      const std::int64_t step = place.row * steps + begin + j;
      input[j] = there ? load(args.x, step * channels + place.channel) : Complex{};
      m[j] = there ? args.dt_mag[step * groups + place.group_of_channel] : 0.0f;
      p[j] = there ? args.dt_phase[step * groups + place.group_of_channel] : 0.0f;
    }
    ScanMap map;
    SEM_UNROLL
    for (int j = 0; j < kRun; ++j) {
      a[j] = scan_transition(m[j], p[j], decay, frequency);
      input[j] = m[j] * input[j];
      map.sum = a[j] * map.sum + input[j];
      map.product = a[j] * map.product;
    }
    const ScanMaps maps(group.local() + parity * ScanPlan::kMapFloats, place.offset);
    maps.store(place.lane, map);
    group.barrier();
    Complex h;
    SEM_UNROLL
    for (int lane = 0; lane < kLanes; ++lane) {
      if (lane == place.lane) h = carried;
      carried = maps.apply(lane, carried);
    }
    SEM_UNROLL
    for (int j = 0; j < kRun; ++j) {
      if (!place.inside || begin + j >= steps) continue;
      h = a[j] * h + input[j];
      store(args.states, (place.row * steps + begin + j) * channels + place.channel, h);
      if (begin + j == steps - 1) store(args.final_state, at_row, h);
    }
  }
}

// Groups: batch * tiles. Memory traffic: x, the states and their gradient are read once and the gradient to x is
// written once; the sums that cross tiles or batch rows are left in `workspace` for scan_backward_finish.
template <class Group>
SEM_DEVICE void scan_backward(const Group& group, const ScanBackward<float>& args, const ScanPartials& partials) {
  constexpr int kRun = ScanPlan::kBackwardRun, kLanes = ScanPlan::kTimeLanes, kBlock = kRun * kLanes;
  constexpr int kPadded = ScanPlan::kPadded;
  const std::int64_t steps = args.shape.steps, channels = args.shape.channels, groups = args.shape.groups;
  const ScanPlace place(group, args.shape);
  const std::int64_t at_row = place.row * channels + place.channel;
  const float decay = place.inside ? args.decay[place.channel] : 0.0f;
  const float frequency = place.inside ? args.frequency[place.channel] : 0.0f;
  const ScanMaps maps(group.local(), place.offset);
  float* const to_dt = group.local() + ScanPlan::kMapFloats;  // [mag or phase, step of the block, padded channels]

  // The groups that this tile's channels belong to.
  const std::int64_t per_group = channels / groups, first_channel = place.tile * ScanPlan::kChannels;
  const std::int64_t last_channel = min(first_channel + ScanPlan::kChannels, channels) - 1;
  const std::int64_t first_group = first_channel / per_group;
  const int shared = static_cast<int>(last_channel / per_group - first_group) + 1;
  const std::int64_t slots = ScanPlace::tiles(args.shape) + groups;

  Complex carried = place.inside ? load(args.grad_final_state, at_row) : Complex{};  // conj(A_{t+1}) l_{t+1}
  if (steps == 0 && place.inside && place.lane == 0) store(args.grad_initial_state, at_row, carried);
  RunningSum decay_sum, frequency_sum;
  for (std::int64_t block = (steps - 1) / kBlock * kBlock; steps > 0 && block >= 0; block -= kBlock) {
    const std::int64_t begin = block + place.lane * kRun;
    Complex x[kRun], g[kRun], before[kRun], a[kRun];
    float m[kRun], p[kRun];
    SEM_UNROLL
    for (int j = 0; j < kRun; ++j) {
      const bool there = place.inside && begin + j < steps;
      const std::int64_t step = place.row * steps + begin + j, at = step * channels + place.channel;
      x[j] = there ? load(args.x, at) : Complex{};
      g[j] = there ? load(args.grad_states, at) : Complex{};
      before[j] = !there          ? Complex{}
                  : begin + j > 0 ? load(args.states, at - channels)
                                  : load(args.initial_state, at_row);
      m[j] = there ? args.dt_mag[step * groups + place.group_of_channel] : 0.0f;
      p[j] = there ? args.dt_phase[step * groups + place.group_of_channel] : 0.0f;
    }
    ScanMap map;
    SEM_UNROLL
    for (int j = kRun - 1; j >= 0; --j) {
      a[j] = scan_transition(m[j], p[j], decay, frequency);
      map.sum = conj(a[j]) * (map.sum + g[j]);
      map.product = conj(a[j]) * map.product;
    }
    maps.store(place.lane, map);
    group.barrier();
    Complex own;
    SEM_UNROLL
    for (int lane = kLanes - 1; lane >= 0; --lane) {
      if (lane == place.lane) own = carried;
      carried = maps.apply(lane, carried);
    }
    float decay_part = 0, frequency_part = 0;
    SEM_UNROLL
    for (int j = kRun - 1; j >= 0; --j) {
      const Complex l = g[j] + own;
      const Complex w = conj(l) * (a[j] * before[j]);
      own = conj(a[j]) * l;
      decay_part -= m[j] * w.re;
      frequency_part -= p[j] * w.im;
      float* const to = to_dt + (place.lane * kRun + j) * kPadded + place.offset;
      to[0] = (l.re * x[j].re + l.im * x[j].im) - decay * w.re;
      to[kBlock * kPadded] = 0.0f - frequency * w.im;
      if (place.inside && begin + j < steps)
        store(args.grad_x, (place.row * steps + begin + j) * channels + place.channel, m[j] * l);
    }
    decay_sum.add(decay_part);
    frequency_sum.add(frequency_part);
    if (begin == 0 && place.inside) store(args.grad_initial_state, at_row, own);
    group.barrier();
    // Over the channels of each group, in order. The next write to to_dt comes after the next barrier.
    for (int item = group.rank(); item < 2 * shared * kBlock; item += ScanPlan::kGroupSize) {
      const int step = item % kBlock, kind = item / kBlock % 2;
      const std::int64_t owner = first_group + item / (2 * kBlock);
      if (block + step >= steps) continue;
      const int from = static_cast<int>(max(owner * per_group, first_channel) - first_channel);
      const int to = static_cast<int>(min((owner + 1) * per_group - 1, last_channel) - first_channel);
      const float* const terms = to_dt + (kind * kBlock + step) * kPadded;
      float sum = terms[from];
      for (int c = from + 1; c <= to; ++c) sum += terms[c];
      partials.dt[((kind * args.shape.batch + place.row) * slots + place.tile + owner) * steps + block + step] = sum;
    }
  }
  group.barrier();
  float* const sums = group.local();
  sums[group.rank()] = decay_sum.total();
  sums[ScanPlan::kGroupSize + group.rank()] = frequency_sum.total();
  group.barrier();
  if (place.lane >= 2 || !place.inside) return;
  float sum = 0;
  SEM_UNROLL
  for (int lane = 0; lane < kLanes; ++lane)
    sum += sums[place.lane * ScanPlan::kGroupSize + lane * ScanPlan::kChannels + place.offset];
  partials.channel[(2 * place.row + place.lane) * channels + place.channel] = sum;
}

// Groups of the finishing launch, of ColumnSums::kGroupSize threads: those of the gradients to dt, then column sums.
inline std::int64_t scan_dt_groups(const ScanShape& shape) {
  return (2 * shape.batch * shape.steps * shape.groups + ColumnSums::kGroupSize - 1) / ColumnSums::kGroupSize;
}

inline ColumnSums scan_column_sums(const ScanBackward<float>& args, const ScanPartials& partials) {
  const std::int64_t channels = args.shape.channels;
  return {args.shape.batch, 2 * channels, partials.channel, channels, args.grad_decay, args.grad_frequency};
}

template <class Group>
SEM_DEVICE void scan_backward_finish(const Group& group, const ScanBackward<float>& args, const ScanPartials& partials,
                                     const ColumnSums& sums, std::int64_t dt_groups) {
  if (group.id() >= dt_groups) return column_sums(group, sums, group.id() - dt_groups);
  const std::int64_t steps = args.shape.steps, groups = args.shape.groups, batch = args.shape.batch;
  const std::int64_t item = group.id() * ColumnSums::kGroupSize + group.rank();
  if (item >= 2 * batch * groups * steps) return;
  const std::int64_t step = item % steps, owner = item / steps % groups;
  const std::int64_t row = item / (steps * groups) % batch, kind = item / (steps * groups * batch);
  const std::int64_t per_group = args.shape.channels / groups, slots = ScanPlace::tiles(args.shape) + groups;
  const std::int64_t first = owner * per_group / ScanPlan::kChannels;
  const std::int64_t last = ((owner + 1) * per_group - 1) / ScanPlan::kChannels;
  const float* const part = partials.dt + ((kind * batch + row) * slots + owner) * steps + step;
  float sum = part[first * steps];
  for (std::int64_t tile = first + 1; tile <= last; ++tile) sum += part[tile * steps];
  (kind == 0 ? args.grad_dt_mag : args.grad_dt_phase)[(row * steps + step) * groups + owner] = sum;
}

struct ScanForwardKernel {
  static constexpr int kMostThreads = ScanPlan::kGroupSize;
  ScanForward<float> args;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_forward(group, args);
  }
};

inline std::int64_t floats(const ScanForward<float>&, const Limits&) { return 0; }

template <class Launcher>
void run(const ScanForward<float>& args, float*, Launcher& launch) {
  const ScanPlan plan(args.shape);
  launch(ScanForwardKernel{args}, args.shape.batch * plan.tiles, ScanPlan::kGroupSize, ScanPlan::kForwardLocal);
}

struct ScanBackwardKernel {
  static constexpr int kMostThreads = ScanPlan::kGroupSize;
  ScanBackward<float> args;
  ScanPartials partials;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_backward(group, args, partials);
  }
};

struct ScanBackwardFinishKernel {
  static constexpr int kMostThreads = ColumnSums::kGroupSize;
  ScanBackward<float> args;
  ScanPartials partials;
  ColumnSums sums;
  std::int64_t dt_groups;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    scan_backward_finish(group, args, partials, sums, dt_groups);
  }
};

inline std::int64_t floats(const ScanBackward<float>& args, const Limits&) { return ScanPartials::floats(args.shape); }

template <class Launcher>
void run(const ScanBackward<float>& args, float* workspace, Launcher& launch) {
  const ScanPlan plan(args.shape);
  const ScanPartials partials(args.shape, workspace);
  launch(ScanBackwardKernel{args, partials}, args.shape.batch * plan.tiles, ScanPlan::kGroupSize,
         ScanPlan::kBackwardLocal);
  const ColumnSums sums = scan_column_sums(args, partials);
  const std::int64_t dt_groups = scan_dt_groups(args.shape);
  launch(ScanBackwardFinishKernel{args, partials, sums, dt_groups}, dt_groups + sums.groups(), ColumnSums::kGroupSize,
         ColumnSums::kLocalFloats);
}

}  // namespace sem::device
