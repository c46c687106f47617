"""What the operators promise on a device, held against the float64 references: once on CUDA (``pytest -m cuda``, where
there is a GPU), and once with the same kernel bodies on a SYCL CPU device."""

from __future__ import annotations

import diffraction_problems as images
import pytest
import torch
from helpers import double, generator, graph, relative_error, row_errors, rows, strength_limit, weights
from places import needs_cuda
from scan_problems import Problem, run, same_bits, weights_for
from state_space_problems import Problem as StateProblem
from token_operators import TOKEN_OPERATORS, weight_like

from sem import native
from sem.ops import (
    Region,
    cayley,
    diffraction,
    laplacian_cg,
    laplacian_matvec,
    pit,
    reference,
    reference_diffraction,
    scan,
    soliton_step,
    state_space,
)
from sem.ops.pit import pit_forward

pytestmark = pytest.mark.own_backend


def results(call, inputs, cotangent, place):
    """The value and the gradients of ``call``, on the CPU."""
    leaves = [place(tensor.detach().clone()).requires_grad_() for tensor in inputs]
    out = call(*leaves)
    return [out.detach().cpu(), *(grad.cpu() for grad in torch.autograd.grad(out, leaves, place(cotangent)))]


def hold(values, exact, limits, cotangent):
    """A limit is one of the relative error, or a function of (truth, cotangent, output) that bounds the error."""
    for value, truth, limit in zip(values, exact, limits, strict=True):
        if callable(limit):
            assert abs(float(value - truth)) <= limit(truth, cotangent, exact[0])
        else:
            assert relative_error(value, truth) <= limit


def here(value):
    return value


# (operator, its twin, inputs, limits) of a problem with `tokens` rows of `width` entries.
def cayley_problem(tokens, width):
    topology = graph(width)
    inputs = [rows(tokens, width), weights(topology), torch.tensor(0.05)]
    return (
        lambda psi, weight, a: cayley(psi, weight, topology, a, 1e-6),
        lambda psi, weight, a: reference.cayley(psi, weight, topology, a),
        inputs,
        (4e-6, 2e-5, 2e-5, 1e-3),
    )


def laplacian_matvec_problem(tokens, width):
    topology = graph(width)
    return (
        lambda x, weight: laplacian_matvec(x, weight, topology),
        lambda x, weight: reference.laplacian_matvec(x, weight, topology),
        [rows(tokens, width), weights(topology)],
        (2e-6, 2e-6, 1e-5),
    )


def laplacian_cg_problem(tokens, width):
    topology = graph(width)
    return (
        lambda b, weight: laplacian_cg(b, weight, topology, 1.0, 0.3, 0.1, tol=1e-6),
        lambda b, weight: reference.laplacian_cg(b, weight, topology, 1.0, 0.3, 0.1),
        [rows(tokens, width), weights(topology)],
        (5e-6, 2e-5, 2e-5),
    )


def pit_problem(tokens, width):
    psi = rows(tokens, width) + 0.7
    rms = 0.5 + torch.rand(tokens, generator=generator(2))
    kerr = 0.1 * torch.randn(width, generator=generator(3))

    def with_kerr(function):
        return lambda psi, rms, strength, kerr: function(psi, rms, strength, kerr=kerr)

    return (
        with_kerr(pit),
        with_kerr(reference.pit),
        [psi, rms, torch.tensor(0.7), kerr],
        (2e-6, 2e-5, 2e-5, strength_limit, 2e-5),
    )


def strength_limit_of_step(exact, cotangent, out):
    return strength_limit(exact, cotangent, out, rounding=1e-6)  # the step's tolerance


def soliton_step_problem(tokens, width):
    topology = graph(width)
    kerr = 0.1 * torch.randn(width, generator=generator(3))
    return (
        lambda psi, kerr, strength, weight, a: soliton_step(psi, kerr, strength, weight, topology, a, 1e-6),
        lambda psi, kerr, strength, weight, a: reference.soliton_step(psi, kerr, strength, weight, topology, a),
        [rows(tokens, width) + 0.7, kerr, torch.tensor(0.7), weights(topology), torch.tensor(0.05)],
        (6e-6, 3e-5, 3e-5, strength_limit_of_step, 3e-5, 1e-3),
    )


PROBLEMS = {
    "cayley": cayley_problem,
    "laplacian_matvec": laplacian_matvec_problem,
    "laplacian_cg": laplacian_cg_problem,
    "pit": pit_problem,
    "soliton_step": soliton_step_problem,
}
operators = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())


@operators
@pytest.mark.parametrize("tokens", [1, 13])
@pytest.mark.parametrize("width", [2, 33, 256])
def test_values_and_gradients(problem, tokens, width, place):
    operator, twin, inputs, limits = problem(tokens, width)
    cotangent = rows(tokens, width, seed=9)
    exact = results(twin, [double(tensor) for tensor in inputs], double(cotangent), here)
    hold(results(operator, inputs, cotangent, place), exact, limits, cotangent)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 67, 6, 3), (2, 200, 66, 2)])
def test_scan_and_its_gradients(sizes, place):
    problem = Problem.random(*sizes)
    cotangents = weights_for(problem)
    moved = Problem(*(place(tensor) for tensor in problem.inputs()))
    values = run(scan, moved, [place(tensor) for tensor in cotangents])
    exact = run(reference.scan, problem.double(), cotangents)
    for value, truth in zip((*values[0], *values[1]), (*exact[0], *exact[1]), strict=True):
        assert relative_error(value.cpu(), truth) <= 1e-5


@pytest.mark.parametrize("mode", ["nanobragg", "exact"])
@pytest.mark.parametrize("name", images.PROBLEMS)
def test_diffraction_and_its_gradients(name, mode, place):
    problem, options = images.PROBLEMS[name], images.OPTIONS | {"mode": mode}
    truth = reference_diffraction.diffraction(*problem, **options)
    image = diffraction(*images.placed(problem, place), **options)
    assert image.dtype == torch.float32 and images.relative_error(image.cpu(), truth) <= 5e-7
    direction = torch.randn(problem[0].shape, generator=generator(1))
    exact, _ = images.gradients(reference_diffraction.diffraction, problem, options, direction)
    values, _ = images.gradients(diffraction, problem, options, direction, place)
    for key, value in values.items():
        assert images.relative_error(value.cpu(), exact[key]) <= 1e-5, key


@pytest.mark.parametrize("name", ["square", "table", "tricubic and outside", "carry-over"])
def test_a_pixels_bits_depend_on_that_pixel_alone(name, place):
    problem = images.placed(images.PROBLEMS[name], place)
    whole = diffraction(*problem, **images.OPTIONS)
    mask = torch.rand(whole.shape, generator=generator(2)) < 0.7
    mask[0, 0] = True  # the first pixel is special to orientations that are carried over
    if name != "tricubic and outside":  # where the first reflection outside the table matters to those after it
        chosen = diffraction(*problem, Region(mask=place(mask)), **images.OPTIONS).cpu()
        assert same_bits(chosen, torch.where(mask, whole.cpu(), 0))
    direction = torch.randn(whole.shape, generator=generator(3))
    once, again = (
        images.gradients(diffraction, images.PROBLEMS[name], images.OPTIONS, direction, place)[0] for _ in range(2)
    )
    assert same_bits(diffraction(*problem, **images.OPTIONS).cpu(), whole.cpu())
    assert all(torch.equal(once[key].cpu(), again[key].cpu()) for key in once)


@operators
def test_a_rows_bits_depend_on_that_row_alone(problem, place):
    operator, _, inputs, _ = problem(21, 40)
    per_row = [tensor.dim() > 0 and tensor.shape[0] == 21 for tensor in inputs]  # no other length is 21
    whole = operator(*map(place, inputs))
    for chosen in (slice(0, 1), slice(5, 14)):
        some = [tensor[chosen] if own else tensor for tensor, own in zip(inputs, per_row, strict=True)]
        assert same_bits(operator(*map(place, some)).cpu(), whole[chosen].cpu())


@operators
def test_repeated_gradients_have_the_same_bits(problem, place):
    operator, _, inputs, _ = problem(40, 65)
    cotangent = rows(40, 65, seed=9)
    once, again = (results(operator, inputs, cotangent, place) for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(once, again, strict=True))


@operators
def test_bits_are_the_same_under_autocast(problem, place):
    operator, _, inputs, _ = problem(9, 40)
    moved = [place(tensor) for tensor in inputs]
    plain = operator(*moved)
    with torch.autocast(moved[0].device.type, dtype=torch.bfloat16):
        assert same_bits(operator(*moved).cpu(), plain.cpu())


@operators
def test_a_row_of_nan_stays_alone(problem, place):
    operator, _, inputs, _ = problem(9, 40)
    clean = operator(*map(place, inputs)).cpu()
    inputs[0][4, 7] = torch.nan
    spoilt = operator(*map(place, inputs)).cpu()
    others = torch.arange(9) != 4
    assert torch.isnan(torch.view_as_real(spoilt[4])).any()
    assert same_bits(spoilt[others], clean[others])


@operators
def test_no_rows(problem, place):
    operator, _, inputs, _ = problem(0, 40)
    values = results(operator, inputs, rows(0, 40), place)
    assert values[0].shape == (0, 40)
    assert all(not grad.any() for grad in values[1:])


@pytest.mark.parametrize("width", [512, 1024, 2048, 4096])
def test_wide_rows(width, place):
    operator, twin, inputs, _ = pit_problem(3, width)
    exact = torch.cat(
        [twin(*(double(t[d : d + 1]) if t.shape[:1] == (3,) else double(t) for t in inputs)) for d in range(3)]
    )
    assert row_errors(operator(*map(place, inputs)).cpu(), exact).max() <= 3e-6
    operator, twin, inputs, _ = cayley_problem(3, width)
    out = operator(*map(place, inputs)).cpu()
    assert (out.norm(dim=-1) / inputs[0].norm(dim=-1) - 1).abs().max() <= 1e-6
    back = operator(place(out), place(inputs[1]), place(-inputs[2])).cpu()
    assert row_errors(back, inputs[0]).max() <= 5e-6


@pytest.mark.skipif(not native.is_built("cuda") or torch.cuda.is_available(), reason="needs CUDA kernels and no GPU")
def test_without_a_gpu_the_module_loads_and_errors_name_the_operator():
    psi = torch.zeros(1, 8, 2)
    fields = {"rows": 1, "width": 8, "num_bins": 32, "rule": 0, "psi": psi, "strength": torch.zeros(1), "out": psi}
    with pytest.raises(RuntimeError, match="^pit_forward: CUDA refused the launch: "):
        native.backend("cuda").pit_forward(0, 0, 1, lambda floats: 0, **fields)


# Below, what only CUDA has.


@pytest.mark.cuda
@needs_cuda
class TestCuda:
    @operators
    def test_works_under_graph_capture(self, problem):
        operator, _, inputs, _ = problem(9, 40)
        moved = [tensor.cuda() for tensor in inputs]
        expected = operator(*moved)
        operator(*moved)
        graph_of_work = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph_of_work):
            out = operator(*moved)
        out.zero_()
        graph_of_work.replay()
        assert same_bits(out, expected)

    @operators
    def test_works_under_compile(self, problem):
        operator, _, inputs, _ = problem(9, 40)
        moved = [tensor.cuda() for tensor in inputs]
        assert same_bits(torch.compile(operator, fullgraph=True, backend="aot_eager")(*moved), operator(*moved))

    @operators
    def test_uses_the_current_stream(self, problem):
        operator, _, inputs, _ = problem(9, 40)
        moved = [tensor.cuda() for tensor in inputs]
        expected = operator(*moved)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(10_000_000)  # what is not on this stream would come too early
            moved[0] = moved[0] * 2
            out = operator(*[moved[0] / 2, *moved[1:]])
        stream.synchronize()
        assert same_bits(out, expected)

    @operators
    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
    def test_works_beside_another_current_device(self, problem):
        operator, _, inputs, _ = problem(9, 40)
        first, second = (operator(*[tensor.to(f"cuda:{index}") for tensor in inputs]) for index in (0, 1))
        assert torch.cuda.current_device() == 0 and second.device.index == 1
        assert same_bits(second.cpu(), first.cpu())

    @operators
    def test_nothing_waits_for_the_device(self, problem):
        operator, _, inputs, _ = problem(9, 40)
        leaves = [tensor.cuda().requires_grad_() for tensor in inputs]
        operator(*leaves)  # the graph's copy on the device is made once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = operator(*leaves)
            torch.autograd.grad(out, leaves, torch.ones_like(out))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_layer_and_its_gradients_under_graph_capture(self):
        operator, _, inputs, _ = soliton_step_problem(9, 40)
        leaves = [tensor.cuda().requires_grad_() for tensor in inputs]
        cotangent = rows(9, 40, seed=9).cuda()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            expected = torch.autograd.grad(operator(*leaves), leaves, cotangent)
        torch.cuda.current_stream().wait_stream(stream)
        graph_of_work = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph_of_work):
            grads = torch.autograd.grad(operator(*leaves), leaves, cotangent)
        for grad in grads:
            grad.zero_()
        graph_of_work.replay()
        assert all(same_bits(grad, once) for grad, once in zip(grads, expected, strict=True))

    def test_a_launch_that_is_refused_is_an_error_with_the_operators_name(self):
        psi, none, strength = torch.ones(3, 8, 2).cuda(), torch.empty(0).cuda(), torch.ones(()).cuda()
        with pytest.raises(RuntimeError, match="pit_forward: CUDA refused the launch"):
            pit_forward(psi, none, strength, none, 10**6, 0)  # bins for which no GPU has the shared memory
        assert torch.isfinite(pit_forward(psi, none, strength, none, 32, 0)).all()

    @pytest.mark.parametrize("operator", TOKEN_OPERATORS, ids=str)
    def test_what_has_no_kernel_is_composed(self, operator):
        inputs = operator.problem()
        weight = weight_like(operator.native(*inputs))
        here = operator.gradients(operator.native, inputs, weight)
        there = operator.gradients(operator.native, [tensor.cuda() for tensor in inputs], weight.cuda())
        for value, expected in zip(there, here, strict=True):
            assert relative_error(value.cpu(), double(expected)) <= 1e-4

    def test_the_state_space_is_composed(self):
        problem = StateProblem.random(2, 70, 2, 8, 4)
        here = state_space(*problem.inputs())
        there = state_space(*(tensor.cuda() for tensor in problem.inputs()))
        for value, expected in zip(there, here, strict=True):
            assert relative_error(value.cpu(), double(expected)) <= 1e-4

    def test_bad_input_is_refused_in_words(self):
        topology = graph(17)
        with pytest.raises(ValueError, match="edge_weight: expected device cuda:0"):
            cayley(rows(3, 17).cuda(), weights(topology), topology, 0.1)
        with pytest.raises(TypeError, match="psi: expected complex64"):
            pit(double(rows(3, 17)).cuda(), None, 1.0)
