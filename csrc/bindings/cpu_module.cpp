#include "bindings/call.hpp"
#include "cpu/dispatch.hpp"
#include "sem/operators.hpp"

namespace sem::bindings {
namespace {

struct CpuBackend {
  static constexpr bool kReadable = true;
  template <class Args>
  static std::int64_t floats(const Args&, Queue) {
    return 0;  // scratch memory is the kernels' own
  }
  template <class Args>
  static void run(const Args& args, float*, Queue queue) {
    cpu::run(args, queue);
  }
};

struct ReferenceBackend {
  static constexpr bool kReadable = true;
  template <class Args>
  static std::int64_t floats(const Args&, Queue) {
    return 0;
  }
  template <class Args>
  static void run(const Args& args, float*, Queue) {
    reference::run(args);
  }
};

// Of the kernel, and of the serial reference in either precision.
template <class Real, bool kReference>
void trace(DiffractionTrace<Real>& args, Queue queue) {
  if constexpr (kReference) {
    reference::run(args);
  } else {
    cpu::run(args, queue);
  }
}

// Intermediate values of one pixel: [(name, (layer, subpixel, source, position, mosaic), values)].
template <class Real, bool kReference>
PyObject* traced(PyObject*, PyObject* const* given, Py_ssize_t positional, PyObject* names) {
  return translated([&]() -> PyObject* {
    Queue queue;
    auto args = arguments_from<DiffractionTrace<Real>>(given, positional, names, true, queue);
    std::vector<TracedValue> values;
    args.out = &values;
    trace<Real, kReference>(args, queue);
    py::list out;
    for (const TracedValue& found : values)
      out.append(py::make_tuple(found.name,
                                py::make_tuple(found.layer, found.subpixel, found.source, found.position, found.mosaic),
                                std::vector<double>(found.value, found.value + found.count)));
    return out.release().ptr();
  });
}

template <class Real, bool kReference>
void bind_trace(py::module_& module, py::dict& fields, const char* name) {
  static PyMethodDef method{name,
                            reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&traced<Real, kReference>)),
                            METH_FASTCALL | METH_KEYWORDS, nullptr};
  module.add_object(name, checked(PyCFunction_NewEx(&method, nullptr, module.attr("__name__").ptr())));
  fields[name] = fields_of<DiffractionTrace<Real>>();
}

}  // namespace
}  // namespace sem::bindings

PYBIND11_MODULE(_cpu, module) {
  using namespace sem::bindings;
  module.doc() = "CPU kernels of sem; private, called by sem.ops alone.";
  module.def("simd_level", &sem::cpu::simd_level_name);
#ifdef _OPENMP
  module.attr("openmp") = true;
#else
  module.attr("openmp") = false;
#endif
  module.attr("state_space_checkpoint_steps") = sem::kCheckpointSteps;

  py::dict fields;
#define SEM_BIND(Args) bind<sem::Args<float>, CpuBackend>(module, fields);
  SEM_OPERATORS(SEM_BIND)
#undef SEM_BIND
  bind_trace<float, false>(module, fields, "diffraction_trace");
  bind_trace<float, true>(module, fields, "diffraction_reference_trace_float32");
  bind_trace<double, true>(module, fields, "diffraction_reference_trace_float64");
  bind<sem::DiffractionForward<double>, ReferenceBackend>(module, fields, "diffraction_reference_forward_float64");
  module.attr("FIELDS") = fields;

  // The kernels that device back ends have too.
  std::vector<std::string> shared;
#define SEM_NAME(Args) shared.push_back(sem::Args<float>::kName);
  SEM_DEVICE_OPERATORS(SEM_NAME)
#undef SEM_NAME
  module.attr("DEVICE_KERNELS") = shared;
}
