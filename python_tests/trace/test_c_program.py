"""The C program's trace as it is printed, against this package's of the same pixel."""

import gzip
import shlex

import pytest
from golden_images import GOLDEN

from sem.cli import main
from sem.diffraction import experiment_from
from sem.trace import Trace, compare, read_trace
from sem.trace.c_program import UNIT_SLIPS, parse_c_trace
from sem.trace.diffraction import trace_diffraction
from sem.trace.record import Entry

FOUNDING = GOLDEN / "founding"
LOG = FOUNDING / "c_trace_685_1039.log"
FLAGS = (FOUNDING / "founding_flags.txt").read_text().strip()
KEPT = {"F_latt", "F_cell", "I_before_scaling", "hkl_frac", "scattering_vec_A_inv", "pix0_vector_meters"}


@pytest.fixture(autouse=True)
def inputs(tmp_path, monkeypatch):
    """A folder with the files that the command line names."""
    (tmp_path / "f.hkl").write_bytes(gzip.decompress((FOUNDING / "f.hkl.gz").read_bytes()))
    (tmp_path / "A.mat").write_bytes((FOUNDING / "A.mat").read_bytes())
    monkeypatch.chdir(tmp_path)


def trace_of(mode, backend="reference"):
    model = experiment_from(shlex.split(f"{FLAGS} -phi_carryover {mode}")).simulator
    return trace_diffraction(model, (685, 1039), backend=backend)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_the_founding_trace_agrees_in_c_parity(backend):
    result = compare(read_trace(LOG), trace_of("c-parity", backend), 1e-6)
    assert result.first_divergence is None
    errors = {row.name: row.error for row in result.rows if row.error is not None}
    assert set(errors) >= KEPT and max(errors.values()) <= 1e-6 and len(errors) == 31


def test_the_first_divergence_in_spec_is_the_orientation_of_step_0():
    result = compare(read_trace(LOG), trace_of("spec"), 1e-6)
    assert result.first_divergence.name == "rot_a_angstroms"
    assert {row.name for row in result.rows if row.differs} > {"rot_b_angstroms", "hkl_frac", "F_latt"}
    assert compare(trace_of("spec"), read_trace(LOG), 1e-6).first_divergence.name == "rot_a_angstroms"


def test_the_unit_slip_is_in_the_table():
    (printed,) = (line for line in LOG.read_text().splitlines() if line.startswith("TRACE_C: scattering_vec_A_inv"))
    read = next(entry for entry in read_trace(LOG).entries if entry.name == "scattering_vec_A_inv")
    factor = UNIT_SLIPS["scattering_vec_A_inv"]
    assert list(read.values) == [float(word) * factor for word in printed.split()[2:]]


def test_steps_of_the_spindle_are_aligned():
    lines = [
        "TRACE_C: F_latt 1.5",
        "TRACE_C_PHI phi_tic=0 phi_deg=0 k_frac=2.25 F_latt=1.5",
        "TRACE_C_PHI phi_tic=1 phi_deg=0.1 k_frac=2.5 F_latt=1.25",
        "TRACE_C_PHI: F_cell 7",
        "TRACE_C_PHI: F_cell 8",
        "F_cell = 99",
    ]
    theirs = parse_c_trace(lines)
    names = [entry.name for entry in theirs.entries]
    assert names == [
        "F_latt",
        "phi_deg",
        "k_frac",
        "phi_deg[phi 1]",
        "k_frac[phi 1]",
        "F_latt[phi 1]",
        "F_cell",
        "F_cell[phi 1]",
    ]
    ours = Trace(
        entries=[
            Entry("hkl_frac[subpixel 0, phi 0]", (1.0, 2.25, 3.0)),
            Entry("F_latt[subpixel 0, phi 0]", (1.5,)),
            Entry("F_cell[subpixel 0, phi 0]", (7.0,)),
            Entry("hkl_frac[subpixel 0, phi 1]", (1.0, 2.75, 3.0)),
            Entry("F_latt[subpixel 0, phi 1]", (1.25,)),
            Entry("F_cell[subpixel 0, phi 1]", (8.0,)),
        ]
    )
    result = compare(ours, theirs)
    assert result.first_divergence.name == "k_frac[phi 1]"
    assert result.compared == 6 and [row.name for row in result.rows if row.differs] == ["k_frac[phi 1]"]


def test_the_command_reads_the_log_as_it_is(capsys):
    where = ["--pixel", "685", "1039", "--flags"]
    for mode in ("c-parity", "spec"):
        assert main(["trace", "record", "diffraction", mode, *where, f"{FLAGS} -phi_carryover {mode}"]) == 0
    assert main(["trace", "compare", str(LOG), "c-parity"]) == 0
    assert "no divergence: 31 quantities" in capsys.readouterr().out
    assert main(["trace", "record", "diffraction", "c", "--c_log", str(LOG)]) == 0
    assert main(["trace", "compare", "c", "c-parity"]) == 0
    assert "no divergence: 31 quantities" in capsys.readouterr().out
    assert main(["trace", "compare", str(LOG), "spec"]) == 1
    assert "first divergence: rot_a_angstroms" in capsys.readouterr().out


def test_the_command_wants_a_log_or_an_experiment(tmp_path, capsys):
    record = ["trace", "record", "diffraction", "out.txt"]
    assert main([*record, "--pixel", "1", "2"]) == 2
    assert "--flags: expected a value, or --c_log" in capsys.readouterr().err
    assert main([*record, "--c_log", str(LOG), "--flags", FLAGS]) == 2
    assert "--flags: expected none with --c_log" in capsys.readouterr().err
    (tmp_path / "other.txt").write_text("h = 1\n")
    assert main([*record, "--c_log", "other.txt"]) == 2
    assert "expected lines 'TRACE_C: name value ...'" in capsys.readouterr().err
    assert not (tmp_path / "out.txt").exists()


def test_of_a_sensors_layers_the_program_prints_the_last():
    flags = "-cell 60 70 80 90 90 90 -default_F 100 -lambda 1.5 -N 4 -detpixels 24 -distance 40 -oversample 2"
    model = experiment_from([*flags.split(), "-detector_thick", "200", "-thicksteps", "3"]).simulator
    printed = parse_c_trace(["TRACE_C: capture_fraction 0.144739715564991"])
    for backend in ("native", "reference"):
        ours = trace_diffraction(model, (5, 7), backend=backend)
        for left, right in ((printed, ours), (ours, printed)):
            result = compare(left, right, 1e-6)
            (row,) = (row for row in result.rows if row.name.startswith("capture_fraction") and row.error is not None)
            assert row.name == "capture_fraction" and not row.differs
