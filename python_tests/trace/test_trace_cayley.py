import json

import pytest
import torch

from sem.cli import main
from sem.ops import Topology
from sem.trace import compare, read_trace
from sem.trace.cayley import trace_cayley

GRAPH = Topology.small_world(37, degree=6)


def problem(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    psi = torch.view_as_complex(torch.randn(37, 2, generator=generator).to(dtype))
    return psi, torch.rand(GRAPH.num_edges, generator=generator).to(dtype)


def values(trace):
    return {entry.name: entry.values for entry in trace.entries}


def test_kernel_and_float64_reference_agree_on_all_that_both_name():
    kernel = trace_cayley(*problem(), GRAPH, 0.05, tol=1e-6)
    reference = trace_cayley(*problem(torch.float64), GRAPH, 0.05, tol=1e-6, backend="reference")
    result = compare(kernel, reference, 1e-5, absolute=2e-6)
    assert result.first_divergence is None
    named = {row.name for row in result.rows if row.error is not None}
    assert named >= {"psi", "H psi", "rhs", "y", "psi_out", "grad psi", "grad edge_weight", "grad half_dt"}


def test_a_wrong_weight_shows_first_where_the_weights_enter():
    psi, weight = problem()
    wrong = weight.clone()
    wrong[11] += 1e-3
    result = compare(trace_cayley(psi, weight, GRAPH, 0.05), trace_cayley(psi, wrong, GRAPH, 0.05))
    assert result.first_divergence.name == "H psi"
    assert result.rows[0].error == 0


def test_residuals_of_the_iterates_fall_to_the_tolerance():
    for backend, steps in (("native", "solve"), ("reference", "cg")):
        trace = trace_cayley(*problem(), GRAPH, 0.5, tol=1e-5, backend=backend)
        residuals = [v[0] for name, v in values(trace).items() if name.startswith(steps) and name.endswith("residual")]
        assert len(residuals) > 3
        assert residuals[0] > 0.1
        assert residuals == sorted(residuals, reverse=True)
        assert residuals[-1] <= 1e-5 < residuals[-3]


@pytest.mark.parametrize(
    ("change", "words"), [({"backend": "gpu"}, "backend"), ({"psi": torch.ones(2, 37) * 1j}, "psi: expected one token")]
)
def test_wrong_arguments(change, words):
    psi, weight = problem()
    arguments = {"psi": psi, "edge_weight": weight, "topology": GRAPH, "half_dt": 0.1} | change
    with pytest.raises(ValueError, match=words):
        trace_cayley(**arguments)


def test_the_command_records_and_compares(tmp_path, capsys):
    kernel, reference, other = (str(tmp_path / name) for name in ("kernel.txt", "reference.txt", "other.txt"))
    small = ["--nodes", "21", "--degree", "4"]
    assert main(["trace", "record", "cayley", kernel, *small]) == 0
    assert main(["trace", "record", "cayley", reference, *small, "--backend", "reference", "--dtype", "float64"]) == 0
    assert main(["trace", "record", "cayley", other, *small, "--dt", "0.11"]) == 0
    tolerance = ["--tolerance", "1e-4", "--absolute", "1e-5"]
    assert main(["trace", "compare", kernel, reference, *tolerance]) == 0
    assert "no divergence" in capsys.readouterr().out
    written = [tmp_path / "c.md", tmp_path / "c.json"]
    where = ["--markdown", str(written[0]), "--json", str(written[1])]
    assert main(["trace", "compare", kernel, other, *tolerance, *where]) == 1
    assert "first divergence: rhs[" in capsys.readouterr().out
    assert json.loads(written[1].read_text())["first_divergence"] == "rhs"
    assert "| rhs | 42 |" in written[0].read_text()


def test_the_command_refuses_in_one_line(tmp_path, capsys):
    missing = str(tmp_path / "missing.txt")
    assert main(["trace", "compare", missing, missing]) == 1
    assert missing in capsys.readouterr().err
    assert main(["trace", "record", "cayley", missing, "--dtype", "float16"]) == 2
    assert "--dtype" in capsys.readouterr().err
    assert main(["trace", "record", "cayley", missing, "--dtype", "float64"]) == 2
    assert "--backend reference" in capsys.readouterr().err
    assert main(["trace", "record", "cayley", missing, "--backend", "gpu"]) == 2
    assert "expected one of native, reference" in capsys.readouterr().err


def test_a_saved_trace_is_what_was_recorded(tmp_path):
    trace = trace_cayley(*problem(), GRAPH, 0.05)
    trace.save(tmp_path / "t.txt")
    assert compare(trace, read_trace(tmp_path / "t.txt"), 0.0).first_divergence is None
