// The launches of a diffraction image and of its gradients; operators.hpp says what a Launcher is.
#pragma once

#include "device/column_sums.hpp"
#include "device/diffraction/finish.hpp"
#include "device/diffraction/forward.hpp"
#include "device/diffraction/prepare.hpp"

namespace sem::device {

struct DiffractionPrepareKernel {
  static constexpr int kMostThreads = DiffractionLayout::kMostThreads;
  DiffractionTask task;
  DiffractionLayout layout;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    diffraction_prepare(group, task, layout, workspace);
  }
};

struct DiffractionSwitchOffKernel {
  static constexpr int kMostThreads = DiffractionLayout::kMostThreads;
  DiffractionTask task;
  DiffractionLayout layout;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    diffraction_switch_off(group, task, layout, workspace);
  }
};

template <DomainShape kShape, bool kPlain>
struct DiffractionForwardKernel {
  static constexpr int kMostThreads = DiffractionLayout::kMostThreads;
  DiffractionTask task;
  DiffractionLayout layout;
  float* workspace;
  float* out;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    diffraction_forward<kShape, kPlain>(group, task, layout, workspace, out);
  }
};

template <DomainShape kShape, bool kPlain, bool kMeasure>
struct DiffractionBackwardKernel {
  static constexpr int kMostThreads = DiffractionLayout::kMostThreads;
  DiffractionTask task;
  DiffractionCotangent cotangent;
  DiffractionLayout layout;
  float* workspace;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    DiffractionBackwardPass<kShape, kPlain, kMeasure, Group>(group, task, cotangent, layout, workspace).run();
  }
};

struct DiffractionFinishKernel {
  static constexpr int kMostThreads = DiffractionLayout::kMostThreads;
  DiffractionFinish finish;
  template <class Group>
  SEM_DEVICE void operator()(const Group& group) const {
    finish.run(group);
  }
};

inline std::int64_t floats(const DiffractionForward<float>& args, const Limits& limits) {
  return DiffractionLayout(DiffractionTask(args.in), limits, false).floats;
}
inline std::int64_t floats(const DiffractionBackward<float>& args, const Limits& limits) {
  return DiffractionLayout(DiffractionTask(args.in), limits, true).floats;
}

// Calls run.operator()<shape, plain>() with those of the task.
template <class Run>
void by_kind(const DiffractionTask& task, Run run) {
  const auto with_shape = [&]<DomainShape kShape>() {
    task.plain() ? run.template operator()<kShape, true>() : run.template operator()<kShape, false>();
  };
  switch (task.shape) {
    case DomainShape::square:
      return with_shape.template operator()<DomainShape::square>();
    case DomainShape::round:
      return with_shape.template operator()<DomainShape::round>();
    case DomainShape::gauss:
      return with_shape.template operator()<DomainShape::gauss>();
    case DomainShape::tophat:
      return with_shape.template operator()<DomainShape::tophat>();
  }
}

// What both directions begin with.
template <class Launcher>
void prepare(const DiffractionTask& task, const DiffractionLayout& layout, float* workspace, Launcher& launch) {
  launch(DiffractionPrepareKernel{task, layout, workspace}, layout.shared_groups, layout.group_size, 0);
  if (task.switches_off())
    launch(DiffractionSwitchOffKernel{task, layout, workspace}, layout.image_groups, layout.group_size, 0);
}

template <class Launcher>
void run(const DiffractionForward<float>& args, float* workspace, Launcher& launch) {
  const DiffractionTask task(args.in);
  if (task.pixels() == 0) return;
  const DiffractionLayout layout(task, launch.limits(), false);
  prepare(task, layout, workspace, launch);
  by_kind(task, [&]<DomainShape kShape, bool kPlain>() {
    launch(DiffractionForwardKernel<kShape, kPlain>{task, layout, workspace, args.out}, layout.image_groups,
           layout.group_size, 0);
  });
}

template <class Launcher>
void run(const DiffractionBackward<float>& args, float* workspace, Launcher& launch) {
  const DiffractionTask task(args.in);
  const DiffractionCotangent cotangent{args.grad_out, args.to_detector_and_beam};
  const DiffractionLayout layout(task, launch.limits(), true);
  prepare(task, layout, workspace, launch);
  by_kind(task, [&]<DomainShape kShape, bool kPlain>() {
    if constexpr (!kPlain)
      if (task.entries() > 0)
        launch(DiffractionBackwardKernel<kShape, false, true>{task, cotangent, layout, workspace},
               layout.summing_groups, layout.group_size, 0);
    launch(DiffractionBackwardKernel<kShape, kPlain, false>{task, cotangent, layout, workspace}, layout.summing_groups,
           layout.group_size, 0);
  });
  run_column_sums(layout.sums(workspace), launch);
  launch(DiffractionFinishKernel{{task, DiffractionGradients(args), layout, workspace}}, layout.shared_groups,
         layout.group_size, 0);
}

}  // namespace sem::device
