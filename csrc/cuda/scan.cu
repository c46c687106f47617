#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(ScanForward)
SEM_INSTANTIATE_RUN(ScanBackward)

}  // namespace sem::cuda
