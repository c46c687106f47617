#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(LaplacianForward)
SEM_INSTANTIATE_RUN(LaplacianWeightGradient)

}  // namespace sem::cuda
