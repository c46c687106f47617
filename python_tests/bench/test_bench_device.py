"""The benchmarks of a GPU: their problems and peers, tried on the CPU, and what is said where there is no GPU."""

import pytest
import torch

from sem.bench import device_run, main, peers
from sem.bench.cases import device as device_cases
from sem.bench.cases.scan import scan_inputs
from sem.bench.peaks import Bound, Peaks, Work
from sem.bench.problems import complex_normal, multiscale_graph
from sem.bench.runner import measure
from sem.ops import cayley

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without an NVIDIA GPU")


@pytest.mark.parametrize("benchmark", list(device_cases.quick("cpu")), ids=lambda benchmark: benchmark.name)
def test_problems_and_peers_are_right(benchmark):
    lines = measure(benchmark.name, benchmark.build(), repeats=1, warmup=0)
    assert lines and all(line.correct for line in lines)


def test_the_full_benchmarks_have_the_bars_of_a_gpu():
    names = [benchmark.name for benchmark in device_cases.benchmarks("cuda")]
    assert {"cayley-65536x256-dt0.1", "cayley-65536x1024-dt0.1"} <= set(names)
    assert len(names) == len(device_cases.quick("cuda")) + 1


@pytest.mark.parametrize("chunk", [1, 4, 64])
def test_chunks_do_not_change_the_scan(chunk):
    inputs = scan_inputs(2, 64, 32)
    expected = peers.loop_scan(*inputs)
    torch.testing.assert_close(peers.chunked_scan(*inputs, chunk=chunk), expected, rtol=1e-4, atol=1e-5)


def test_shared_memory_bounds_what_reads_it_most():
    peaks = Peaks(bytes=10.0, multiply_adds=100.0, local_bytes=20.0)
    assert peaks.bound(Work(bytes=20.0, multiply_adds=300.0, local_bytes=80.0)) == Bound(4.0, "shared memory")
    assert Peaks(10.0, 100.0).bound(Work(20.0, 300.0, 80.0)) == Bound(3.0, "arithmetic")


def test_a_neighbour_is_eight_bytes_of_shared_memory_in_every_product():
    graph, weight = multiscale_graph(64)
    psi = complex_normal(3, 64, seed=0)
    _, info = cayley(psi, weight, graph, 0.05, return_info=True)
    taken = sum(2 * graph.num_edges * (1 + 2 * n) for n in info.iterations.tolist())
    work = device_cases.forward_work(psi, weight, graph, 0.05)
    assert work == Work(bytes=2 * 8 * 3 * 64, multiply_adds=2 * taken, local_bytes=8 * taken)


@no_gpu
def test_without_a_gpu_one_sentence_says_so():
    with pytest.raises(ValueError, match="sees no NVIDIA GPU on this machine; nothing was measured"):
        main(["--device", "cuda"])
    assert device_run.described("cpu") == {}


def test_names_can_be_listed_without_a_gpu(capsys):
    assert main(["--device", "cuda", "--list", "--only", "65536x1024"]) == 0
    assert capsys.readouterr().out == "cayley-65536x1024-dt0.1\n"


def test_growth_is_measured_on_the_cpu_alone():
    with pytest.raises(ValueError, match="--growth: expected --device cpu"):
        main(["--device", "cuda", "--growth"])
