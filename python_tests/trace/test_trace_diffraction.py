import shlex

import pytest
import torch

from sem.cli import main
from sem.diffraction import experiment_from
from sem.trace import compare, read_trace
from sem.trace.diffraction import trace_diffraction

CUBIC = "-cell 100 100 100 90 90 90 -default_F 100 -lambda 6.2 -N 5 -detpixels 256 -pixel 0.4"
TRICLINIC = (
    "-misset -89.968546 -31.328953 177.753396 -cell 70 80 90 75 85 95 -default_F 100 -N 5 -lambda 1.0 -detpixels 256"
)
TURNED = f"{TRICLINIC} -oversample 1 -osc 1 -phisteps 3 -mosaic 0.3 -mosaic_domains 2"
# what the kernel and the reference have to agree on to 1e-6
KEPT = ("F_cell", "F_latt_a", "F_latt_b", "F_latt_c", "I_before_scaling", "omega_pixel_sr", "polar")


def simulator(flags):
    return experiment_from(shlex.split(flags)).simulator


def ten_pixels(image):
    """A corner, the image's faintest pixel and others of the background, the tops of spots and their flanks."""
    slow, fast = image.shape
    order = image.flatten().argsort()
    top, faint = divmod(int(order[-1]), fast), divmod(int(order[0]), fast)
    half = (image - image.max() / 2).abs().argmin()
    steep = (image[:, 1:] - image[:, :-1]).abs().argmax()
    middle = divmod(int(order[order.numel() // 2]), fast)
    return [
        (0, 0),
        (slow - 1, fast - 1),
        (slow // 2, fast // 2),
        top,
        faint,
        middle,
        divmod(int(half), fast),
        divmod(int(steep), fast - 1),
        divmod(int(order[-1 - order.numel() // 100]), fast),
        (slow // 3, fast // 5),
    ]


@pytest.mark.parametrize("flags", [CUBIC, TRICLINIC, TURNED], ids=["cubic", "triclinic", "turned"])
def test_the_kernel_keeps_to_the_float64_reference_at_ten_pixels(flags):
    model = simulator(flags)
    image = model().detach()
    for pixel in ten_pixels(image):
        kernel = trace_diffraction(model, pixel)
        reference = trace_diffraction(model, pixel, backend="reference")
        result = compare(kernel, reference, 1e-6)
        assert [row.name for row in result.rows if row.error is None] == []
        kept = [row for row in result.rows if row.name.partition("[")[0] in KEPT]
        assert {row.name.partition("[")[0] for row in kept} == set(KEPT)
        assert [(row.name, row.error) for row in kept if row.differs] == []
        assert kernel.entries[-1].name == "I_pixel_final"
        assert kernel.entries[-1].values == (float(image[pixel]),)


def test_carry_over_shows_first_at_spindle_step_0():
    spec, carried = (simulator(f"{TURNED} -phi_carryover {mode}") for mode in ("spec", "c-parity"))
    for backend in ("native", "reference"):
        traces = [trace_diffraction(model, (100, 37), backend=backend) for model in (spec, carried)]
        result = compare(*traces, 1e-6)
        assert result.first_divergence.name == "rot_a_angstroms[phi 0, mosaic 0]"
        later = [row.name for row in result.rows if row.differs and "phi" in row.name and "phi 0" not in row.name]
        assert all(name.startswith("I_running") for name in later)
    first = compare(trace_diffraction(spec, (0, 0)), trace_diffraction(carried, (0, 0)), 0.0)
    assert first.first_divergence is None


# Between the rings of a ball sine and cosine cancel, and an intensity has twice the error of its amplitude.
@pytest.mark.parametrize(
    ("shape", "tolerance"), [("-round_xtal", 1e-5), ("-gauss_xtal -fudge 1e-4", 2e-6), ("-tophat_spots", 1e-6)]
)
def test_other_shapes_agree_too(shape, tolerance):
    model = simulator(f"{TRICLINIC} {shape}")
    for pixel in ten_pixels(model().detach())[:4]:
        kernel, reference = (trace_diffraction(model, pixel, backend=name) for name in ("native", "reference"))
        assert compare(kernel, reference, tolerance, absolute=1e-12).first_divergence is None


def test_the_reference_in_both_precisions():
    model = simulator(CUBIC)
    single, double = (
        trace_diffraction(model, (9, 8), backend="reference", dtype=dtype) for dtype in (torch.float32, torch.float64)
    )
    assert single.header["dtype"] == "torch.float32" and double.header["dtype"] == "torch.float64"
    error = compare(single, double, 1e-6)
    assert error.first_divergence is None
    assert max(row.error for row in error.rows) > 1e-9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pixel": (256, 0)}, r"pixel: expected \(slow, fast\) inside 256 x 256"),
        ({"pixel": (0, 0)}, "pixel: expected one that is computed, got"),
        ({"backend": "gpu"}, "backend: expected one of 'native', 'reference'"),
        ({"dtype": torch.float64}, "dtype: expected torch.float32, or of the reference torch.float64"),
    ],
)
def test_wrong_arguments(options, sentence):
    arguments = {"pixel": (3, 4)} | options
    with pytest.raises(ValueError, match=sentence):
        trace_diffraction(simulator(f"{CUBIC} -roi 1 9 1 9"), **arguments)


def test_the_command_records_and_compares(tmp_path, capsys):
    kernel, exact, carried = (str(tmp_path / name) for name in ("kernel.txt", "exact.txt", "carried.txt"))
    record = ["trace", "record", "diffraction"]
    where = ["--pixel", "100", "37", "--flags"]
    assert main([*record, kernel, *where, TURNED]) == 0
    assert main([*record, exact, *where, TURNED, "--backend", "reference", "--dtype", "float64"]) == 0
    assert main([*record, carried, *where, f"{TURNED} -phi_carryover c-parity"]) == 0
    assert main(["trace", "compare", kernel, exact, "--tolerance", "1e-6"]) == 0
    assert "no divergence" in capsys.readouterr().out
    assert main(["trace", "compare", kernel, carried]) == 1
    assert "first divergence: rot_a_angstroms[phi 0, mosaic 0]" in capsys.readouterr().out
    assert read_trace(carried).header["phi_carryover"] == "c-parity"


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    record = ["trace", "record", "diffraction", str(tmp_path / "t.txt"), "--pixel", "1", "2", "--flags"]
    assert main([*record, "-lamda 1"]) == 2
    assert "did you mean -lambda?" in capsys.readouterr().err
    assert main([*record, CUBIC, "--dtype", "float16"]) == 2
    assert "--dtype" in capsys.readouterr().err


def test_simulate_prints_the_trace_that_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["diffraction", "simulate", *CUBIC.split(), "-trace_pixel", "5", "6", "-floatfile", "f.bin"]) == 0
    (tmp_path / "log.txt").write_text(capsys.readouterr().out)
    printed = read_trace(tmp_path / "log.txt")
    recorded = trace_diffraction(simulator(CUBIC), (5, 6))
    assert compare(printed, recorded, 0.0).first_divergence is None
    assert [entry.name for entry in printed.entries if entry.name != "volume"] == [
        entry.name for entry in recorded.entries
    ]
