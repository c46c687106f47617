// The entry points of a device back end, declared once for all; SEM_BACKEND is the back end's namespace.
//
// All arrays are the device's, `queue` is the caller's stream or queue, which orders the work; nothing waits or
// allocates. `workspace` holds floats(args) floats (device/operators.hpp), a task carries its own.
#pragma once

#include "device/cayley.hpp"
#include "device/laplacian_cg.hpp"
#include "device/soliton_step.hpp"
#include "sem/diffraction.hpp"
#include "sem/laplacian.hpp"
#include "sem/pit.hpp"
#include "sem/scan.hpp"

namespace sem::SEM_BACKEND {

device::Limits limits(Queue queue);

void laplacian_forward(const LaplacianForward<float>& args, Queue queue);
void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, float* workspace, Queue queue);
void cayley(const device::CayleyTask& task, Queue queue);
void laplacian_cg(const device::LaplacianCgTask& task, Queue queue);
void pit_forward(const PitForward<float>& args, float* workspace, Queue queue);
void pit_backward(const PitBackward<float>& args, float* workspace, Queue queue);
void soliton_step(const device::SolitonTask& task, Queue queue);
void scan_forward(const ScanForward<float>& args, Queue queue);
void scan_backward(const ScanBackward<float>& args, float* workspace, Queue queue);
void diffraction_forward(const DiffractionForward<float>& args, float* workspace, Queue queue);
void diffraction_backward(const DiffractionBackward<float>& args, float* workspace, Queue queue);

}  // namespace sem::SEM_BACKEND
