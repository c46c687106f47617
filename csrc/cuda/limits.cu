#include "cuda/launch.hpp"
#include "device/entry.hpp"

namespace sem::cuda {

device::Limits limits(Queue queue) { return limits_of(queue, "sem"); }

}  // namespace sem::cuda
