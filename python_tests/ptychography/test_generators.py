"""Generators, by what they do: which waves pass, how a block begins, what reaches which weight."""

import json
import math

import pytest
import torch

from sem.ptycho.generators import GeneratorSettings, SpectralConv2d, build_generator, layers_of, summary
from sem.ptycho.generators.layers import CartesianHead, PolarHead, RMSNorm2d, ScaledBlock, SpectralBlock

ARCHITECTURES = ("fno", "hybrid", "stable_hybrid", "cnn")


def small(architecture, **settings):
    return GeneratorSettings(**({"architecture": architecture, "width": 4, "blocks": 2, "modes": 3} | settings))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spectral(*args, **kwargs):
    torch.manual_seed(0)
    return SpectralConv2d(*args, **kwargs)


def by_fft(layer, x):
    """irfft2(W rfft2(x)) with torch's FFTs, in float64."""
    m, side = layer.modes, layer.side
    weight = torch.view_as_complex(layer.weight.detach().double())
    spectrum = torch.fft.rfft2(x.double())
    out = torch.zeros(len(x), layer.out_channels, side, side // 2 + 1, dtype=torch.complex128)
    for block, rows in enumerate((slice(0, m), slice(side - m, side))):
        out[:, :, rows, :m] = torch.einsum("bixy,oixy->boxy", spectrum[:, :, rows, :m], weight[:, :, block])
    return torch.fft.irfft2(out, s=(side, side))


@pytest.mark.parametrize(("side", "modes"), [(8, 4), (9, 3), (12, 1), (15, 7), (16, 5), (2, 1)])
def test_a_spectral_convolution_is_a_product_of_spectra(side, modes):
    layer, x = spectral(3, 5, modes, side), random(4, 3, side, side)
    torch.testing.assert_close(layer(x).double(), by_fft(layer, x), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_the_ffts():
    layer, x = spectral(3, 2, 4, 9), random(2, 3, 9, 9).requires_grad_()
    g = random(2, 2, 9, 9, seed=1)
    layer(x).backward(g)
    weight = torch.view_as_complex(layer.weight.detach().double()).requires_grad_()
    twin = x.detach().double().requires_grad_()
    spectrum = torch.fft.rfft2(twin)
    kept = torch.stack([spectrum[:, :, :4, :4], spectrum[:, :, -4:, :4]], 2)
    top, bottom = torch.einsum("birxy,oirxy->borxy", kept, weight).unbind(2)
    middle = top.new_zeros(2, 2, 1, 4)
    columns = torch.cat([torch.cat([top, middle, bottom], 2), top.new_zeros(2, 2, 9, 1)], 3)
    torch.fft.irfft2(columns, s=(9, 9)).backward(g.double())
    torch.testing.assert_close(x.grad.double(), twin.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad.double(), torch.view_as_real(weight.grad), rtol=1e-5, atol=1e-5)


def test_modes_are_clamped_to_half_the_side_and_say_so():
    layer = spectral(2, 2, 12, 9)
    assert layer.modes == 4 and layer.weight.shape == (2, 2, 2, 4, 4, 2)
    assert "modes=4 (of 12)" in repr(layer) and "(of" not in repr(spectral(2, 2, 4, 9))


def test_initial_weights_have_the_standard_deviation_they_should():
    weight = torch.view_as_complex(spectral(16, 16, 8, 16).weight.detach())
    assert float(weight.abs().square().mean()) == pytest.approx(1 / 16, rel=0.03)
    assert float((weight**2).mean().abs()) < 0.03 / 16  # both parts alike


def waves(kx, ky, side=16):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (2 * math.pi * (kx * x + ky * y) / side).cos().view(1, 1, side, side)


@pytest.mark.parametrize("ky", [3, -3])
def test_waves_along_both_diagonals_pass(ky):
    layer = spectral(1, 1, 5, 16)
    with torch.no_grad():
        layer.weight[..., 0], layer.weight[..., 1] = 1, 0
    torch.testing.assert_close(layer(waves(2, ky)), waves(2, ky), rtol=1e-5, atol=1e-5)
    assert float(layer(waves(6, ky)).detach().abs().max()) < 1e-5  # beyond the modes


def test_flipping_the_input_and_swapping_the_blocks_flips_the_output():
    """Row ``k`` becomes row ``-k``: block 0 has rows 0 to m - 1, block 1 rows -m to -1, of which -m is left out."""
    m, x = 5, random(2, 3, 16, 16)
    layer, swapped = spectral(3, 3, m, 16), spectral(3, 3, m, 16)
    with torch.no_grad():
        layer.weight[:, :, 1, 0] = 0
        swapped.weight[:, :, 0, 1:] = layer.weight[:, :, 1, 1:].flip(2)
        swapped.weight[:, :, 1, 1:] = layer.weight[:, :, 0, 1:].flip(2)
        swapped.weight[:, :, 0, 0] = layer.weight[:, :, 0, 0]
        swapped.weight[:, :, 1, 0] = 0
    torch.testing.assert_close(swapped(x.flip(2)), layer(x).flip(2), rtol=1e-5, atol=1e-5)
    assert float((layer(x.flip(2)) - layer(x).flip(2)).detach().abs().max()) > 0.1


def test_without_negative_rows_one_diagonal_is_lost():
    layer = spectral(1, 1, 5, 16, negative_rows=False)
    with torch.no_grad():
        layer.weight[..., 0], layer.weight[..., 1] = 1, 0
    torch.testing.assert_close(layer(waves(2, 3)), waves(2, 3), rtol=1e-5, atol=1e-5)
    assert float(layer(waves(2, -3)).detach().abs().max()) < 1e-5
    assert "negative_rows=False" in repr(layer) and "negative_rows" not in repr(spectral(1, 1, 5, 16))


@pytest.mark.parametrize(("side", "modes"), [(9, 4), (16, 5), (8, 4)])
def test_without_negative_rows_it_is_the_whole_one_with_those_of_zero(side, modes):
    one, whole, x = (
        spectral(3, 5, modes, side, negative_rows=False),
        spectral(3, 5, modes, side),
        random(2, 3, side, side),
    )
    with torch.no_grad():
        whole.weight[:, :, :1], whole.weight[:, :, 1] = one.weight, 0
    torch.testing.assert_close(one(x), whole(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["fno", "hybrid", "stable_hybrid"])
def test_negative_rows_are_a_setting_of_every_spectral_convolution(architecture):
    network = build_generator(small(architecture, negative_rows=False), 16)
    parts = [module.weight.shape[2] for module in network.modules() if isinstance(module, SpectralConv2d)]
    assert parts and set(parts) == {1}
    assert network(random(2, 1, 16, 16).abs()).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_between_channels_say_what_maps_they_are(architecture):
    network = build_generator(small(architecture), 16)
    kinds = {name: getattr(p, "_linear_map", None) for name, p in network.named_parameters()}
    assert kinds["lift.0.weight"] is None and kinds["lift.2.weight"] == "filters"
    assert {kinds[name] for name in kinds if name.startswith("head") or name.endswith("bias")} == {None}
    spectral_kinds = {kinds[name] for name in kinds if ".spectral." in name}
    assert spectral_kinds == (set() if architecture == "cnn" else {"modes"})
    rest = {name for name, kind in kinds.items() if kind is None and name.endswith("weight")}
    scales = {name for name in kinds if ".scale." in name or ".norm." in name}
    assert rest == {"lift.0.weight", "head.conv.weight"} | scales


def test_autocast_does_not_reach_a_spectral_convolution():
    layer, x = spectral(3, 3, 4, 16), random(2, 3, 16, 16)
    outside = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), outside) and layer(x).dtype == torch.float32
    network = build_generator(small("hybrid"), 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(random(2, 1, 16, 16).abs()).dtype == torch.complex64


def test_a_plain_block_is_what_it_says():
    torch.manual_seed(0)
    block, x = SpectralBlock(6, 4, 16), random(2, 6, 16, 16)
    expected = x + torch.nn.functional.gelu(block.spectral(x) + block.local(x))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("norm", ["instance", "rms", "none"])
def test_a_stable_block_begins_near_the_identity_and_all_of_it_learns(norm):
    torch.manual_seed(0)
    block, x = ScaledBlock(6, 4, 16, norm, 1e-3), random(2, 6, 16, 16).requires_grad_()
    y = block(x)
    moved = float((y - x).detach().norm() / x.detach().norm())
    assert 1e-5 < moved <= 2e-3
    y.backward(random(2, 6, 16, 16, seed=1))
    for name, parameter in block.named_parameters():
        assert float(parameter.grad.abs().max()) > 1e-9, name
    for name in ("spectral.weight", "local.weight"):
        assert bool((block.get_parameter(name).grad != 0).float().mean() > 0.9), name


def test_an_instance_norm_takes_a_channel_s_mean_away_and_rms_does_not():
    x = random(2, 3, 16, 16) + torch.tensor([5.0, -2.0, 1.0]).view(3, 1, 1)
    block = {norm: ScaledBlock(3, 4, 16, norm, 1.0).norm for norm in ("instance", "rms", "none")}
    assert float(block["instance"](x).mean((2, 3)).abs().max()) < 1e-5
    found = block["rms"](x)
    assert float(found.mean((2, 3)).abs().min()) > 0.25 and isinstance(block["rms"], RMSNorm2d)
    torch.testing.assert_close(found.square().mean((1, 2, 3)), torch.ones(2), rtol=1e-4, atol=0)
    torch.testing.assert_close(found / x, (found / x)[:, :1, :1, :1].expand_as(x))  # one factor per sample
    assert torch.equal(block["none"](x), x)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_polar_head_starts_at_amplitude_one(architecture):
    network = build_generator(small(architecture, head="polar"), 16)
    out = network(random(3, 1, 16, 16).abs())
    torch.testing.assert_close(out.abs(), torch.ones(3, 1, 16, 16))
    assert 1e-3 < float(out.detach().angle().abs().max()) <= math.pi
    with torch.no_grad():
        network.head.conv.bias[:1] -= 4
    assert float(network(random(3, 1, 16, 16).abs()).detach().abs().max()) < 0.1


def test_heads_take_what_they_should():
    x = random(2, 6, 8, 8)
    torch.manual_seed(0)
    head = CartesianHead(6, 2)
    parts = head.conv(x)
    torch.testing.assert_close(head(x), torch.complex(parts[:, :2], parts[:, 2:]))
    polar = PolarHead(6, 1, groups=2)
    with torch.no_grad():
        polar.conv.weight.normal_(generator=torch.Generator().manual_seed(1))
    other = x.clone()
    other[:, :3] += 1  # the first half of the features
    assert torch.allclose(polar(x).angle(), polar(other).angle()) and not torch.allclose(
        polar(x).abs(), polar(other).abs()
    )


@pytest.mark.parametrize("side", [8, 9, 17, 20])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_side_works_and_every_weight_learns(architecture, side):
    network = build_generator(small(architecture, blocks=3, channels=2), side)
    x = random(3, 2, side, side).abs()
    out = network(x)
    assert out.shape == x.shape and out.dtype == torch.complex64 and out.is_contiguous()
    (out * torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))).real.sum().backward()
    for name, parameter in network.named_parameters():
        assert bool(parameter.grad.isfinite().all()) and float(parameter.grad.abs().max()) > 0, name
        assert parameter.is_contiguous(), name
    corner = x.clone()
    corner[:, :, -1, -1] += 1  # the last line of an odd side is not lost
    assert not torch.allclose(network(corner)[..., -1, -1], out[..., -1, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sample_does_not_depend_on_its_batch(architecture):
    network, x = build_generator(small(architecture), 16), random(5, 1, 16, 16).abs()
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)


def test_the_two_decoders_of_a_cnn_share_nothing():
    network = build_generator(small("cnn"), 16)
    network(random(2, 1, 16, 16).abs()).real.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.decoders[1].parameters())
    assert all(p.grad.any() for p in network.decoders[0].parameters())


@pytest.mark.parametrize(("transform", "function"), [("log1p", torch.log1p), ("sqrt", torch.sqrt)])
def test_the_input_is_transformed(transform, function):
    x = random(2, 1, 16, 16).abs()
    plain = build_generator(small("fno"), 16)
    torch.testing.assert_close(build_generator(small("fno", input_transform=transform), 16)(x), plain(function(x)))


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"width": 5}, True),
        ({"modes": 4}, True),
        ({"blocks": 3}, True),
        ({"max_hidden": 4}, True),
        ({"layerscale_init": 0.1}, True),
        ({"block_norm": "rms"}, True),
        ({"head": "polar"}, True),
        ({"input_transform": "sqrt"}, True),
        ({}, False),
    ],
)
def test_every_setting_changes_the_output(change, moves):
    x = random(2, 1, 16, 16).abs()
    before, after = (build_generator(small("stable_hybrid", **some), 16)(x) for some in ({}, change))
    assert torch.equal(before, after) != moves


def test_a_network_comes_back_from_its_settings_and_weights():
    for architecture in ARCHITECTURES:
        network = build_generator(small(architecture, head="polar", block_norm="rms"), 17, seed=1)
        held = json.loads(json.dumps(network.settings.to_mapping()))
        again = build_generator(GeneratorSettings.from_mapping(held), 17, seed=2)
        x = random(2, 1, 17, 17).abs()
        assert not torch.equal(again(x), network(x))
        again.load_state_dict(network.state_dict(), strict=True)
        assert torch.equal(again(x), network(x))


def test_weights_are_seeded_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_generator(small("fno"), 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [network.blocks[0].spectral.weight for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_hooks_find_every_layer_by_its_name():
    network = build_generator(small("stable_hybrid"), 16)
    seen = []
    for name, module in layers_of(network).items():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    network(random(1, 1, 16, 16).abs())
    assert sorted(seen) == sorted(layers_of(network)) and len(seen) == len(set(seen))
    steps = {f"{b}.{s}" for b in ("blocks.0", "blocks.1", "bottleneck") for s in ("spectral", "local", "sum", "gelu")}
    steps |= {f"{b}.{s}" for b in ("blocks.0", "blocks.1", "bottleneck") for s in ("norm", "scale", "residual")}
    assert steps | {"lift", "blocks.0", "down.0", "bottleneck", "up.0", "merge.0", "head"} <= set(seen)


def test_a_summary_counts_and_shows_shapes():
    network = build_generator(small("hybrid", width=8, blocks=3, modes=8, max_hidden=16), 32)
    found = summary(network)
    assert found.parameters == sum(p.numel() for p in network.parameters())
    spectral_numbers = sum(m.weight.numel() for m in network.modules() if isinstance(m, SpectralConv2d))
    assert found.complex_once == found.parameters - spectral_numbers // 2
    shapes = {row.name: row.shape for row in found.layers}
    assert shapes["down.0"] == (16, 16, 16) and shapes["bottleneck"] == (16, 8, 8) and shapes["head"] == (1, 32, 32)
    assert (network.blocks[0].spectral.modes, network.bottleneck.spectral.asked) == (8, 4)  # half of them
    text = str(found)
    assert f"{found.parameters:,} parameters" in text and "16 x 8 x 8" in text
    assert "blocks.2.spectral: 4 modes instead of 8, half its side of 8" in text
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "unet"}, "generator.architecture = 'unet': expected one of fno, hybrid, stable_hybrid, cnn"),
        ({"block_norm": "batch"}, "generator.block_norm = 'batch': expected one of instance, rms, none"),
        ({"head": "real"}, "generator.head = 'real': expected one of cartesian, polar"),
        ({"input_transform": "log"}, "generator.input_transform = 'log': expected one of none, log1p, sqrt"),
        ({"width": 0}, "generator.width = 0: expected an integer >= 1"),
        ({"layerscale_init": math.nan}, "generator.layerscale_init = nan: expected a number > 0"),
        ({"max_hidden": 8}, "generator.max_hidden = 8: expected at least generator.width = 32"),
        ({"depth": 3}, "generator.depth = 3: unknown key"),
    ],
)
def test_settings_that_mean_nothing_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GeneratorSettings.from_mapping(settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpectralConv2d(2, 2, 0, 8), "modes: expected at least 1, got 0"),
        (lambda: SpectralConv2d(2, 2, 3, 1), "side: expected at least 2, got 1"),
        (
            lambda: SpectralConv2d(2, 2, 3, 8)(random(1, 2, 8, 9)),
            r"x: expected shape \[B, 2, 8, 8\], got \[1, 2, 8, 9\]",
        ),
        (lambda: build_generator(small("fno"), 7), "side: expected at least 8, got 7"),
        (
            lambda: build_generator(small("hybrid", blocks=4), 8),
            "generator.blocks = 4: expected at most 3 for patterns of 8 x 8, since each level halves them",
        ),
        (
            lambda: build_generator(small("cnn"), 16)(torch.zeros(2, 1, 16, 17)),
            r"amplitudes: expected real \[B, 1, 16, 16\], got torch.float32 \[2, 1, 16, 17\]",
        ),
        (lambda: build_generator(small("cnn"), 16)(torch.zeros(2, 1, 16, 16) + 0j), "amplitudes: expected real"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_few_steps_fit_patches(architecture):
    x = random(4, 1, 16, 16).abs()
    wanted = torch.polar(1 + 0.2 * random(4, 1, 16, 16, seed=1), 0.5 * random(4, 1, 16, 16, seed=2))
    network = build_generator(small(architecture, width=8, modes=6), 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (network(x) - wanted).abs().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
