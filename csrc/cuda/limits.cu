#include "cuda/launch.hpp"
#include "device/entry.hpp"

namespace sem::cuda {

device::Limits limits(Queue queue, const char* name) { return limits_of(queue, name); }

}  // namespace sem::cuda
