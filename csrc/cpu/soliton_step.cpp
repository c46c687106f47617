#include "sem/soliton_step.hpp"

#include "cpu/scratch.hpp"

namespace sem::cpu::SEM_ISA {

void run(const PitForward<float>& args, Queue queue);
void run(const PitBackward<float>& args, Queue queue);
void run(const CayleyForward<float>& args, Queue queue);
void run(const CayleyBackward<float>& args, Queue queue);

void run(const SolitonStepForward<float>& args, Queue queue) {
  const Scratch turned(static_cast<std::size_t>(args.rows * args.graph.nodes * 2));
  run(args.turn(turned.data()), queue);
  run(args.step(turned.data()), queue);
}

void run(const SolitonStepBackward<float>& args, Queue queue) {
  const std::size_t size = static_cast<std::size_t>(args.rows * args.graph.nodes * 2);
  const Scratch turned(size), grad_turned(size);
  run(args.turn(turned.data()), queue);
  run(args.step(turned.data(), grad_turned.data()), queue);
  run(args.turn_back(grad_turned.data()), queue);
}

}  // namespace sem::cpu::SEM_ISA
