import pytest
import torch

from sem.diagnostics import Diagnostics


def test_reductions():
    diagnostics = Diagnostics()
    diagnostics.record("a", torch.tensor([1.0, 3.0]), "mean")
    diagnostics.record("a", torch.tensor([4.0]), "mean")
    diagnostics.record("b", torch.tensor([1.0, 5.0]), "max")
    diagnostics.record("b", torch.tensor(2), "max")
    diagnostics.record("c", torch.ones(3, requires_grad=True), "sum")
    diagnostics.record("d", torch.empty(0))
    assert diagnostics.summary() == {"a": 3.0, "b": 5.0, "c": 3.0}


def test_one_name_has_one_reduction():
    diagnostics = Diagnostics()
    diagnostics.record("a", torch.ones(2))
    with pytest.raises(ValueError, match="recorded with reduction 'mean' before, now 'max'"):
        diagnostics.record("a", torch.ones(2), "max")


def test_routine_unless_told_otherwise():
    assert not Diagnostics().thorough
    assert Diagnostics(thorough=True).thorough
