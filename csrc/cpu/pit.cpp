#include "sem/pit.hpp"

#include "cpu/pit_row.hpp"
#include "cpu/scratch.hpp"

namespace sem::cpu::SEM_ISA {
namespace {

constexpr std::int64_t kChunk = 16;  // rows whose gradients to strength and kerr are summed in one piece

std::int64_t chunk_count(std::int64_t rows) { return (rows + kChunk - 1) / kChunk; }
std::int64_t chunk_end(std::int64_t rows, std::int64_t chunk) {
  return (chunk + 1) * kChunk < rows ? (chunk + 1) * kChunk : rows;
}

}  // namespace

// Memory traffic: psi is read once, out written once.
void run(const PitForward<float>& args, Queue queue) {
  const PitSettings settings{args.width, args.num_bins, args.rule, args.strength[0], args.kerr};
  const std::int64_t memory = PitRow::floats(args.width, args.num_bins);
  const std::int64_t row_floats = 2 * args.width;
  const Scratch scratch(static_cast<std::size_t>(queue.threads * memory));
#pragma omp parallel num_threads(queue.threads)
  {
    PitKernel kernel(scratch.data() + thread_index() * memory, settings);
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunk_count(args.rows); ++chunk)
      for (std::int64_t row = chunk * kChunk; row < chunk_end(args.rows, chunk); ++row)
        kernel.forward(args.psi + row * row_floats, args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                       args.out + row * row_floats);
  }
}

// Memory traffic: psi and grad_out are read once, grad_psi written once. The gradients of strength and kerr are summed
// per chunk of rows and then over chunks, in order and in double, so that they do not depend on the number of threads.
void run(const PitBackward<float>& args, Queue queue) {
  const PitSettings settings{args.width, args.num_bins, args.rule, args.strength[0], args.kerr};
  const std::int64_t memory = PitRow::floats(args.width, args.num_bins);
  const std::int64_t row_floats = 2 * args.width;
  const std::int64_t chunks = chunk_count(args.rows);
  const std::int64_t kerr_floats = args.kerr == nullptr ? 0 : PitRow::padded(args.width);
  const Scratch scratch(static_cast<std::size_t>(queue.threads * memory));
  const ScratchOf<double> strength_partials(static_cast<std::size_t>(chunks));
  const Scratch kerr_partials(static_cast<std::size_t>(chunks * kerr_floats));
#pragma omp parallel num_threads(queue.threads)
  {
    PitKernel kernel(scratch.data() + thread_index() * memory, settings);
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      double by_strength = 0;
      float* by_kerr = args.kerr == nullptr ? nullptr : kerr_partials.data() + chunk * kerr_floats;
      fill(by_kerr, kerr_floats, 0.0f);
      for (std::int64_t row = chunk * kChunk; row < chunk_end(args.rows, chunk); ++row) {
        if (all_zero(args.grad_out + row * row_floats, row_floats)) {
          fill(args.grad_psi + row * row_floats, row_floats, 0.0f);
          if (args.grad_reference_rms != nullptr) args.grad_reference_rms[row] = 0;
          continue;
        }
        kernel.backward(args.psi + row * row_floats, args.reference_rms == nullptr ? nullptr : args.reference_rms + row,
                        args.grad_out + row * row_floats, args.grad_psi + row * row_floats,
                        args.grad_reference_rms == nullptr ? nullptr : args.grad_reference_rms + row, by_strength,
                        by_kerr);
      }
      strength_partials.data()[chunk] = by_strength;
    }
  }
  double total = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += strength_partials.data()[chunk];
  args.grad_strength[0] = static_cast<float>(PitRow::direction(settings) * total);
  if (args.kerr == nullptr) return;
  for (std::int64_t d = 0; d < args.width; ++d) {
    double sum = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += kerr_partials.data()[chunk * kerr_floats + d];
    args.grad_kerr[d] = static_cast<float>(sum);
  }
}

}  // namespace sem::cpu::SEM_ISA
