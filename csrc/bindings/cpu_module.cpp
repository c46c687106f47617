#include "bindings/bindings.hpp"
#include "cpu/dispatch.hpp"

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "CPU kernels of sem; private, called by sem.ops alone.";
  module.def("simd_level", &sem::cpu::simd_level_name);
#ifdef _OPENMP
  module.attr("openmp") = true;
#else
  module.attr("openmp") = false;
#endif
  sem::bindings::bind_laplacian(module);
  sem::bindings::bind_cayley(module);
  sem::bindings::bind_laplacian_cg(module);
  sem::bindings::bind_pit(module);
  sem::bindings::bind_scan(module);
  sem::bindings::bind_rms_norm(module);
  sem::bindings::bind_gated_rotation(module);
  sem::bindings::bind_causal_conv(module);
  sem::bindings::bind_state_space(module);
  sem::bindings::bind_diffraction(module);
}
