import itertools
import json
import re
from dataclasses import replace

import pytest
import torch

from sem.bench import main, peers, report
from sem.bench.cases import BENCHMARKS, GROWTH, QUICK, laplacian_matvec
from sem.bench.cases import cayley as cayley_case
from sem.bench.peaks import Bound, Peaks, Work, measure_peaks
from sem.bench.problems import complex_normal, exact_gradients, multiscale_graph
from sem.bench.registry import (
    Benchmark,
    Comparison,
    Contender,
    Expected,
    Point,
    Registry,
    relative_error,
    worst_row_error,
)
from sem.bench.runner import measure
from sem.bench.timing import Spread, interleave, paired_ratio
from sem.ops import cayley, reference

TRUTH = torch.tensor([3.0, 4.0], dtype=torch.float64)


def contender(name="right", value=(3.0, 4.0), log=None):
    """Something that computes ``value``; it is correct when that is the truth."""

    def run():
        if log is not None:
            log.append(name)
        return [torch.tensor(value)]

    return Contender(name, run, [Expected("out", TRUTH, limit=1e-6)])


def registry_of(*comparisons, name="sum"):
    return Registry([Benchmark(name, lambda: comparisons)])


def ticking(steps):
    """A clock that moves on by the next of ``steps`` at every second reading: one step per timed call."""
    durations = itertools.cycle(steps)
    now = 0.0
    while True:
        yield now
        now += next(durations)
        yield now


class TestRegistry:
    def test_selects_by_part_of_the_name_in_order(self):
        registry = Registry([Benchmark(name, list) for name in ("cayley-1", "scan", "cayley-2")])
        assert [b.name for b in registry.select(["cayley"])] == ["cayley-1", "cayley-2"]
        assert [b.name for b in registry.select(["scan", "-2"])] == ["scan", "cayley-2"]
        assert len(registry.select([])) == len(registry) == 3

    def test_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"'fft'.*cayley-1, scan"):
            Registry([Benchmark(name, list) for name in ("cayley-1", "scan")]).select(["fft"])

    def test_a_name_is_taken_once(self):
        registry = Registry([Benchmark("scan", list)])
        with pytest.raises(ValueError, match="'scan' is registered already"):
            registry.add(Benchmark("scan", list))

    @pytest.mark.parametrize("operator", ["cayley", "laplacian_matvec", "pit", "scan"])
    def test_every_operator_is_benchmarked(self, operator):
        assert BENCHMARKS.select([operator])
        assert QUICK.select([operator])
        assert {b.point.axis for b in GROWTH.select([operator])} >= {"tokens", "width"}

    def test_diffraction_grows_with_everything_that_multiplies_its_steps(self):
        assert BENCHMARKS.select(["diffraction"]) and QUICK.select(["diffraction"])
        axes = {b.point.axis for b in GROWTH.select(["diffraction"])}
        assert axes == {"pixels", "phi", "domains", "sources"}


class TestTiming:
    def test_calls_take_turns_and_warm_up_is_not_counted(self):
        log = []
        calls = [lambda: log.append("a"), lambda: log.append("b")]
        clock = ticking([100.0, 100.0, 1.0, 2.0, 3.0, 4.0])
        seconds = interleave(calls, repeats=2, warmup=1, clock=lambda: next(clock))
        assert log == ["a", "b"] * 3
        assert seconds == [[1.0, 3.0], [2.0, 4.0]]

    def test_ratio_pairs_what_was_measured_in_the_same_round(self):
        assert paired_ratio([10.0, 40.0, 90.0], [1.0, 2.0, 3.0]) == Spread(20.0, 10.0, 30.0)

    def test_spread_is_median_least_and_largest(self):
        assert Spread.of([5.0, 1.0, 2.0]) == Spread(median=2.0, min=1.0, max=5.0)


class TestErrors:
    def test_relative_error_is_norm_wise(self):
        assert relative_error(torch.tensor([3.0, 4.5]), TRUTH) == pytest.approx(0.1)

    def test_worst_row_is_not_hidden_by_the_others(self):
        truth = torch.tensor([[100.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        value = torch.tensor([[100.0, 0.0], [0.0, 1.5]])
        assert worst_row_error(value, truth) == pytest.approx(0.5)
        assert relative_error(value, truth) < 0.01

    def test_nan_is_wrong(self):
        (check,) = contender(value=(3.0, float("nan"))).checks()
        assert not check.passed


class TestPeaks:
    def test_bound_is_the_slower_of_moving_and_computing(self):
        peaks = Peaks(bytes=10.0, multiply_adds=100.0)
        assert peaks.bound(Work(bytes=20.0, multiply_adds=100.0)) == Bound(2.0, "bytes")
        assert peaks.bound(Work(bytes=20.0, multiply_adds=300.0)) == Bound(3.0, "arithmetic")

    def test_the_better_measurement_of_each_rate_counts(self):
        assert Peaks(1.0, 4.0).best(Peaks(2.0, 3.0)) == Peaks(2.0, 4.0)

    def test_measured_rates_are_those_of_a_processor(self):
        peaks = measure_peaks()
        assert 1e8 < peaks.bytes < 1e13
        assert 1e8 < peaks.multiply_adds < 1e14


class TestWork:
    """Formulas against numbers counted by hand."""

    def test_laplacian_matvec_takes_every_nonzero_once_per_row_and_component(self):
        graph, _ = multiscale_graph(64)
        nonzeros = int((reference.laplacian_dense(torch.ones(graph.num_edges), graph) != 0).sum())
        assert laplacian_matvec.forward_work(torch.zeros(5, 64), graph) == Work(2 * 4 * 5 * 64, 5 * nonzeros)
        assert laplacian_matvec.forward_work(torch.zeros(5, 64) + 0j, graph) == Work(2 * 8 * 5 * 64, 2 * 5 * nonzeros)

    def test_cayley_takes_a_product_for_the_right_side_and_two_per_iteration(self):
        graph, weight = multiscale_graph(64)
        psi = complex_normal(3, 64, seed=0)
        _, info = cayley(psi, weight, graph, 0.05, return_info=True)
        nonzeros = 2 * graph.num_edges + 64
        expected = sum(2 * nonzeros * (1 + 2 * n) for n in info.iterations.tolist())
        assert cayley_case.forward_work(psi, weight, graph, 0.05) == Work(2 * 8 * 3 * 64, expected)


class TestMeasure:
    @pytest.mark.parametrize(
        ("kind", "bar", "ratio", "met"),
        [
            ("speed-up", 3.0, 3.0, True),
            ("speed-up", 3.5, 3.0, False),
            ("time", 0.4, 1 / 3, True),
            ("time", 0.3, 1 / 3, False),
            ("time", None, 1 / 3, None),
        ],
    )
    def test_ratio_and_bar(self, kind, bar, ratio, met):
        comparison = Comparison(contender("fast"), contender("slow"), kind, bar)
        clock = ticking([1.0, 3.0])
        (line,) = measure("sum", [comparison], repeats=7, clock=lambda: next(clock))
        assert line.correct
        assert line.ratio.median == pytest.approx(ratio)
        assert (line.subject_time.median, line.peer_time.median) == (1.0, 3.0)
        assert line.met is met

    def test_a_shared_contender_is_checked_and_timed_once_per_round(self):
        log = []
        a, b, c = (contender(name, log=log) for name in "abc")
        measure("sum", [Comparison(a, b), Comparison(a, c)], repeats=7, warmup=1)
        assert log == ["a", "b", "c"] * (1 + 1 + 7)

    def test_the_time_of_a_part_is_taken_for_the_whole(self):
        part = replace(contender("part"), share=0.25)
        clock = ticking([1.0, 3.0])
        (line,) = measure("sum", [Comparison(contender(), part)], repeats=7, clock=lambda: next(clock))
        assert line.peer_time.median == 12.0
        assert line.ratio.median == 12.0

    def test_a_wrong_result_is_never_timed(self):
        log = []
        wrong, right, other = (
            contender("wrong", (3.0, 5.0), log),
            contender("right", log=log),
            contender("other"),
        )
        first, second = measure("sum", [Comparison(wrong, right), Comparison(right, other)], repeats=7)
        assert not first.correct
        assert (first.ratio, first.subject_time, first.peer_time, first.met) == (None, None, None, None)
        assert log.count("wrong") == 1
        assert second.correct
        assert second.ratio is not None

    def test_a_wrong_peer_gives_no_speed_up_either(self):
        (line,) = measure("sum", [Comparison(contender(), contender(value=(0.0, 4.0)))], repeats=7)
        assert not line.correct
        assert line.ratio is None


class TestCommand:
    def test_correct_run_exits_0_and_prints_the_ratio(self, capsys):
        comparison = Comparison(contender("fast"), contender("slow"), bar=1e-9)
        assert main(["--repeats", "7"], full=registry_of(comparison)) == 0
        out = capsys.readouterr().out
        assert "faster" in out
        assert "met" in out
        assert "1 thread(s)" in out

    def test_a_missed_bar_is_shown_and_exits_0(self, capsys):
        assert main([], full=registry_of(Comparison(contender(), contender(), bar=1e9))) == 0
        assert "missed" in capsys.readouterr().out

    def test_wrong_result_exits_1_without_a_speed_up(self, capsys, tmp_path):
        comparison = Comparison(contender("broken", (3.0, 5.0)), contender("slow"), bar=1e-9)
        path = tmp_path / "bench.json"
        assert main(["--json", str(path)], full=registry_of(comparison)) == 1
        out = capsys.readouterr().out
        assert "WRONG sum, broken: out has relative error 2.00e-01, allowed 1.00e-06" in out
        assert "faster" not in out
        assert "met" not in out
        (line,) = json.loads(path.read_text())["lines"]
        assert (line["correct"], line["ratio"], line["met"]) == (False, None, None)

    def test_json_document(self, tmp_path):
        path = tmp_path / "bench.json"
        registry = registry_of(Comparison(contender("fast"), contender("slow"), "time", 1e9))
        assert main(["--json", str(path), "--repeats", "8", "--threads", "2"], full=registry) == 0
        document = json.loads(path.read_text())
        assert document.keys() == {"schema", "machine", "settings", "lines"}
        assert document["schema"] == report.SCHEMA
        chosen = {"device": "cpu", "threads": 2, "repeats": 8, "quick": False, "growth": False, "only": []}
        assert document["settings"] == chosen
        assert {"processor", "cores", "simd", "torch", "load_before", "load_after"} <= document["machine"].keys()
        (line,) = document["lines"]
        assert (line["benchmark"], line["subject"], line["peer"]) == ("sum", "fast", "slow")
        assert (line["kind"], line["bar"], line["met"], line["correct"]) == ("time", 1e9, True, True)
        for spread in (line["ratio"], line["subject_seconds"], line["peer_seconds"]):
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert line["subject_checks"] == [{"output": "out", "error": 0.0, "limit": 1e-6, "passed": True}]

    def test_bound_and_share_are_of_the_measured_peaks(self, tmp_path, capsys):
        path = tmp_path / "bench.json"
        known = replace(contender("known"), work=Work(bytes=1e9))
        registry = registry_of(Comparison(known, contender("unknown")), Comparison(contender("unknown"), known))
        assert main(["--json", str(path)], full=registry) == 0
        document = json.loads(path.read_text())
        peaks = document["machine"]["peaks"]
        first, second = document["lines"]
        assert first["bound_seconds"] == pytest.approx(1e9 / peaks["bytes"])
        assert first["bound_by"] == "bytes"
        assert second["bound_seconds"] is None
        assert f"{1e3 * first['bound_seconds']:.2f} bytes" in capsys.readouterr().out

    def test_a_wrong_result_reaches_no_share(self, capsys):
        wrong = replace(contender("wrong", (3.0, 5.0)), work=Work(bytes=1e9))
        main([], full=registry_of(Comparison(wrong, contender())))
        assert "%" not in capsys.readouterr().out

    def test_growth_is_drawn_with_its_bounds(self, tmp_path):
        path = tmp_path / "growth.png"
        known = replace(contender("known"), work=Work(bytes=1e6))
        sums = [
            Benchmark(f"sum-width-{n}", lambda: [Comparison(known, contender("peer"))], Point("sum", "width", n))
            for n in (2, 4)
        ]
        wrong = Benchmark("sum-dt-1", lambda: [Comparison(contender(value=(0.0, 0.0)), known)], Point("sum", "dt", 1))
        assert main(["--growth", "--plot", str(path)], growth=Registry([*sums, wrong])) == 1
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_infinite_error_is_valid_json(self, tmp_path):
        path = tmp_path / "bench.json"
        wrong = contender(value=(float("nan"), 4.0))
        assert main(["--json", str(path)], full=registry_of(Comparison(wrong, contender()))) == 1
        (line,) = json.loads(path.read_text())["lines"]
        assert line["subject_checks"][0]["error"] is None

    def test_threads_are_set_while_running_and_restored(self):
        before = torch.get_num_threads()
        seen = []

        def build():
            seen.append(torch.get_num_threads())
            return [Comparison(contender(), contender())]

        main(["--threads", "3"], full=Registry([Benchmark("sum", build)]))
        assert seen == [3]
        assert torch.get_num_threads() == before

    def test_list_runs_nothing(self, capsys):
        registry = Registry([Benchmark(name, pytest.fail) for name in ("scan", "pit")])
        assert main(["--list", "--only", "pit"], full=registry) == 0
        assert capsys.readouterr().out == "pit\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--only", "fft"], "no benchmark has 'fft'"),
            (["--repeats", "6"], "expected at least 7, got 6"),
            (["--threads", "two"], "expected an integer, got 'two'"),
            (["--json", "/no/such/folder/bench.json"], "expected a file in a folder that exists"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            main(arguments)

    def test_plot(self, tmp_path):
        path = tmp_path / "bench.png"
        registry = registry_of(
            Comparison(contender("a"), contender("b"), bar=2.0),
            Comparison(contender("c"), contender("d"), "time"),
            Comparison(contender("wrong", (0.0, 0.0)), contender("e")),
        )
        assert main(["--plot", str(path)], full=registry) == 1
        assert path.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("options", [[], ["--growth"]])
    def test_quick_benchmarks_are_correct(self, options, capsys):
        assert main(["--quick", "--repeats", "7", *options]) == 0
        assert "WRONG" not in capsys.readouterr().out


class TestPeersAndProblems:
    @pytest.mark.parametrize("nodes", [64, peers.MOST_DENSE_NODES + 1])
    def test_eager_cg_solves_the_cayley_step(self, nodes):
        graph, weight = multiscale_graph(nodes)
        psi = complex_normal(5, nodes, seed=0)
        matrix, diagonal = peers.laplacian_matrix(weight, graph), peers.laplacian_diagonal(weight, graph)
        out = peers.eager_cg(psi, matrix, diagonal, 0.05, 1e-6)
        truth = reference.cayley(psi.to(torch.complex128), weight.double(), graph, 0.05)
        assert worst_row_error(out, truth) < 5e-6

    @pytest.mark.parametrize("make", [peers.cayley_unitary, peers.built_unitary])
    def test_dense_unitary_is_the_operator(self, make):
        graph, weight = multiscale_graph(64)
        psi = complex_normal(5, 64, seed=0)
        stepped = cayley(psi, weight, graph, 0.05, 1e-6)
        assert relative_error(psi @ make(weight, graph, 0.05), stepped) < 1e-5

    def test_scipy_solves_the_cayley_step(self):
        graph, weight = multiscale_graph(64)
        psi = complex_normal(5, 64, seed=0)
        truth = reference.cayley(psi.to(torch.complex128), weight.double(), graph, 0.05)
        assert worst_row_error(peers.scipy_cg(psi, weight, graph, 0.05, 1e-6), truth) < 5e-6

    def test_columns_and_rows_are_inverse(self):
        psi = complex_normal(3, 4, seed=0)
        assert torch.equal(peers.rows(peers.columns(psi)), psi)

    def test_graph_has_the_nonzeros_of_the_model(self):
        graph, weight = multiscale_graph(256)
        assert 36 <= 2 * graph.num_edges / 256 + 1 <= 40
        assert bool((weight > 0).all())

    def test_gradients_in_chunks_are_the_gradients(self):
        x, w = torch.randn(7, 3), torch.randn(3)
        grad = torch.randn(7, 3)
        to_x, to_w = exact_gradients(lambda x, w: x**2 * w, [x, w], grad, row_inputs=1, chunk=3)
        assert relative_error(2 * x * w * grad, to_x) < 1e-6
        assert relative_error((x**2 * grad).sum(0), to_w) < 1e-6
