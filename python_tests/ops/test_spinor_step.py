"""spinor_step: one kernel gives what a layer's parts do in double precision, with and without rotation and gate."""

import pytest
import torch
from helpers import generator, relative_error
from torch import Tensor

from sem.ops import reference
from sem.ops.spinor_step import spinor_step

EPS, LEAST_DT, MOST_DT = 1e-6, 0.2, 1.5
ROTATION, GATE = ("gate", "gate_bias", "blocks"), ("out_gate", "out_gate_bias")


def problem(batch: int, blocks: int, size: int, taps: int, groups: int, states: int) -> dict[str, Tensor]:
    """The arguments by name, in order, but the numbers among them."""
    draws, dim = generator(batch + 10 * size), blocks * size
    normal = lambda *shape: torch.randn(*shape, generator=draws)  # noqa: E731
    narrow = (2 * dim) ** -0.5
    return {
        "x": normal(batch, dim, 2),
        "history": normal(batch, taps - 1, dim, 2),
        "state": normal(batch, groups * states, 2),
        "gamma": normal(dim),
        "gate": narrow * normal(dim, 2 * dim),
        "gate_bias": normal(dim),
        "blocks": normal(blocks, size, size, 2),
        "taps": normal(taps, dim, 2),
        "offset": normal(dim, 2),
        "theta": normal(dim),
        "time_steps": narrow * normal(2 * groups, 2 * dim),
        "time_bias": normal(2 * groups),
        "into": normal(groups, states, dim // groups, 2),
        "out_of": normal(groups, dim // groups, states, 2),
        "decay": normal(groups * states).abs(),
        "frequency": normal(groups * states),
        "out_gate": 3 * narrow * normal(dim, 2 * dim),
        "out_gate_bias": normal(dim),
        "out_matrix": narrow * normal(2 * dim, 2 * dim),
    }


def stepped(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    arguments = list(given.values())
    return spinor_step(*arguments[:4], EPS, *arguments[4:], LEAST_DT, MOST_DT)


def composed(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """By the parts' twins, in double precision."""
    t = {name: tensor.double() for name, tensor in given.items()}
    waves = ("x", "history", "state", "blocks", "taps", "offset", "into", "out_of")
    t |= {name: torch.view_as_complex(t[name]) for name in waves if t[name].numel()}
    normed = reference.complex_rms_norm(t["x"], t["gamma"], EPS)
    blocks = torch.view_as_real(normed).flatten(1)
    turned = normed
    if len(t["gate"]):
        turned = reference.gated_rotation(normed, blocks @ t["gate"].T + t["gate_bias"], t["blocks"])
    wave = reference.causal_conv(turned[:, None], t["taps"], t["offset"], t["theta"], t["history"])
    log_dt = torch.view_as_real(wave).flatten(2) @ t["time_steps"].T + t["time_bias"]
    steps = log_dt.exp().clamp(LEAST_DT, MOST_DT).chunk(2, -1)
    maps = (t[name] for name in ("into", "out_of", "decay", "frequency", "state"))
    mixed, state = reference.state_space(wave, *steps, *maps)
    mixed = mixed.squeeze(1)
    if len(t["out_gate"]):
        mixed = reference.wave_gate(mixed, blocks @ t["out_gate"].T + t["out_gate_bias"])
    added = torch.view_as_real(mixed).flatten(1) @ t["out_matrix"].T
    history = torch.cat([t["history"], turned[:, None]], 1)[:, 1:]
    return tuple(
        map(torch.view_as_real, (t["x"] + torch.view_as_complex(added.view(*t["x"].shape, 2)), history, state))
    )


@pytest.mark.parametrize(
    "left_out", [(), ROTATION, GATE, ROTATION + GATE], ids=["all", "unturned", "ungated", "neither"]
)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 2, 1, 1), (3, 5, 3, 4, 5, 7), (2, 16, 8, 4, 8, 16)])
def test_matches_the_parts_in_double_precision(sizes, left_out):
    given = problem(*sizes)
    given |= {name: torch.empty(0) for name in left_out}
    for ours, theirs in zip(stepped(given), composed(given), strict=True):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < 3e-6


def test_empty_tensors_of_any_shape_leave_a_part_out():
    given = problem(2, 3, 4, 3, 2, 5)
    flat = stepped(given | {name: torch.empty(0) for name in ROTATION + GATE})
    shaped = stepped(
        given
        | {"gate": torch.empty(0, 24), "gate_bias": torch.empty(0), "blocks": torch.empty(0, 0, 0, 2)}
        | {"out_gate": torch.empty(0, 24), "out_gate_bias": torch.empty(0)}
    )
    assert all(map(torch.equal, flat, shaped))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"blocks": torch.zeros(4, 4, 4, 2)}, "field 'blocks': expected 96 numbers, got 128"),
        ({"blocks": torch.empty(0)}, "field 'gate': expected 0 numbers, got 288"),
        ({"gate": torch.empty(0)}, "field 'gate': expected 288 numbers, got 0"),
        ({"out_gate": torch.zeros(5, 24)}, "field 'out_gate': expected 288 numbers, got 120"),
        ({"out_gate": torch.empty(0)}, "field 'out_gate_bias': expected 0 numbers, got 12"),
    ],
)
def test_a_part_that_is_left_out_by_half_is_an_error(wrong, message):
    with pytest.raises(TypeError, match=f"spinor_step: {message}"):
        stepped(problem(2, 3, 4, 3, 2, 5) | wrong)
