#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(ShiftRampForward)
SEM_INSTANTIATE_RUN(ShiftRampBackward)

}  // namespace sem::cuda
