#include "sem/soliton_step.hpp"

#include <vector>

#include "reference/run.hpp"

namespace sem::reference {

template <class Real>
void soliton_step_forward(const SolitonStepForward<Real>& args) {
  std::vector<Real> turned(static_cast<std::size_t>(args.rows * args.graph.nodes * 2));
  run(args.turn(turned.data()));
  run(args.step(turned.data()));
}

template <class Real>
void soliton_step_backward(const SolitonStepBackward<Real>& args) {
  std::vector<Real> turned(static_cast<std::size_t>(args.rows * args.graph.nodes * 2)), grad_turned(turned.size());
  run(args.turn(turned.data()));
  run(args.step(turned.data(), grad_turned.data()));
  run(args.turn_back(grad_turned.data()));
}

SEM_REFERENCE(SolitonStepForward, soliton_step_forward)
SEM_REFERENCE(SolitonStepBackward, soliton_step_backward)

}  // namespace sem::reference
