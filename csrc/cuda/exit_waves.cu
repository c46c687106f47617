#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(ExitWavesForward)
SEM_INSTANTIATE_RUN(OverlapAdd)

}  // namespace sem::cuda
