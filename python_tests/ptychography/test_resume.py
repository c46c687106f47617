"""A run that was saved, or interrupted, goes on as the one that was not: bit by bit, in every engine."""

import signal

import pytest
import torch
from scan_files import same_bits

from sem.ptycho import (
    LSQML,
    PIE,
    AnnealPositions,
    MaximumLikelihood,
    OrthogonalModes,
    Projections,
    RefinePositions,
    Scan,
    disk_probe,
    lbfgs,
    lines_object,
    raster_scan,
    read_state,
    simulate,
    with_hermite_modes,
)

POSITIONS = (OrthogonalModes(), AnnealPositions(1.0, begin=1, end=4, trials=2), RefinePositions(begin=2))
ENGINES = {
    "epie": (PIE, {}),
    "rpie": (PIE, dict(alpha=0.1, constraints=POSITIONS)),
    "mpie in batches": (PIE, dict(momentum=0.3, period=7, batch=3)),
    "difference map": (Projections, dict(constraints=POSITIONS)),
    "raar": (Projections, dict(beta=0.8, inner=2)),
    "lsq": (LSQML, dict(batch=6, constraints=POSITIONS)),
    "ml": (MaximumLikelihood, dict(batch=6, constraints=POSITIONS)),
    "ml of positions": (MaximumLikelihood, dict(batch=6, kind="poisson", position_rate=0.02, positions_from=1)),
    "sgd": (MaximumLikelihood, dict(optimizer=lambda groups: torch.optim.SGD(groups, momentum=0.9), rate=1e-6)),
    "l-bfgs": (MaximumLikelihood, dict(optimizer=lbfgs)),
}


@pytest.fixture(scope="module")
def given():
    """A scan with two modes, dead pixels and positions that are off, an object with a margin, and a probe to start."""
    generator = torch.Generator().manual_seed(0)
    truth = lines_object(48, 30, seed=1)
    positions = raster_scan(5, 5, 3) + 5
    scan, probe = simulate(
        truth, with_hermite_modes(disk_probe(16, 3.5, defocus=4.0), 2), positions, photons=1e6, seed=2
    )
    weight = torch.ones(16, 16)
    weight[3, 5] = 0
    wrong = scan.positions + 0.6 * torch.rand(25, 2, generator=generator) - 0.3
    return Scan(scan.amplitudes, wrong, weight), 1.1 * probe, torch.ones_like(truth)


def begun(name, given):
    engine, settings = ENGINES[name]
    return engine(*given, probe_from=1, seed=3, **settings)


def is_same(first, second):
    """Everything but the seconds."""
    reports = [[report[:4] for report in engine.state.reports] for engine in (first, second)]
    pairs = zip(tensors(first.state_dict()), tensors(second.state_dict()), strict=True)
    return reports[0] == reports[1] and all(same_bits(a, b) for a, b in pairs)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    values = [v for key, v in value.items() if key != "reports"] if isinstance(value, dict) else value
    if not isinstance(values, (list, tuple)):
        return []
    return [tensor for v in values for tensor in tensors(v)]


@pytest.mark.parametrize("name", ENGINES)
def test_a_resumed_run_is_the_whole(given, tmp_path, name):
    whole, first = begun(name, given), begun(name, given)
    whole.run(5)
    first.run(3)
    first.save(tmp_path / "run.h5")
    resumed = begun(name, given)
    resumed.load(tmp_path / "run.h5")
    assert is_same(first, resumed)
    resumed.run(2)
    assert is_same(whole, resumed) and not is_same(first, resumed)
    assert [report.sweep for report in resumed.state.reports] == [0, 1, 2, 3, 4]
    assert resumed.state.reports[-1].seconds > first.state.reports[-1].seconds
    # a state in memory does as well, and is left alone by what goes on from it
    state = first.state_dict()
    kept = [tensor.clone() for tensor in tensors(state)]
    copied = begun(name, given)
    copied.load_state_dict(state)
    copied.run(2)
    assert is_same(whole, copied)
    assert all(same_bits(a, b) for a, b in zip(kept, tensors(state), strict=True))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("late", [False, True])
def test_control_c_keeps_the_last_whole_sweep(given, name, late):
    """The signal arrives inside a sweep, once between two of its steps and once after them all."""
    whole, stopped = begun(name, given), begun(name, given)
    whole.run(2)
    stopped.run(2)
    asked = 0

    def interrupt(*args):
        nonlocal asked
        asked += 1
        if asked == (1 if late else 2):
            signal.raise_signal(signal.SIGINT)

    inner = {PIE: ("residual_of", "residual"), Projections: ("residual",), LSQML: ("residual",)}.get(type(stopped), ())
    holders = [(stopped.model, method) for method in inner] or [(stopped, "_objective")]
    kept = [(holder, method, getattr(holder, method)) for holder, method in holders]
    constraints = stopped.constraints
    if late:
        stopped.constraints = (*constraints, lambda engine, object, probe: (interrupt(), (object, probe))[1])
    else:
        for holder, method, call in kept:
            setattr(holder, method, lambda *args, call=call: (call(*args), interrupt())[0])
    try:
        stopped.run(1)
        stopped.run(1)  # L-BFGS may take one step in a sweep
        pytest.fail("the sweep was not interrupted")
    except KeyboardInterrupt:
        pass
    for holder, method, call in kept:
        setattr(holder, method, call)
    stopped.constraints = constraints
    whole.run(len(stopped.state.reports) - 2)
    assert is_same(whole, stopped)
    whole.run(2)
    stopped.run(2)
    assert is_same(whole, stopped)


def test_a_state_is_readable_and_written_as_a_whole(given, tmp_path, monkeypatch):
    engine = begun("epie", given)
    engine.run(2)
    path = tmp_path / "run.h5"
    engine.save(path)
    before, state = path.read_bytes(), read_state(path)
    assert same_bits(state["object"], engine.state.object) and same_bits(state["positions"], engine.scan.positions)
    assert state["reports"].shape == (2, 5) and state["settings"]["probe_from"] == 1 and state["engine"] == "PIE"
    engine.run(1)
    engine.constraints = ()
    monkeypatch.setattr("sem.ptycho.files.state.append_seal", lambda file: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        engine.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["run.h5"]


def test_a_damaged_state_gets_a_sentence(given, tmp_path):
    engine = begun("epie", given)
    engine.run(1)
    path = tmp_path / "run.h5"
    engine.save(path)
    whole = path.read_bytes()
    damaged = {
        place: whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :] for place in range(0, len(whole), 997)
    }
    damaged |= {-1: whole[:-1], -2: whole[: len(whole) // 2], -3: b"", -4: whole + b"x"}
    for place, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a complete file of a run's state") as caught:
            engine.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), place
    with pytest.raises(FileNotFoundError):
        engine.load(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "engine": "LSQML"}, "engine: expected a state of PIE, got one of LSQML"),
        (
            lambda state: {**state, "settings": {**state["settings"], "alpha": 0.5}},
            "alpha: expected .* with 1.0, .* 0.5",
        ),
        (lambda state: {**state, "patterns": "other"}, "scan: expected a state of a run on the same amplitudes"),
        (
            lambda state: {**state, "object": state["object"][1:]},
            r"object: expected torch.complex64 \[48, 48\], got .*47",
        ),
        (lambda state: {**state, "positions": state["positions"].double()}, "positions: expected torch.float32"),
        (lambda state: {**state, "positions": state["positions"] + 40}, "corners: .* leaves the object"),
        (lambda state: {k: v for k, v in state.items() if k != "generator"}, "state: not what this .*'generator'"),
        (lambda state: {**state, "generator": torch.zeros(3, dtype=torch.uint8)}, "state: not what this engine's"),
        (lambda state: {**state, "reports": None}, "state: not what this engine's"),
        (lambda state: {}, "state: not what this engine's state_dict gives .KeyError: 'engine'"),
    ],
)
def test_a_state_of_something_else_is_refused_and_nothing_changes(given, tmp_path, change, message):
    engine, kept = begun("epie", given), begun("epie", given)
    for one in (engine, kept):
        one.run(1)
    with pytest.raises(ValueError, match=message):
        engine.load_state_dict(change(engine.state_dict()))
    assert is_same(engine, kept)
    engine.run(1)
    kept.run(1)
    assert is_same(engine, kept)


def test_what_a_file_cannot_hold_is_named(tmp_path):
    from sem.ptycho.files.state import write_state

    path = tmp_path / "state.h5"
    for state, message in (
        ({"a": [object()]}, "got object in 'a/0'"),
        ({"a": torch.ones(2, dtype=torch.bfloat16)}, "a: expected a dtype that files hold, got torch.bfloat16"),
        ({"a/b": 1}, "keys that are text without /"),
        ({"structure": torch.ones(1)}, "structure"),
    ):
        with pytest.raises(TypeError, match=message):
            write_state(path, state)
    assert not path.exists()
    state = {"a": [1, (2.5, None, True, "x")], "b": {0: torch.tensor(3), "c": torch.zeros(0, 2)}, "n": float("inf")}
    write_state(path, state)
    found = read_state(path)
    assert found["a"] == state["a"] and found["n"] == state["n"] and list(found["b"]) == [0, "c"]
    assert same_bits(found["b"][0], state["b"][0]) and same_bits(found["b"]["c"], state["b"]["c"])
