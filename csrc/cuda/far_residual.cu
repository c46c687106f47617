#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(FarResidual)

}  // namespace sem::cuda
