// How Python calls an operator, made from the fields that its arguments name (sem/types.hpp). The module is private to
// sem.ops.
//
//   cayley_forward(handle, device, threads, allocate, psi=psi, half_dt=a, ...) -> None
//
// Fields come by name: numbers as Python has them, arrays as contiguous tensors, None (or an empty tensor) for one that
// may be absent. `handle` and `device` are the caller's stream or queue and its device's number, `threads` is the
// CPU's; `allocate(floats)` gives the address of a workspace that lives until the work on the queue is done.
//
// Shapes, dtypes and ranges are checked for users by sem/ops/boundary.py. What is checked here, a name, an element
// count, a dtype, contiguity, keeps a mistake in sem.ops or a compiler's rearranged tensor from reaching memory that is
// not its own. Only Values is for users, since no other place can look for free.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef __unix__
#include <pthread.h>
#endif

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "sem/types.hpp"

namespace sem::bindings {

namespace py = pybind11;

// Made once a process; they live as long as the interpreter.
struct Vocabulary {
  PyObject *data_ptr, *numel, *dtype, *is_contiguous;
  PyObject *float32, *float64, *int32, *int8, *uint8, *boolean;

  static const Vocabulary& get() {
    static const Vocabulary* const words = new Vocabulary(py::module_::import("torch"));
    return *words;
  }

 private:
  explicit Vocabulary(const py::module_& torch)
      : data_ptr(PyUnicode_InternFromString("data_ptr")),
        numel(PyUnicode_InternFromString("numel")),
        dtype(PyUnicode_InternFromString("dtype")),
        is_contiguous(PyUnicode_InternFromString("is_contiguous")),
        float32(py::object(torch.attr("float32")).release().ptr()),
        float64(py::object(torch.attr("float64")).release().ptr()),
        int32(py::object(torch.attr("int32")).release().ptr()),
        int8(py::object(torch.attr("int8")).release().ptr()),
        uint8(py::object(torch.attr("uint8")).release().ptr()),
        boolean(py::object(torch.attr("bool")).release().ptr()) {}
};

inline py::object checked(PyObject* owned) {
  if (owned == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(owned);
}

// A visitor that takes the fields from the keyword arguments of one call.
class Filling {
 public:
  // `keys`: the fields' names as Python objects in the order visited, kept from call to call.
  Filling(const char* kernel, PyObject* const* values, PyObject* names, std::vector<PyObject*>& keys, bool readable)
      : kernel_(kernel),
        values_(values),
        names_(names),
        count_(names == nullptr ? 0 : PyTuple_GET_SIZE(names)),
        keys_(keys),
        readable_(readable) {}

  void operator()(const char* name, Graph& graph) {
    PyObject* const packed = needed(name);
    (*this)("nodes", graph.nodes);
    std::int64_t ints = 0;
    const std::int32_t* const base = array<const std::int32_t>(name, packed, ints);
    // sem.ops.Topology.packed: edge_i, edge_j, row_start, neighbour, incident
    graph.edges = (ints - graph.nodes - 1) / 6;
    if (graph.nodes < 1 || graph.edges < 0 || 6 * graph.edges + graph.nodes + 1 != ints)
      fail(name, std::to_string(ints) + " numbers are no graph of " + std::to_string(graph.nodes) + " nodes");
    graph.edge_i = base;
    graph.edge_j = base + graph.edges;
    graph.row_start = base + 2 * graph.edges;
    graph.neighbour = graph.row_start + graph.nodes + 1;
    graph.incident = graph.neighbour + 2 * graph.edges;
  }

  template <class Number>
  void operator()(const char* name, Number& number) {
    PyObject* const given = needed(name);
    if constexpr (std::is_floating_point_v<Number>) {
      number = static_cast<Number>(PyFloat_AsDouble(given));
    } else {
      number = static_cast<Number>(PyLong_AsLongLong(given));
    }
    if (PyErr_Occurred()) {
      PyErr_Clear();
      fail(name, std::string("expected a number, got ") + Py_TYPE(given)->tp_name);
    }
  }

  template <class T>
  void operator()(const char* name, T*& pointer, std::int64_t count, Values values = Values::any) {
    std::int64_t found = 0;
    pointer = array<T>(name, needed(name), found);
    require_count(name, found, count);
    if constexpr (std::is_floating_point_v<std::remove_const_t<T>>)
      if (readable_ && values != Values::any) require(name, pointer, count, values);
  }

  template <class T>
  void optional(const char* name, T*& pointer, std::int64_t count) {
    PyObject* const given = taken(name);
    if (given == nullptr || given == Py_None) return;
    std::int64_t found = 0;
    pointer = array<T>(name, given, found);
    if (found == 0) {
      pointer = nullptr;
    } else {
      require_count(name, found, count);
    }
  }

  // At the end: nothing was given that is no field.
  void finish() const {
    if (used_ == count_) return;
    for (Py_ssize_t i = 0; i < count_; ++i) {
      PyObject* const name = PyTuple_GET_ITEM(names_, i);
      bool known = false;
      for (PyObject* const key : keys_) known = known || PyUnicode_Compare(key, name) == 0;
      if (!known) throw py::type_error(std::string(kernel_) + ": unknown field " + py::repr(name).cast<std::string>());
    }
  }

 private:
  PyObject* taken(const char* name) {
    if (next_ == keys_.size()) keys_.push_back(PyUnicode_InternFromString(name));
    PyObject* const key = keys_[next_++];
    // Callers give fields in about this order, and names are interned nearly always.
    for (Py_ssize_t step = 0; step < count_; ++step) {
      const Py_ssize_t i = (at_ + step) % count_;
      if (PyTuple_GET_ITEM(names_, i) == key) return take(i);
    }
    for (Py_ssize_t i = 0; i < count_; ++i)
      if (PyUnicode_Compare(PyTuple_GET_ITEM(names_, i), key) == 0) return take(i);
    return nullptr;
  }
  PyObject* take(Py_ssize_t i) {
    ++used_;
    at_ = i + 1;
    return values_[i];
  }
  PyObject* needed(const char* name) {
    PyObject* const given = taken(name);
    if (given == nullptr) throw py::type_error(std::string(kernel_) + ": missing field '" + name + "'");
    return given;
  }

  template <class T>
  T* array(const char* name, PyObject* tensor, std::int64_t& count) const {
    const Vocabulary& words = Vocabulary::get();
    const py::object dtype = py::reinterpret_steal<py::object>(PyObject_GetAttr(tensor, words.dtype));
    if (!dtype || !matches<std::remove_const_t<T>>(dtype.ptr())) {
      PyErr_Clear();
      fail(name, std::string("expected a tensor of ") + dtype_name<std::remove_const_t<T>>() + ", got " +
                     (dtype ? py::str(dtype).cast<std::string>() : Py_TYPE(tensor)->tp_name));
    }
    if (checked(PyObject_CallMethodNoArgs(tensor, words.is_contiguous)).ptr() != Py_True)
      fail(name, "expected a contiguous tensor");
    count = PyLong_AsLongLong(checked(PyObject_CallMethodNoArgs(tensor, words.numel)).ptr());
    return static_cast<T*>(PyLong_AsVoidPtr(checked(PyObject_CallMethodNoArgs(tensor, words.data_ptr)).ptr()));
  }

  template <class T>
  static bool matches(const PyObject* dtype) {
    const Vocabulary& words = Vocabulary::get();
    if constexpr (std::is_same_v<T, float>) return dtype == words.float32;
    if constexpr (std::is_same_v<T, double>) return dtype == words.float64;
    if constexpr (std::is_same_v<T, std::int32_t>) return dtype == words.int32;
    if constexpr (std::is_same_v<T, std::int8_t>) return dtype == words.int8;
    if constexpr (std::is_same_v<T, std::uint8_t>) return dtype == words.uint8 || dtype == words.boolean;
  }

 public:
  template <class T>
  static const char* dtype_name() {
    if constexpr (std::is_same_v<T, float>) return "float32";
    if constexpr (std::is_same_v<T, double>) return "float64";
    if constexpr (std::is_same_v<T, std::int32_t>) return "int32";
    if constexpr (std::is_same_v<T, std::int8_t>) return "int8";
    if constexpr (std::is_same_v<T, std::uint8_t>) return "bool";
  }

 private:
  void require_count(const char* name, std::int64_t found, std::int64_t count) const {
    if (found != count) fail(name, "expected " + std::to_string(count) + " numbers, got " + std::to_string(found));
  }

  // A user's error, so in a user's words: sem/ops/boundary.py has its like.
  template <class T>
  static void require(const char* name, const T* numbers, std::int64_t count, Values values) {
    std::int64_t worst = -1;
    for (std::int64_t i = 0; i < count; ++i) {
      const bool bad = values == Values::finite ? !std::isfinite(numbers[i]) : numbers[i] < 0;
      if (bad && (worst < 0 || numbers[i] < numbers[worst])) worst = i;
    }
    if (worst < 0) return;
    char got[64];
    std::snprintf(got, sizeof got, "%.4g", static_cast<double>(numbers[worst]));
    throw py::value_error(values == Values::finite ? std::string(name) + ": expected a finite number, got " + got
                                                   : std::string(name) + ": expected values >= 0, got " + got +
                                                         " at index " + std::to_string(worst));
  }

  [[noreturn]] void fail(const char* name, const std::string& what) const {
    throw py::type_error(std::string(kernel_) + ": field '" + name + "': " + what);
  }

  const char* kernel_;
  PyObject* const* values_;
  PyObject* names_;
  Py_ssize_t count_, used_ = 0, at_ = 0;
  std::vector<PyObject*>& keys_;
  std::size_t next_ = 0;
  bool readable_;
};

// A visitor that writes the fields down: (name, type, is it written, may it be absent), for stubs and tests.
class Describing {
 public:
  using Field = std::tuple<std::string, std::string, bool, bool>;
  std::vector<Field> fields;

  void operator()(const char* name, Graph&) {
    add(name, "int32", false, false);
    add("nodes", "int", false, false);
  }
  template <class Number>
  void operator()(const char* name, Number&) {
    add(name, std::is_floating_point_v<Number> ? "float" : std::is_same_v<Number, bool> ? "bool" : "int", false, false);
  }
  template <class T>
  void operator()(const char* name, T*&, std::int64_t, Values = Values::any) {
    add(name, Filling::dtype_name<std::remove_const_t<T>>(), !std::is_const_v<T>, false);
  }
  template <class T>
  void optional(const char* name, T*&, std::int64_t) {
    add(name, Filling::dtype_name<std::remove_const_t<T>>(), !std::is_const_v<T>, true);
  }

 private:
  void add(const char* name, const char* type, bool written, bool optional) {
    fields.emplace_back(name, type, written, optional);
  }
};

template <class Args>
std::vector<Describing::Field> fields_of() {
  Args args;
  Describing describing;
  args.visit(describing);
  return describing.fields;
}

// Whether this process was forked after its first call: it has none of the threads that OpenMP remembers, and would
// wait for them. It computes on its own thread, with the same bits.
inline bool is_forked_child() {
#ifdef __unix__
  static bool forked = false;
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static_cast<void>(registered);
  return forked;
#else
  return false;
#endif
}

// The arguments of one call. Positional ones are the first four of the comment above.
constexpr Py_ssize_t kPositional = 4;

template <class Args>
Args arguments_from(PyObject* const* given, Py_ssize_t positional, PyObject* names, bool readable, Queue& queue) {
  if (positional != kPositional)
    throw py::type_error(std::string(Args::kName) +
                         ": expected handle, device, threads and allocate, then fields by name");
  queue.handle = PyLong_AsVoidPtr(given[0]);
  queue.device = static_cast<int>(PyLong_AsLong(given[1]));
  queue.threads = static_cast<int>(PyLong_AsLong(given[2]));
  if (PyErr_Occurred()) throw py::error_already_set();
  if (is_forked_child()) queue.threads = 1;
  static std::vector<PyObject*> keys;
  Args args;
  Filling filling(Args::kName, given + positional, names, keys, readable);
  args.visit(filling);
  filling.finish();
  return args;
}

// What a C++ exception is to Python.
template <class Body>
PyObject* translated(Body body) {
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

// Backend: kReadable, whether the host can read the arrays; floats(args, queue) of the workspace; run(args, workspace,
// queue).
template <class Args, class Backend>
PyObject* call(PyObject*, PyObject* const* given, Py_ssize_t positional, PyObject* names) {
  return translated([&]() -> PyObject* {
    Queue queue;
    const Args args = arguments_from<Args>(given, positional, names, Backend::kReadable, queue);
    float* workspace = nullptr;
    if (const std::int64_t floats = Backend::floats(args, queue); floats > 0) {
      const py::object size = checked(PyLong_FromLongLong(floats));
      workspace = static_cast<float*>(PyLong_AsVoidPtr(checked(PyObject_CallOneArg(given[3], size.ptr())).ptr()));
    }
    {
      const py::gil_scoped_release unlocked;
      Backend::run(args, workspace, queue);
    }
    Py_RETURN_NONE;
  });
}

template <class Args, class Backend>
void bind(py::module_& module, py::dict& fields, const char* name = Args::kName) {
  static PyMethodDef method{name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call<Args, Backend>)),
                            METH_FASTCALL | METH_KEYWORDS, nullptr};
  module.add_object(name, checked(PyCFunction_NewEx(&method, nullptr, module.attr("__name__").ptr())));
  fields[name] = fields_of<Args>();
}

}  // namespace sem::bindings
