// The back end that a test program tests. Every operator's tests are one source, linked once with each back end:
// backend_cpu.cpp, backend_host.cpp (the device kernels on host threads), backend_cuda.cpp, ...
//
// The functions are those of sem::cpu, and take arrays in the host's memory; a back end with a memory of its own copies
// them there and back and waits.
#pragma once

#include <string>

#include "sem/cayley.hpp"
#include "sem/diffraction.hpp"
#include "sem/laplacian.hpp"
#include "sem/laplacian_cg.hpp"
#include "sem/pit.hpp"
#include "sem/scan.hpp"

namespace sem::backend {

// Why this back end cannot run here, or nothing. Where it says something, tests are skipped with it.
std::string unavailable();

void laplacian_forward(const LaplacianForward<float>& args, Queue queue);
void laplacian_weight_gradient(const LaplacianWeightGradient<float>& args, Queue queue);
void cayley_forward(const CayleyForward<float>& args, Queue queue);
void cayley_backward(const CayleyBackward<float>& args, Queue queue);
void laplacian_cg_forward(const LaplacianCgForward<float>& args, Queue queue);
void laplacian_cg_backward(const LaplacianCgBackward<float>& args, Queue queue);
void pit_forward(const PitForward<float>& args, Queue queue);
void pit_backward(const PitBackward<float>& args, Queue queue);
// Device back ends alone: pit and cayley in shared launches. `step` reads what `turn` writes; backward, `pit` reads
// what `step` writes, and the arrays between them are written too.
void soliton_forward(const PitForward<float>& turn, const CayleyForward<float>& step);
void soliton_backward(const PitForward<float>& turn, const CayleyBackward<float>& step, const PitBackward<float>& pit);
void scan_forward(const ScanForward<float>& args, Queue queue);
void scan_backward(const ScanBackward<float>& args, Queue queue);
void diffraction_forward(const DiffractionForward<float>& args, Queue queue);
void diffraction_backward(const DiffractionBackward<float>& args, Queue queue);

}  // namespace sem::backend
