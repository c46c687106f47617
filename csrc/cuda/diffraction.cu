#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(DiffractionForward)
SEM_INSTANTIATE_RUN(DiffractionBackward)

}  // namespace sem::cuda
