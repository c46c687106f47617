"""Recipes and runs: which engine is told what, when probe and positions move, what is kept when a run ends early."""

import pytest
import torch

from sem.ptycho import LSQML, PIE, MaximumLikelihood, Projections, Recipe, Run, ScanFile, Simulation, Stage
from sem.ptycho import runs as runs_module
from sem.ptycho.recipes import ENGINES, OWN


@pytest.fixture(scope="module")
def made():
    return Simulation(side=16, rows=6, columns=6, step=3, lines=20, radius=4, photons=1e6).make()


def after(made, sweeps=1, **changed):
    run = Run(made, Recipe(**{"engine": "epie", "sweeps": sweeps, "chi_squared": None, **changed}))
    run.run()
    return run


def test_every_engine_is_its_class_with_settings_that_it_takes(made):
    for name, kind in ENGINES.items():
        run = Run(made, Recipe(engine=name))
        told = dict(run.told(run.stages[0]))
        assert set(told) == set(kind.options) <= set(OWN)
        assert {key: told[key] for key in kind.settings} == kind.settings
    known = {"epie": (PIE, "alpha", 1.0), "rpie": (PIE, "alpha", 0.1), "dm": (Projections, "beta", 1.0)}
    known |= {
        "raar": (Projections, "beta", 0.8),
        "lsqml": (LSQML, "damping", 0.1),
        "ml": (MaximumLikelihood, "batch", 32),
    }
    for name, (kind, option, value) in known.items():
        run = Run(made, Recipe(engine=name))
        engine = run._engine(run.stages[0], made.scan, *run._last[:2], first=True)
        assert type(engine) is kind and getattr(engine, option) == value


def test_a_setting_reaches_its_engine(made):
    run = Run(made, Recipe(engine="ml", sweeps=7, rate=0.03, batch=5, kind="poisson", seed=4))
    engine = run._engine(run.stages[0], made.scan, *run._last[:2], first=True)
    assert (engine.rates[0], engine.batch, engine.kind, engine.sweeps_planned) == (0.03, 5, "poisson", 7)
    orders = [after(made, 2, seed=seed).result().object for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_the_probe_moves_from_its_sweep_on_and_in_later_stages(made):
    before = Run(made, Recipe()).result().probe
    still = after(made, 2).result().probe
    assert torch.equal(still, before)
    assert not torch.equal(after(made, 3).result().probe, before)
    assert not torch.equal(after(made, 1, probe_from=0).result().probe, before)
    assert torch.equal(after(made, 4, probe_from=None, then=("rpie:2",)).result().probe, before)
    assert not torch.equal(after(made, 2, then=("rpie:1",)).result().probe, before)


def test_a_later_stage_begins_where_the_one_before_ended(made):
    run = after(made, 3, then=("ml:1,rate=1e-9",), probe_from=None)
    before = after(made, 3, probe_from=None)
    torch.testing.assert_close(run.result().object, before.result().object, rtol=1e-4, atol=1e-5)
    assert [sweep.stage for sweep in run.sweeps] == [0, 0, 0, 1]
    assert run.sweeps[3].loss < run.sweeps[2].loss


def test_a_loss_that_is_no_number_ends_a_run_and_the_sweep_before_is_kept(made, monkeypatch):
    run = Run(made, Recipe(engine="epie", sweeps=9, object_step=1e30))
    run.run()
    assert run.diverged and run.stopped == "the loss of sweep 1 is nan" and run.sweeps == []
    sweep = PIE.sweep

    def worse(self, object, probe, moves):
        object, probe, squares = sweep(self, object, probe, moves)
        return object, probe, float("nan") if len(self.state.reports) == 2 else squares

    whole = after(made, 2).result()
    monkeypatch.setattr(PIE, "sweep", worse)
    run = after(made, 9)
    assert run.diverged and len(run.sweeps) == 2
    assert torch.equal(run.result().object, whole.object) and torch.equal(run.result().probe, whole.probe)


def test_memory_is_stated_and_more_than_there_is_refused(made, monkeypatch):
    notes = Run(made, Recipe(engine="epie", sweeps=1, then=("dm:1",))).notes
    # two waves of all patterns, and four of a block, which holds them all
    assert Projections.memory(made.scan) == (2 + 4) * 8 * made.scan.side**2 * len(made.scan)
    stated = f"{Projections.memory(made.scan) / 2**30:.3g} GiB"
    assert notes[-1].startswith(f"dm holds {stated} of waves")
    monkeypatch.setattr(runs_module, "machine_memory", lambda: 2**18)
    with pytest.raises(ValueError, match=f"raar holds {stated} .* this machine has 0.000244 GiB"):
        Run(made, Recipe(engine="raar"))
    Run(made, Recipe(engine="rpie"))


def test_probes_to_start_from(made):
    bare = ScanFile(made.scan)
    assert "a disk" in Run(bare, Recipe()).notes[0]
    for changed, words in (
        (dict(probe="file"), "probe: expected one in the scan's file, found none"),
        (dict(keep_probe=True), "found none"),
    ):
        with pytest.raises(ValueError, match=words):
            Run(bare, Recipe(**changed))
    mixed = ScanFile(made.scan, torch.cat([made.probe, 0.1 * made.probe.flip(1)]))
    assert len(Run(mixed, Recipe()).result().probe) == 2
    with pytest.raises(ValueError, match="modes: expected 2, as the file's probe has, got 3"):
        Run(mixed, Recipe(modes=3))
    power = [float(Run(made, Recipe(modes=modes)).result().probe.abs().square().sum()) for modes in (1, 3)]
    assert power[0] == pytest.approx(power[1], rel=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ml", "expected ENGINE:SWEEPS"),
        ("ml:ten", "expected ENGINE:SWEEPS"),
        ("ml:3,rate", "expected ENGINE:SWEEPS"),
        ("ml:0", "ml: expected at least one sweep, got 0"),
        ("pie:3", "engine: expected one of epie, rpie"),
        ("raar:3,alpha=0.1", "alpha: engine raar takes beta, inner, got alpha"),
        ("ml:3,batch=0", "engine.batch = 0: expected an integer >= 1"),
    ],
)
def test_stages_that_cannot_be(text, words):
    with pytest.raises(ValueError, match=words):
        Stage.parse(text)
    with pytest.raises(ValueError, match=f"reconstruction.then: {words}"):
        Recipe(then=(text,))
    assert str(Stage.parse("raar:15,beta=0.9,inner=2")) == "raar:15,beta=0.9,inner=2"
