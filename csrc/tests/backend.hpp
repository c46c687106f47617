// The back end that a test program tests. Every operator's tests are one source, linked once with each back end:
// backend_cpu.cpp, backend_host.cpp (the device kernels on the host), backend_cuda.cpp, ...
#pragma once

#include <string>

#include "sem/operators.hpp"

namespace sem::backend {

// Why this back end cannot run here, or nothing. Where it says something, tests are skipped with it.
std::string unavailable();

// As cpu::run, for each of SEM_DEVICE_OPERATORS. Arrays lie in the host's memory; a back end with a memory of its own
// copies them there and back and waits.
template <class Args>
void run(const Args& args, Queue queue);

#define SEM_INSTANTIATE_BACKEND(Args) template void run(const Args<float>&, Queue);

}  // namespace sem::backend
