#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(LaplacianCgForward)
SEM_INSTANTIATE_RUN(LaplacianCgBackward)

}  // namespace sem::cuda
