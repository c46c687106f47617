#include "tests/backend.hpp"

namespace sem::backend {

std::string unavailable() { return {}; }

template <class Args>
void run(const Args& args, Queue queue) {
  cpu::run(args, queue);
}
SEM_DEVICE_OPERATORS(SEM_INSTANTIATE_BACKEND)

}  // namespace sem::backend
