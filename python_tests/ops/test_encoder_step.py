"""encoder_step and born_step: kernels and compositions agree. The encoder's and the head's own tests compare whole
sequences."""

import pytest
import torch
from helpers import relative_error

from sem.config import SEMConfig
from sem.model import SEMModel
from sem.ops import composed
from sem.ops.encoder_step import encoder_step
from sem.ops.testing import composed_on_cpu_tensors
from sem.sampler import BornHead


def problem(batch, rounds, columns, dim):
    generator = torch.Generator().manual_seed(batch + 10 * rounds + columns)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    lost = 1e-7 * (draw(batch, rounds, columns) - 0.5)
    positions = torch.arange(batch, dtype=torch.float32) * 40 + 3
    tables = draw(2 * dim, columns) - 0.5, draw(dim)
    return draw(batch, columns) + 0.05, positions, 3 * draw(batch, rounds, columns), lost, *tables


@pytest.mark.parametrize("tol", [0.0, 10.0])  # all rounds, or two: rounding decides nothing
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 5, 17, 6), (3, 50, 64, 128), (0, 4, 8, 3)])
def test_matches_the_composition_in_double_precision(sizes, tol):
    inputs, sparsity = problem(*sizes), (sizes[2] + 1) // 2
    exact = composed.encoder_step(*(tensor.double() for tensor in inputs), 16.0, tol, sparsity)
    wave, loads, lost = encoder_step(*inputs, 16.0, tol, sparsity)
    assert wave.shape == exact[0].shape and loads.shape == lost.shape == exact[1].shape
    if len(wave):
        assert relative_error(wave, exact[0]) < 1e-5  # the threshold takes most of an entry away
        assert relative_error(loads.double() + lost.double(), exact[1] + exact[2]) < 1e-6


def test_devices_compose_it():
    inputs = problem(2, 5, 17, 6)
    with composed_on_cpu_tensors():
        composition = encoder_step(*inputs, 16.0, 1e-3, 9)
    for part, expected in zip(composition, composed.encoder_step(*inputs, 16.0, 1e-3, 9), strict=True):
        assert torch.equal(part, expected)
    assert not torch.equal(composition[0], encoder_step(*inputs, 16.0, 1e-3, 9)[0])  # the kernel rounds otherwise


def test_a_field_of_the_wrong_size_is_an_error():
    kernel, _, *rest = problem(2, 5, 17, 6)
    with pytest.raises(TypeError, match="encoder_step: field 'positions': expected 2 numbers, got 3"):
        encoder_step(kernel, torch.zeros(3), *rest, 16.0, 1e-3, 9)


@pytest.mark.parametrize("rows", [1, 8, 9])
def test_born_head_of_a_few_waves_is_that_of_many(rows):
    torch.manual_seed(0)
    head = BornHead(24, 50)
    torch.nn.init.normal_(head.bias)
    psi = torch.randn(rows, 24, dtype=torch.complex64)
    with torch.no_grad():
        few = head(psi)
        with composed_on_cpu_tensors():
            parts = head(psi)
    assert few.shape == parts.shape
    torch.testing.assert_close(few.exp(), parts.exp(), rtol=1e-4, atol=1e-7)
    assert few.exp().sum(-1).sub(1).abs().max() < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(head(psi.conj().resolve_conj().conj()), few)
        if rows <= 8:  # by the kernel
            torch.testing.assert_close(torch.vmap(head)(torch.stack([psi, 2 * psi]))[0], few)
    apart = torch.empty(24, rows, dtype=torch.complex64).T.copy_(psi)  # not contiguous
    with torch.no_grad():
        torch.testing.assert_close(head(apart), few)


def test_models_decode_whatever_the_default_dtype_is():
    model = SEMModel(SEMConfig.from_dict({"model": {"hidden_dim": 32, "num_layers": 1}})).eval()
    tokens = torch.tensor([[104, 101, 108, 108, 111]])
    expected, _ = model.prefill(tokens)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        state = model.prefill(tokens[:, :4])[1]
        found, _ = model.step(tokens[:, 4], state)
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=1e-4, atol=1e-6)
