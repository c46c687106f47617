"""What networks are trained by: patterns' order, merging of patches, losses that no batch weighs differently."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_scans import small_scan, true_patches

from sem.ops import Patches
from sem.ptycho.merging import merge_patches
from sem.ptycho.stitching import moved
from sem.ptycho.training.data import PatternBatches, nearest, neighbours, split
from sem.ptycho.training.floors import loss_floors
from sem.ptycho.training.objective import PhysicsObjective

KINDS = ("amplitude_mae", "amplitude", "poisson")


def objective(data, kind="amplitude_mae"):
    return PhysicsObjective(data, kind, torch.arange(len(data.scan)))


def groups(data, side=2):
    return neighbours(data.scan.positions, side)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_truth_costs_next_to_nothing_and_zeros_cost_one(kind, grouped):
    data = small_scan()
    batch = groups(data)[:9] if grouped else torch.arange(36).unsqueeze(1)
    found = objective(data, kind)
    truth = true_patches(data, batch.flatten())
    total, each = found.compare(truth, batch)
    assert float(total) / batch.numel() < (0.03 if kind == "amplitude_mae" else 0.01)
    assert torch.isclose(total, each.sum(), rtol=1e-5)
    if kind != "poisson":
        everything = torch.arange(len(data.scan)).unsqueeze(1)
        zeros = 0 * true_patches(data, everything.flatten())
        assert float(found.compare(zeros, everything)[0]) / len(everything) == pytest.approx(1.0, rel=1e-5)


def test_supervised_loss_is_zero_at_the_truth_and_one_for_zeros():
    data = small_scan()
    everything = torch.arange(len(data.scan)).unsqueeze(1)
    truth = true_patches(data, everything.flatten())
    found = objective(data, "supervised")
    assert float(found.compare(truth, everything)[0]) == 0
    assert float(found.compare(0 * truth, everything)[0]) / len(truth) == pytest.approx(1.0, rel=1e-5)


def test_between_pixels_merged_patches_explain_the_patterns():
    data = small_scan(fraction=0.9 * torch.rand(49, 2, generator=torch.Generator().manual_seed(0)))
    batch = groups(data, 3)[10:14]
    # each patch in its probe's frame: the object moved back by the part of a pixel
    patches = moved(true_patches(data, batch.flatten()), -(data.scan.positions - data.scan.corners)[batch.flatten()])
    found = objective(data)
    right = float(found.compare(patches, batch)[0]) / batch.numel()
    found.between_pixels = False  # as if the fraction were forgotten
    wrong = float(found.compare(patches, batch)[0]) / batch.numel()
    assert right < 0.25 * wrong


@pytest.mark.parametrize("grouped", [False, True])
def test_gradient_to_patches_is_that_of_the_reference(grouped):
    data = small_scan(rows=3)
    batch = groups(data)[:2] if grouped else torch.arange(4).unsqueeze(1)
    generator = torch.Generator().manual_seed(0)
    patches = true_patches(data, batch.flatten())
    patches = patches + 0.3 * torch.randn(patches.shape, dtype=torch.complex64, generator=generator)
    found = objective(data, "amplitude")
    own = patches.clone().requires_grad_()
    found.compare(own, batch)[0].backward()

    wide = patches.to(torch.complex128).requires_grad_()
    power, side = data.power.double(), data.scan.side
    corners = data.scan.corners
    total = torch.zeros((), dtype=torch.float64)
    for g, group in enumerate(batch):
        parts = wide[g * batch.shape[1] : (g + 1) * batch.shape[1]]
        if grouped:
            merged = torch.zeros(40, 40, dtype=torch.complex128)
            light = torch.zeros(40, 40, dtype=torch.float64)
            for j, part in zip(group.tolist(), parts, strict=True):
                y, x = corners[j].tolist()
                merged[y : y + side, x : x + side] = merged[y : y + side, x : x + side] + power * part
                light[y : y + side, x : x + side] += power
            merged = merged / light.clamp_min(1e-6 * light.max())
            places = [corners[j].tolist() for j in group.tolist()]
            seen = torch.stack([merged[y : y + side, x : x + side] for y, x in places])
        else:
            seen = parts
        far = torch.fft.fft2(seen * data.probe.to(torch.complex128), norm="ortho").abs()
        total = total + 0.5 * (far - data.scan.amplitudes[group].double()).square().sum()
    (total / found.unit_loss).backward()
    assert (own.grad - wide.grad).abs().max() < 2e-4 * wide.grad.abs().max()


def test_merging_is_linear_and_its_gradient_the_adjoint():
    generator = torch.Generator().manual_seed(1)
    patches = Patches(torch.randint(0, 9, (6, 2), generator=generator), 5, (13, 14))
    weight = torch.rand(5, 5, generator=generator)
    values = torch.randn(6, 5, 5, dtype=torch.complex64, generator=generator).requires_grad_()
    other = torch.randn(13, 14, dtype=torch.complex64, generator=generator)
    merged = merge_patches(values, weight, patches)
    (gradient,) = torch.autograd.grad(merged, values, other)
    # <other, M values> = <M^H other, values>
    inner = (merged.conj() * other).sum()
    assert torch.isclose((values.conj() * gradient).sum(), inner, rtol=1e-4)
    assert torch.allclose(merge_patches(3j * values, weight, patches), 3j * merged, atol=1e-5)


def test_patches_of_one_object_merge_to_it():
    data = small_scan()
    everything = torch.arange(len(data.scan))
    where = Patches(data.scan.corners, data.scan.side, data.truth.shape)
    merged = merge_patches(true_patches(data, everything), data.power, where)
    assert (merged - data.truth)[6:-8, 6:-8].abs().max() < 1e-5


def test_a_short_batch_weighs_a_pattern_as_a_full_one_does():
    data = small_scan()
    found = objective(data)
    patches = 0.9 * true_patches(data, torch.arange(17))
    whole = found(lambda x: patches.unsqueeze(1), torch.arange(17).unsqueeze(1), None)["loss"]
    parts = []
    for part in torch.arange(17).split(8):
        some = patches[part].unsqueeze(1)
        parts.append(float(found(lambda x, some=some: some, part.unsqueeze(1), None)["loss"]) * len(part))
    assert float(whole) == pytest.approx(sum(parts) / 17, rel=1e-5)


def test_masked_pixels_do_not_count():
    weight = torch.ones(16, 16)
    weight[3:5] = 0
    data = small_scan(weight=weight)
    broken = data.scan.amplitudes.clone()
    broken[:, 3:5] = 1e6
    wrong = type(data)("broken", type(data.scan)(broken, data.scan.positions, weight), data.probe, data.truth)
    batch = groups(data)[:4]
    truth = true_patches(data, batch.flatten())
    assert torch.equal(objective(data).compare(truth, batch)[1], objective(wrong).compare(truth, batch)[1])
    assert torch.equal(data.inputs(2.0), wrong.inputs(2.0))


def test_floors_lie_in_their_order():
    data = small_scan()
    found = loss_floors(objective(data), torch.arange(len(data.scan)))
    assert found["noise"] < found["constant"] < found["zeros"] == pytest.approx(1.0, rel=1e-5)
    assert found["noise"] < found["mean_pattern"] < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.9), st.integers(0, 99))
def test_split_holds_every_pattern_once(count, share, seed):
    train, held_out = split(count, share, seed)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(count))
    assert len(train) >= 1
    assert torch.equal(split(count, share, seed)[0], train)


def test_neighbours_of_a_raster_are_squares():
    grid = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0)) * 3
    assert neighbours(grid, 2)[7].tolist() == [7, 8, 13, 14]
    assert neighbours(grid, 3)[7].tolist() == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert neighbours(grid, 4)[14].tolist() == [7, 8, 9, 10, 13, 14, 15, 16, 19, 20, 21, 22, 25, 26, 27, 28]
    assert all(len(set(row)) == 16 for row in neighbours(grid, 4).tolist())
    assert neighbours(grid[:3], 2).shape == (3, 3)  # fewer positions than a group has
    assert nearest(torch.tensor([[3.1, 0.2]]), grid, 1).tolist() == [[6]]


def test_batches_bring_each_pattern_once_an_epoch_and_go_on_where_they_were():
    patterns = torch.arange(100, 110)
    batches = PatternBatches(patterns, None, size=4, seed=5)
    source = iter(batches)
    drawn = torch.cat([next(source).flatten() for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == patterns.tolist()
    assert not torch.equal(drawn[:10], drawn[10:])
    again = PatternBatches(patterns, None, size=4, seed=5)
    again.load_state_dict(batches.state_dict())
    assert torch.equal(next(iter(again)), next(source))
    with pytest.raises(ValueError, match="batches: expected seed = 6, got 5"):
        PatternBatches(patterns, None, size=4, seed=6).load_state_dict(batches.state_dict())


def test_ragged_epochs_end_with_what_is_left_and_go_on_where_they_were():
    patterns = torch.arange(10)
    batches = PatternBatches(patterns, None, size=4, seed=5, ragged=True)
    source = iter(batches)
    drawn = [next(source).flatten() for _ in range(7)]
    assert [len(batch) for batch in drawn] == [4, 4, 2, 4, 4, 2, 4]
    assert sorted(torch.cat(drawn[:3]).tolist()) == sorted(torch.cat(drawn[3:6]).tolist()) == patterns.tolist()
    again = PatternBatches(patterns, None, size=4, seed=5, ragged=True)
    again.load_state_dict(batches.state_dict())
    assert torch.equal(next(iter(again)), next(source))
    with pytest.raises(ValueError, match="batches: expected ragged = False, got True"):
        PatternBatches(patterns, None, size=4, seed=5).load_state_dict(batches.state_dict())
    old = {name: value for name, value in batches.state_dict().items() if name != "ragged"}
    PatternBatches(patterns, None, size=4, seed=5).load_state_dict(old)
    shares = [iter(PatternBatches(patterns, None, size=4, seed=5, ragged=True, rank=r, world_size=2)) for r in (0, 1)]
    assert all(torch.equal(next(shares[k % 2]).flatten(), batch) for k, batch in enumerate(drawn))


def test_processes_share_the_batches_out():
    patterns = torch.arange(12)
    alone = iter(PatternBatches(patterns, None, size=3, seed=0))
    shares = [iter(PatternBatches(patterns, None, size=3, seed=0, rank=rank, world_size=2)) for rank in (0, 1)]
    together = [next(share) for _ in range(3) for share in shares]
    assert all(torch.equal(next(alone), batch) for batch in together)


def test_supervised_needs_a_truth():
    data = small_scan()
    blind = type(data)("blind.h5", data.scan, data.probe, None)
    with pytest.raises(ValueError, match="training.loss = 'supervised': expected a known object in blind.h5"):
        objective(blind, "supervised")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_network_that_makes_no_numbers_has_no_loss_of_zero(kind, grouped):
    data = small_scan()
    batch = groups(data)[:5] if grouped else torch.arange(20).unsqueeze(1)
    patches = true_patches(data, batch.flatten())
    patches[7, 1, 2] = complex(float("nan"), 0.0)
    total, each = objective(data, kind).compare(patches, batch)
    assert total.isnan()
    assert each.isnan().any()
    assert each.isfinite().any()
