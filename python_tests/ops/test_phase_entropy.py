import math

import pytest
import torch

from sem.ops.pit import phase_entropy


def test_phase_entropy():
    even = torch.polar(torch.ones(64), torch.arange(64) * (2 * math.pi / 64))
    assert abs(float(phase_entropy(even)) - 1) < 1e-6
    one = torch.ones(5, dtype=torch.complex64)
    share = torch.exp(-0.5 * torch.arange(-16, 16).double().square()) / math.sqrt(2 * math.pi)
    assert abs(float(phase_entropy(one)) + float((share * share.log()).nan_to_num().sum()) / math.log(32)) < 1e-5
    assert phase_entropy(torch.zeros(3, 4, dtype=torch.complex64)).tolist() == [1, 1, 1]
    assert phase_entropy(torch.tensor([1, math.nan], dtype=torch.complex64)).isnan()
    many = torch.randn(3000, 2, 64, dtype=torch.complex64)
    assert phase_entropy(many).shape == (3000, 2)
    assert torch.allclose(phase_entropy(many)[1234, 1], phase_entropy(many[1234, 1]))
    assert phase_entropy(torch.zeros(0, 5, dtype=torch.complex64)).shape == (0,)


@pytest.mark.parametrize("bins", [4, 13, 32])
@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
def test_phase_entropy_is_that_of_the_gaussian_density_on_bins(spread, bins):
    phases = spread * torch.randn(7, 50, generator=torch.Generator().manual_seed(bins), dtype=torch.float64)
    psi = torch.polar(0.1 + torch.rand(7, 50), phases.float())
    distance = phases.unsqueeze(-1) * bins / (2 * math.pi) - torch.arange(bins)
    density = sum(torch.exp(-0.5 * (distance - turn * bins).square()) for turn in range(-9, 10)).sum(1)
    share = density / density.sum(-1, keepdim=True)
    expected = torch.special.entr(share).sum(-1) / math.log(bins)
    assert torch.allclose(phase_entropy(psi, bins).double(), expected, rtol=0, atol=1e-6)
