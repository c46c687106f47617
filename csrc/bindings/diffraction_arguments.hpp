// The arguments of a diffraction image, as sem.ops.diffraction hands them to every back end.
#pragma once

#include <pybind11/stl.h>

#include <vector>

#include "bindings/bindings.hpp"
#include "sem/diffraction.hpp"

namespace sem::bindings {

using Whole = std::vector<std::int64_t>;
using Numbers = std::vector<double>;
using Addresses = std::vector<Address>;

// In the order of sem.ops.diffraction_problem.Settings.
inline DiffractionSettings diffraction_settings_from(const Whole& whole, const Numbers& numbers) {
  DiffractionSettings set;
  std::size_t i = 0;
  const auto next = [&] { return static_cast<std::int32_t>(whole.at(i++)); };
  set.slow_pixels = next();
  set.fast_pixels = next();
  set.fast_first = next();
  set.fast_last = next();
  set.slow_first = next();
  set.slow_last = next();
  set.oversample = next();
  set.layers = next();
  set.point_pixel = next() != 0;
  set.curved = next() != 0;
  set.polarised = next() != 0;
  set.shape = static_cast<DomainShape>(next());
  set.phi_carryover = next() != 0;
  set.tricubic = next() != 0;
  for (std::int32_t& index : set.first_index) index = next();
  set.mode = static_cast<DiffractionMode>(next());
  set.pixel_size = numbers.at(0);
  set.layer_step = numbers.at(1);
  set.attenuation = numbers.at(2);
  set.d_min = numbers.at(3);
  return set;
}

// `tensors` in the order of sem.ops.diffraction_problem.Geometry; `sizes` are S, P, M, H, K, L and whether there is a
// mask.
template <class Real>
DiffractionInputs<Real> diffraction_inputs_from(const Whole& whole, const Numbers& numbers, const Whole& sizes,
                                                const Addresses& tensors) {
  DiffractionInputs<Real> in;
  in.settings = diffraction_settings_from(whole, numbers);
  in.sources = sizes.at(0);
  in.positions = sizes.at(1);
  in.mosaics = sizes.at(2);
  for (int a = 0; a < 3; ++a) in.table_shape[a] = sizes.at(3 + a);
  std::size_t i = 0;
  const auto next = [&] { return pointer<const double>(tensors.at(i++)); };
  in.frame = next();
  in.close_distance = next();
  in.curvature = next();
  in.incident = next();
  in.wavelength = next();
  in.weight = next();
  in.orientation = next();
  in.reciprocal_metric = next();
  in.cells = next();
  in.fudge = next();
  in.default_factor = next();
  in.table = pointer<const Real>(tensors.at(i++));
  in.kahn = next();
  in.polarisation_axis = next();
  in.scale = next();
  in.background = next();
  in.mask = sizes.at(6) != 0 ? pointer<const std::uint8_t>(tensors.at(i)) : nullptr;
  return in;
}

// `gradients` in the order of `tensors`, without the mask.
inline DiffractionBackward<float> diffraction_backward_from(const DiffractionInputs<float>& in, Address grad_out,
                                                            const Addresses& gradients, bool geometry) {
  DiffractionBackward<float> args;
  args.in = in;
  args.grad_out = pointer<const float>(grad_out);
  std::size_t i = 0;
  const auto next = [&] { return pointer<double>(gradients.at(i++)); };
  args.frame = next();
  args.close_distance = next();
  args.curvature = next();
  args.incident = next();
  args.wavelength = next();
  args.weight = next();
  args.orientation = next();
  args.reciprocal_metric = next();
  args.cells = next();
  args.fudge = next();
  args.default_factor = next();
  args.table = pointer<float>(gradients.at(i++));
  args.kahn = next();
  args.polarisation_axis = next();
  args.scale = next();
  args.background = next();
  args.geometry = geometry;
  return args;
}

}  // namespace sem::bindings
