#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(LaplacianMatvecForward)
SEM_INSTANTIATE_RUN(LaplacianMatvecWeightGradient)

}  // namespace sem::cuda
