// The entry points of a device back end, declared once for all; SEM_BACKEND is the back end's namespace.
//
// All arrays are the device's, `queue` is the caller's stream or queue, which orders the work; nothing waits or
// allocates. `workspace` holds device::floats(args, limits(queue, Args::kName)) floats.
#pragma once

#include "device/plan.hpp"
#include "sem/operators.hpp"

namespace sem::SEM_BACKEND {

// `name` is of the kernel that asks, for errors.
device::Limits limits(Queue queue, const char* name);

// For each of SEM_DEVICE_OPERATORS.
template <class Args>
void run(const Args& args, float* workspace, Queue queue);

#define SEM_INSTANTIATE_RUN(Args) template void run(const Args<float>&, float*, Queue);

}  // namespace sem::SEM_BACKEND
