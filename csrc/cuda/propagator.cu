// pit, cayley and both in one: together, because their kernels are shared and would otherwise be compiled twice.
#include "cuda/run.hpp"

namespace sem::cuda {

SEM_INSTANTIATE_RUN(PitForward)
SEM_INSTANTIATE_RUN(PitBackward)
SEM_INSTANTIATE_RUN(CayleyForward)
SEM_INSTANTIATE_RUN(CayleyBackward)
SEM_INSTANTIATE_RUN(SolitonStepForward)
SEM_INSTANTIATE_RUN(SolitonStepBackward)

}  // namespace sem::cuda
