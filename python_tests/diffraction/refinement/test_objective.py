"""Profiles, gradients and curvature of what a refinement minimises, against the float64 twin and scipy."""

import numpy as np
import pytest
import torch
from refinement_problems import beside, noisy, shot_of, simulator_at
from scipy.optimize import minimize

from sem.diffraction.refinement.background import background_terms
from sem.diffraction.refinement.coordinates import Coordinates
from sem.diffraction.refinement.likelihood import gaussian_profile, poisson_profile
from sem.diffraction.refinement.objective import Objective, Sharpness

NAMES = ("crystal.misset", "crystal.lengths", "crystal.cells", "detector.distance")


SHARP = Sharpness()


def objective_of(likelihood, sharpness=SHARP, variance=None, reference=False, restraints=None):
    simulator = simulator_at(beside())
    counts = noisy(simulator_at(), 1)
    coordinates = Coordinates(simulator, NAMES, restraints=restraints)
    moving = coordinates.placed() if sharpness.factor > 1 else torch.ones(len(coordinates), dtype=torch.bool)
    terms = background_terms(simulator, "radial", 3)
    compute = (lambda: simulator(reference=True)) if reference else simulator
    made = Objective(compute, coordinates, shot_of(counts, variance), terms, likelihood, sharpness, moving)
    made.start_at(coordinates.start)
    return made, coordinates, simulator


CASES = {
    "poisson": ("poisson", Sharpness(), None),
    "gaussian": ("gaussian", Sharpness(), torch.linspace(1, 9, 1600, dtype=torch.float64).reshape(40, 40)),
    "blurred": ("poisson", Sharpness(2.0, 0.7), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_profiled_value(case):
    restraints = {"crystal.lengths": 0.5}
    twin, coordinates, simulator = objective_of(*CASES[case], reference=True, restraints=restraints)
    kernel, _, _ = objective_of(*CASES[case], restraints=restraints)
    kernel.units = twin.units
    x = 0.1 * torch.randn(len(twin.units), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = []
    for index in range(len(x)):
        step = torch.zeros_like(x)
        step[index] = 1e-4
        expected.append((twin.value(x + step) - twin.value(x - step)) / 2e-4)
    expected = torch.tensor(expected, dtype=torch.float64)
    assert expected.norm() > 1
    assert (twin.gradient(x) - expected).norm() < 1e-5 * expected.norm()
    assert (kernel.gradient(x) - expected).norm() < 1e-4 * expected.norm()


def test_the_curvature_is_that_of_exact_jacobians():
    objective, coordinates, simulator = objective_of("poisson")
    x = torch.zeros(len(coordinates), dtype=torch.float64)
    profile = objective.profile(x)

    def twin(at):
        coordinates.set(at)
        return simulator(reference=True).detach().flatten()

    columns = []
    for index in range(len(x)):
        step = torch.zeros_like(x)
        step[index] = 1e-5 * objective.units[index]  # float64: exact to 1e-9
        difference = twin(coordinates.start + step) - twin(coordinates.start - step)
        columns.append(difference / 2e-5 * profile.coefficients[0])
    nuisance = torch.cat([twin(coordinates.start)[:, None], background_terms(simulator, "radial", 3)], dim=1)
    everything = torch.cat([torch.stack(columns, dim=1), nuisance[:, profile.free]], dim=1)
    information = (everything * profile.weight[:, None]).T @ everything
    expected = torch.linalg.inv(torch.linalg.inv(information)[: len(x), : len(x)])
    scale = expected.diagonal().sqrt()
    assert ((objective.curvature(x) - expected) / scale / scale[:, None]).abs().max() < 2e-4


def test_gaussian_scale_and_background_are_least_squares():
    generator = torch.Generator().manual_seed(0)
    design = torch.rand(200, 3, dtype=torch.float64, generator=generator)
    weight = 0.5 + torch.rand(200, dtype=torch.float64, generator=generator)
    counts = design @ torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64) + torch.randn(
        200, dtype=torch.float64, generator=generator
    )
    profile = gaussian_profile(design, counts, weight)
    root = weight.sqrt().numpy()
    expected = np.linalg.lstsq(design.numpy() * root[:, None], counts.numpy() * root, rcond=None)[0]
    assert np.allclose(profile.coefficients, expected, rtol=1e-9)
    turned = gaussian_profile(design, -design[:, 0], weight)  # a scale below 0 is none
    assert turned.coefficients[0] == 0 and not turned.free[0]


@pytest.mark.parametrize("true", [[3.0, 1.0, 2.0], [3.0, 0.0, 2.0]])
def test_poisson_scale_and_background_are_the_likelihoods_maximum(true):
    generator = torch.Generator().manual_seed(1)
    design = torch.rand(300, 3, dtype=torch.float64, generator=generator)
    counts = torch.poisson(design @ torch.tensor(true, dtype=torch.float64), generator=generator)
    profile = poisson_profile(design, counts)
    floor = 1e-6 * float(counts.mean())

    def value(c):
        mu = design.numpy() @ c + floor
        return float((mu - counts.numpy() * np.log(mu)).sum()), design.numpy().T @ (1 - counts.numpy() / mu)

    found = minimize(value, [1.0, 1.0, 1.0], jac=True, bounds=[(0, None)] * 3, options={"ftol": 1e-15, "gtol": 1e-10})
    assert value(profile.coefficients.numpy())[0] <= found.fun + 1e-7
    assert np.allclose(profile.coefficients, found.x, atol=2e-4)
    inside = profile.coefficients > 0
    assert (design.T @ profile.slope)[inside].abs().max() < 1e-3
    assert profile.coefficients.min() >= 0


def test_a_parameter_without_effect_is_named():
    simulator = simulator_at()
    coordinates = Coordinates(simulator, ["detector.near_point"])
    every = torch.ones(len(coordinates), dtype=torch.bool)
    terms = background_terms(simulator, "flat", 2)
    made = Objective(simulator, coordinates, shot_of(noisy(simulator, 0)), terms, "poisson", Sharpness(), every)
    with pytest.raises(ValueError, match=r"changes the image, got detector.near_point\[0\]"):
        made.start_at(coordinates.start)
