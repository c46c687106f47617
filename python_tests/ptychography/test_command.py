"""``sem ptycho`` from the command line to the files and sentences that it leaves."""

import csv
import io
import json
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
import tifffile
import torch

from sem.cli import main
from sem.commands.ptycho import SUBCOMMANDS
from sem.ptycho import PRESETS, Recipe, Simulation, read_result, read_scan, self_check
from sem.settings import setting_infos

SMALL = ("--side", "16", "--rows", "6", "--columns", "7", "--step", "3", "--lines", "20", "--radius", "4")
GEOMETRY = ("--energy", "8", "--distance", "2", "--detector-pixel", "75e-6")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """The file of a small scan that knows its geometry and its object."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    assert main(["ptycho", "simulate", *SMALL, *GEOMETRY, "--photons", "1e6", "--output", str(path)]) == 0
    return str(path)


@pytest.fixture(scope="module")
def result(scan, tmp_path_factory):
    """The folder of a reconstruction in two stages that moved the positions."""
    folder = tmp_path_factory.mktemp("runs") / "result"
    more = ("--sweeps", "4", "--then", "ml:3,rate=0.05", "--positions", "2", "--chi-squared", "null")
    assert reconstruct(scan, folder, "--engine", "rpie", "--alpha", "0.2", *more) == 0
    return folder


def reconstruct(scan, folder, *more):
    return main(["ptycho", "reconstruct", scan, "--output", str(folder), *more])


def test_simulate_is_what_its_settings_are(scan, capsys):
    settings = Simulation(
        side=16, rows=6, columns=7, step=3, lines=20, radius=4, photons=1e6, energy=8, distance=2, detector_pixel=75e-6
    )
    made, found = settings.make(), read_scan(scan)
    assert torch.equal(found.scan.amplitudes, made.scan.amplitudes) and torch.equal(found.object, made.object)
    assert torch.equal(found.probe, made.probe) and found.geometry == made.geometry
    assert json.loads(found.provenance.removeprefix("simulated: ")) == settings.to_mapping()


def test_simulate_from_a_preset_that_options_change(tmp_path, capsys):
    path = tmp_path / "not" / "there" / "scan.npz"
    assert main(["ptycho", "simulate", "--preset", "scan-32", "--photons", "1e5", "--output", str(path)]) == 0
    assert f"{path}: 484 patterns of 32 x 32, 9.998e+04 counts" in capsys.readouterr().out
    counts = read_scan(path).scan.amplitudes.double().square().sum((1, 2)).mean()
    assert float(counts) == pytest.approx(1e5, rel=0.01)


def test_inspect_says_what_there_is_and_draws_it(scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    picture = tmp_path / "scan.png"
    assert main(["ptycho", "inspect", scan, "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    for text in (
        "42 of 16 x 16",
        "9.998e+05 in the mean",
        "1.5498 Angstrom",
        "258.3 nm",
        "periodicity",
        "outermost ring",
    ):
        assert text in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_inspect_finds_how_a_file_lays_its_axes(tmp_path, capsys):
    turned, plain = tmp_path / "turned.cxi", tmp_path / "scan.h5"
    fine = ("--photons", "1e8", "--defocus", "6", "--rows", "8", "--columns", "8", "--no-object-in-file")
    assert main(["ptycho", "simulate", *SMALL, *GEOMETRY, *fine, "--output", str(turned)]) == 0
    with h5py.File(turned, "r+") as file:  # a beamline whose x runs the other way, and stands first
        where = file["entry_1/sample_1/geometry_1/translation"]
        values = where[...]
        where[...] = np.stack([values[:, 1], -values[:, 0], values[:, 2]], 1)
    assert main(["ptycho", "inspect", str(turned), "--axes", "--patterns", "40"]) == 0
    best = capsys.readouterr().out.partition("fits best: --axes=")[2][:4]
    assert best == "+x-y"
    assert main(["ptycho", "convert", f"--axes={best}", str(turned), str(plain)]) == 0
    assert main(["ptycho", "inspect", str(plain), "--axes", "--patterns", "40"]) == 0
    assert "fits best: --axes=+y+x" in capsys.readouterr().out


def test_convert_there_and_back(scan, tmp_path, capsys):
    first, second = tmp_path / "scan.cxi", tmp_path / "scan.npz"
    assert main(["ptycho", "convert", scan, str(first)]) == 2
    assert "holds no object" in capsys.readouterr().err
    assert main(["ptycho", "convert", scan, str(first), "--leave-out", "object"]) == 0
    assert main(["ptycho", "convert", str(first), str(second)]) == 0
    before, after = read_scan(scan), read_scan(second)
    assert torch.equal(after.scan.amplitudes, before.scan.amplitudes) and after.object is None
    torch.testing.assert_close(after.scan.positions, before.scan.positions + 8)
    assert after.geometry.object_pixel == pytest.approx(before.geometry.object_pixel)


def test_reconstruct_writes_everything(scan, result, capsys):
    written = {
        "result.h5",
        "losses.csv",
        "result.json",
        "object.png",
        "losses.png",
        "error.png",
        "rings.png",
        "positions.png",
    }
    assert {path.name for path in result.iterdir()} == written
    found = read_result(result / "result.h5")
    assert found.name == "rpie:4,alpha=0.2 + ml:3,rate=0.05" and found.source == scan
    assert found.losses["sweep"] == list(range(7)) and found.losses["stage"] == [0] * 4 + [1] * 3
    assert found.losses["loss"][-1] < 0.1 * found.losses["loss"][0]
    assert [moved > 0 for moved in found.losses["moved"]] == [False] * 2 + [True] * 5
    assert not torch.equal(found.positions, found.start) and found.origin == (8, 8)
    torch.testing.assert_close(found.start, read_scan(scan).scan.positions + 8)
    assert found.geometry == read_scan(scan).geometry
    with open(result / "losses.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(found.losses["loss"])
    report = json.loads((result / "result.json").read_text())
    assert report["scores"]["amp_ssim"] > report["floors"]["amp_ssim"] + 0.2
    assert report["object_pixel_nm"] == pytest.approx(258.3, abs=0.1)
    assert report["settings"]["stages"][0] == {
        "engine": "rpie", "sweeps": 4, "alpha": 0.2, "object_step": 1.0, "probe_step": 1.0
    }  # fmt: skip


@pytest.mark.parametrize("engine", ["epie", "dm", "raar", "lsqml", "ml"])
def test_every_engine(engine, scan, tmp_path, capsys):
    settings = {"ml": ("--kind", "poisson", "--batch", "8"), "lsqml": ("--batch", "8"), "dm": ("--inner", "2")}
    more = ("--engine", engine, "--sweeps", "5", "--no-pictures", *settings.get(engine, ()))
    assert reconstruct(scan, tmp_path, *more) == 0
    printed = capsys.readouterr().out
    assert ("GiB of waves" in printed) == (engine in ("dm", "raar"))
    assert f"{engine}: 5 sweeps" in printed and "amp_ssim: 0." in printed and "scaled by 1." in printed
    assert {path.name for path in tmp_path.iterdir()} == {"result.h5", "losses.csv", "result.json"}


def test_a_kept_probe_is_the_files_bit_for_bit(scan, tmp_path, capsys):
    assert reconstruct(scan, tmp_path, "--keep-probe", "--sweeps", "3", "--no-pictures") == 0
    assert torch.equal(read_result(tmp_path / "result.h5").probe, read_scan(scan).probe)
    assert "scaled" not in capsys.readouterr().out


def test_modes_and_a_disk_to_start_from(scan, tmp_path, capsys):
    more = ("--probe", "disk", "--radius", "4.4", "--defocus", "3", "--modes", "2", "--sweeps", "2", "--no-pictures")
    assert reconstruct(scan, tmp_path, *more) == 0
    assert read_result(tmp_path / "result.h5").probe.shape == (2, 16, 16)
    assert "probe: a disk, with 2 modes, scaled by" in capsys.readouterr().out


def test_a_run_stops_at_photon_noise_and_when_its_minutes_are_over(scan, tmp_path, capsys):
    assert reconstruct(scan, tmp_path, "--chi-squared", "1e9", "--sweeps", "50", "--no-pictures") == 0
    assert "stopped after sweep 1: chi^2 is" in capsys.readouterr().out
    more = ("--minutes", "1e-9", "--sweeps", "50", "--no-pictures", "--overwrite")
    assert reconstruct(scan, tmp_path, *more) == 0
    assert "stopped after sweep 1: 1e-09 minutes are over" in capsys.readouterr().out
    more = ("--plateau", "0.99999", "--sweeps", "50", "--then", "epie:1", "--no-pictures", "--overwrite")
    assert reconstruct(scan, tmp_path, *more) == 0
    assert read_result(tmp_path / "result.h5").losses["stage"] == [0] * 6 + [1]


def test_a_run_that_diverges_is_a_failure(scan, tmp_path, capsys):
    assert reconstruct(scan, tmp_path, "--engine", "epie", "--object-step", "1e30") == 1
    assert capsys.readouterr().err == "sem: the loss of sweep 1 is nan; nothing is kept\n"
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_replaced_only_where_that_is_asked_for(scan, tmp_path, capsys):
    more = ("--sweeps", "1", "--engine", "epie", "--no-pictures")
    assert reconstruct(scan, tmp_path, *more) == 0
    (tmp_path / "object.png").write_bytes(b"of the result")
    assert reconstruct(scan, tmp_path, *more) == 2
    assert "--overwrite replaces the one there" in capsys.readouterr().err
    assert (tmp_path / "object.png").exists()
    assert reconstruct(scan, tmp_path, *more, "--overwrite") == 0
    assert not (tmp_path / "object.png").exists()


class CtrlC(io.StringIO):
    """A terminal whose user presses Ctrl-C once, when a certain text has come."""

    def __init__(self, text):
        super().__init__()
        self.text, self.pressed = text, False

    def write(self, text):
        count = super().write(text)
        if self.text in self.getvalue() and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return count


@pytest.mark.parametrize(("text", "status"), [("sweep 1 (", 0), ("rpie: 100000 sweeps", 130)])
def test_ctrl_c_keeps_the_last_whole_sweep(text, status, scan, tmp_path, monkeypatch, capsys):
    terminal = CtrlC(text)
    monkeypatch.setattr(sys, "stdout", terminal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        more = ("--sweeps", "100000", "--chi-squared", "null", "--no-pictures")
        assert reconstruct(scan, tmp_path, *more) == status
    finally:
        signal.signal(signal.SIGINT, before)
    assert terminal.pressed
    if status:
        assert list(tmp_path.iterdir()) == []
        return
    found = read_result(tmp_path / "result.h5")
    (loss,) = found.losses["loss"]
    assert "stopped after sweep 1: Ctrl-C" in terminal.getvalue()
    other = tmp_path / "other"
    assert reconstruct(scan, other, "--sweeps", "1", "--no-pictures") == 0
    whole = read_result(other / "result.h5")
    assert torch.equal(found.object, whole.object) and loss == whole.losses["loss"][0]


def test_compare_results_with_their_floors(scan, result, tmp_path, capsys, monkeypatch):
    other, same = tmp_path / "other", tmp_path / "same"
    for folder in (other, same):
        assert reconstruct(scan, folder, "--engine", "epie", "--sweeps", "2", "--no-pictures") == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "250")
    arguments = [str(result), str(other), str(same / "result.h5")]
    files = ("--json", str(tmp_path / "table.json"), "--picture", str(tmp_path / "losses.png"))
    assert main(["ptycho", "compare", *arguments, *files]) == 0
    printed = capsys.readouterr().out
    assert "a constant image" in printed and "rpie:4,alpha=0.2 + ml:3,rate=0.05" in printed
    assert f"{other} and {arguments[2]} hold one object, bit for bit: the same run" in printed
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["results"][0]["amp_ssim"] > table["results"][1]["amp_ssim"] > table["floors"]["amp_ssim"]
    assert [row["sweeps"] for row in table["results"]] == [7, 2, 2]
    assert (tmp_path / "losses.png").exists()
    assert main(["ptycho", "compare", str(result), "--truth", scan]) == 0


def test_a_results_object_as_an_image(result, tmp_path, capsys):
    path = tmp_path / "object.tif"
    assert main(["ptycho", "convert", str(result / "result.h5"), str(path)]) == 0
    with tifffile.TiffFile(path) as image:
        amplitude, phase = image.asarray()
        assert image.imagej_metadata["unit"] == "um"
        numerator, denominator = image.pages[0].tags["XResolution"].value
    assert denominator / numerator == pytest.approx(0.2583, rel=1e-3)  # micrometres
    assert amplitude.dtype == np.float32 and 0.5 < amplitude.mean() < 2 and abs(phase).max() <= np.pi
    assert f"{amplitude.shape[0]} x {amplitude.shape[1]}" in capsys.readouterr().out


def test_check_holds_and_fails_loudly(capsys, monkeypatch):
    assert main(["ptycho", "check"]) == 0
    assert [line[:2] for line in capsys.readouterr().out.splitlines()] == ["ok"] * len(self_check.CHECKS)
    right = self_check.overlap_add
    monkeypatch.setattr(self_check, "overlap_add", lambda waves, *rest: right(waves.conj(), *rest))
    assert main(["ptycho", "check"]) == 1
    captured = capsys.readouterr()
    assert "FAILED adjointness of exit_waves" in captured.out and "FAILED oracle" in captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["reconstrct"], 2, "no such subcommand; did you mean reconstruct?"),
        (["draw"], 2, "expected one of simulate, inspect, convert"),
        (["simulate"], 2, "the following arguments are required: --output"),
        (["simulate", "--output", "a.h5", "--foton", "3"], 2, "--foton: unknown option; did you mean --photons?"),
        (["simulate", "--output", "a.h5", "--photons", "-1"], 2, "--photons = -1.0: expected a number > 0"),
        (["simulate", "--output", "a.h5", "--object", "cat"], 2, "--object = 'cat': expected one of lines, siemens"),
        (["simulate", "--output", "a.h5", "--preset", "scan"], 2, "preset: expected one of scan-441, scan-32"),
        (["simulate", "--output", "a.h5", "--energy", "8"], 2, "energy, distance, detector_pixel together"),
        (["simulate", "--output", "a.tif", *SMALL], 2, "expected a name that ends in .h5, .cxi, .npz"),
        (
            ["simulate", "--output", "a.h5", *SMALL, "--size", "20"],
            2,
            "of pattern 2 at (1, 6) leaves the object",
        ),
        (["inspect", "nowhere.h5"], 1, "nowhere.h5"),
        (["inspect", "SCAN", "--sweeps", "1"], 2, "--sweeps: expected a whole number >= 2, got 1"),
        (["inspect", "SCAN", "--axes=+z+x"], 2, "'+z+x'"),
        (["inspect", "SCAN", "--energy", "8"], 2, "--energy: expected none"),
        (["inspect", "SCAN", "more"], 2, "more: expected no such argument"),
        (["inspect", "RESULT"], 2, "expected a scan, got a result"),
        (["convert", "SCAN", "a.tif"], 2, "expected a result of sem ptycho reconstruct"),
        (["reconstruct", "nowhere.h5", "--output", "OUT"], 1, "nowhere.h5"),
        (["reconstruct", "DAMAGED", "--output", "OUT"], 2, "damaged.h5"),
        (["reconstruct", "LEAVING", "--output", "OUT"], 2, "of pattern 3 at (-5, -5) leaves the object"),
        (["reconstruct", "SCAN", "--output", "OUT", "--engine", "pie"], 2, "--engine: expected one of epie, rpie"),
        (["reconstruct", "SCAN", "--output", "OUT", "--beta", "0.5"], 2, "--beta: engine rpie takes alpha"),
        (["reconstruct", "SCAN", "--output", "OUT", "--alpha", "3"], 2, "alpha: expected a number > 0, at most 1"),
        (["reconstruct", "SCAN", "--output", "OUT", "--sweeps", "0"], 2, "--sweeps = 0: expected an integer >= 1"),
        (["reconstruct", "SCAN", "--output", "OUT", "--sweeps", "two"], 2, "--sweeps = 'two': expected an integer"),
        (["reconstruct", "SCAN", "--output", "OUT", "--then", "ml"], 2, "--then: expected ENGINE:SWEEPS"),
        (["reconstruct", "SCAN", "--output", "OUT", "--then", "ml:3,speed=2"], 2, "engine ml takes kind, rate"),
        (["reconstruct", "SCAN", "--output", "OUT", "--then", "ml:3,kind=cat"], 2, "kind: expected"),
        (["reconstruct", "SCAN", "--output", "OUT", "--radius", "3"], 2, "radius: expected none, since the probe is"),
        (["reconstruct", "SCAN", "--output", "OUT", "--probe", "disk", "--keep-probe"], 2, "--keep-probe: expected"),
        (["reconstruct", "SCAN", "--output", "OUT", "--probe", "start"], 2, "--probe = 'start': expected --start"),
        (["reconstruct", "SCAN", "--output", "OUT", "--start", "SCAN"], 2, "expected a result of sem"),
        (["compare", "SCAN"], 2, "expected a result of sem ptycho reconstruct, got another file"),
        (["compare", "RESULT", "--truth", "PROBELESS"], 2, "expected a scan's .h5 with its object, found none"),
    ],
)
def test_mistakes_get_one_sentence(arguments, status, words, scan, result, tmp_path, capsys):
    files = {"SCAN": scan, "RESULT": str(result / "result.h5"), "OUT": str(tmp_path / "out")}
    for name in ("DAMAGED", "LEAVING", "PROBELESS"):
        path = tmp_path / f"{name.lower()}.h5"
        path.write_bytes((tmp_path / scan).read_bytes()[: 20_000 if name == "DAMAGED" else None])
        files[name] = str(path)
    with h5py.File(files["LEAVING"], "r+") as file:
        file["positions"][3] = -5
    with h5py.File(files["PROBELESS"], "r+") as file:
        del file["object"]
    assert main(["ptycho", *(files.get(word, word) for word in arguments)]) == status
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.startswith("sem: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_names_every_setting_and_loads_no_torch(capsys):
    assert main(["ptycho"]) == 2
    assert main(["ptycho", "--help"]) == 0
    printed = capsys.readouterr()
    assert all(name in printed.out and name in printed.err for name in SUBCOMMANDS)
    for word, section in (("simulate", Simulation), ("reconstruct", Recipe)):
        with pytest.raises(SystemExit) as ending:
            main(["ptycho", word, "--help"])
        assert ending.value.code == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert all(f"--{info.name.replace('_', '-')}" in printed for info in setting_infos(section))
        assert word != "simulate" or all(name in printed for name in PRESETS)
    lines = [
        "import sys, contextlib, io",
        "from sem.cli import main",
        f"for word in {sorted(SUBCOMMANDS)}:",
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):",
        "        main(['ptycho', word, '--help'])",
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], timeout=60).returncode == 0
