"""A misset and a cell that are a little wrong are found again from the C program's image, by a torch optimiser."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sem.diffraction import experiment_from

GOLDEN = Path(__file__).parent / "golden"
LENGTHS, MISSET = (70.0, 80.0, 90.0), (-89.968546, -31.328953, 177.753396)
CELL_ERROR = 0.003
MISSET_ERROR = (0.12, -0.1, 0.124)  # 0.2 degrees in all


def model():
    """The triclinic case with a cell and an orientation that are off."""
    flags = json.loads((GOLDEN / "cases.json").read_text())["triclinic_N5"].split()[1:]
    made = experiment_from(flags).simulator
    with torch.no_grad():
        made.crystal.lengths *= 1 + CELL_ERROR * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
        made.crystal.misset += torch.tensor(MISSET_ERROR, dtype=torch.float64)
    return made


def refine(made, measured, *, reference):
    parameters = made.refine("crystal.lengths", "crystal.misset")
    optimiser = torch.optim.LBFGS(parameters, max_iter=60, line_search_fn="strong_wolfe", tolerance_change=1e-14)
    losses = []

    def closure():
        optimiser.zero_grad()
        loss = (made(reference=reference) - measured).square().mean() / measured.square().mean()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimiser.step(closure)
    return parameters, losses


@pytest.mark.parametrize("reference", [False, True], ids=["kernel", "twin"])
def test_the_cell_and_the_misset_are_recovered(reference):
    measured = torch.from_numpy(np.load(GOLDEN / "cases.npz")["triclinic_N5"])
    made = model()
    assert torch.linalg.vector_norm(torch.tensor(MISSET_ERROR)).item() == pytest.approx(0.2, abs=0.002)
    (lengths, misset), losses = refine(made, measured, reference=reference)
    assert losses[0] > 0.01
    assert losses[-1] < 1e-9
    assert (lengths.detach() / torch.tensor(LENGTHS) - 1).abs().max() < CELL_ERROR / 100
    assert (misset.detach() - torch.tensor(MISSET, dtype=torch.float64)).norm() < 0.2 / 100
