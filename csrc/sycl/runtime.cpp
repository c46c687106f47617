#include "sycl/runtime.hpp"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace sem::xpu {
namespace {

struct Compiled {
  sycl::context context;
  sycl::device device;
  std::string name;
  sycl::kernel kernel;
};

// What lives as long as the process. Never destroyed: SYCL objects must not outlive SYCL's own libraries at exit.
struct State {
  std::mutex mutex;
  std::string sources;
  device::Limits narrower;
  std::vector<Compiled> kernels;  // a handful: searched in order
};

State& state() {
  static State* const state = new State;
  return *state;
}

// 16 where the device has it.
int sub_group_size(const sycl::device& device) {
  const std::vector<std::size_t> offered = device.get_info<sycl::info::device::sub_group_sizes>();
  for (const int size : {16, 32, 8})
    if (std::find(offered.begin(), offered.end(), static_cast<std::size_t>(size)) != offered.end()) return size;
  throw std::runtime_error("the SYCL device " + device.get_info<sycl::info::device::name>() +
                           " offers none of the sub-group sizes 8, 16 and 32");
}

}  // namespace

const char* compilation() {
#ifdef SYCL_LANGUAGE_VERSION
  return "ahead of time";
#else
  return "at run time";
#endif
}

void set_sources(const std::string& folder) {
  const std::lock_guard lock(state().mutex);
  state().sources = folder;
}

void set_limits(const device::Limits& limits) {
  const std::lock_guard lock(state().mutex);
  state().narrower = limits;
}

device::Limits limits_of(const sycl::queue& queue) {
  const sycl::device device = queue.get_device();
  device::Limits limits;
  {
    const std::lock_guard lock(state().mutex);
    limits = state().narrower;
  }
  if (limits.local_bytes == 0)
    limits.local_bytes = static_cast<std::int64_t>(device.get_info<sycl::info::device::local_mem_size>());
  if (limits.group_size == 0)
    limits.group_size = static_cast<int>(
        std::min<std::size_t>(device.get_info<sycl::info::device::max_work_group_size>(), std::size_t{1024}));
  if (limits.sub_group_size == 0) limits.sub_group_size = sub_group_size(device);
  return limits;
}

#ifndef SYCL_LANGUAGE_VERSION

sycl::kernel kernel(const sycl::queue& queue, std::string_view type, int sub_group_size) {
  namespace extension = sycl::ext::oneapi::experimental;
  const std::string name(type);
  const std::string full = "sem::xpu::run<" + name + ", " + std::to_string(sub_group_size) + ">";
  const sycl::context context = queue.get_context();
  sycl::device device = queue.get_device();
  const std::lock_guard lock(state().mutex);
  for (const Compiled& known : state().kernels)
    if (known.name == full && known.device == device && known.context == context) return known.kernel;
  if (!device.ext_oneapi_can_compile(extension::source_language::sycl))
    throw std::runtime_error("the SYCL device " + device.get_info<sycl::info::device::name>() +
                             " cannot compile kernels at run time; update its driver, or build sem with icpx");
  // Bit patterns, NaN and the order of additions matter to the bodies: no unsafe floating-point modes. Names of values
  // are kept because SYCL's cache has them: without, the device would compile what comes from the cache anew.
  std::vector<std::string> options{"-std=c++20",     "-I" + state().sources, "-I" + state().sources + "/include",
                                   "-fno-fast-math", "-ffp-contract=fast",   "-fno-discard-value-names"};
#if __LIBSYCL_MAJOR_VERSION < 9
  options.push_back("-fno-sycl-device-lib=all");  // 2025.3 looks for device libraries that it does not ship
#endif
  std::string log;
  try {
    // The compiler of 2025.3 crashes on a kernel's argument whose type nothing before has made it complete.
    auto source = extension::create_kernel_bundle_from_source(
        context, extension::source_language::sycl,
        "#include \"sycl/kernels.hpp\"\nstatic_assert(sizeof(" + name + ") > 0);\n");
    auto built = extension::build(source, {device},
                                  extension::properties{extension::build_options(options), extension::save_log(&log),
                                                        extension::registered_names(full)});
    state().kernels.push_back({context, device, full, built.ext_oneapi_get_kernel(full)});
    return state().kernels.back().kernel;
  } catch (const sycl::exception& error) {
    throw std::runtime_error("the SYCL kernel " + name + " could not be compiled from " + state().sources + " for " +
                             device.get_info<sycl::info::device::name>() + ": " + error.what() + "\n" + log);
  }
}

#endif

}  // namespace sem::xpu
