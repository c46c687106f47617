// What every unit of this folder instantiates for its operators.
#pragma once

#include "cuda/launch.hpp"
#include "device/entry.hpp"
#include "device/operators.hpp"

namespace sem::cuda {

template <class Args>
void run(const Args& args, float* workspace, Queue queue) {
  Launcher launch(Args::kName, queue);
  device::run(args, workspace, launch);
}

}  // namespace sem::cuda
