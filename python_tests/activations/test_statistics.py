"""Every statistic of a layer against plain numpy on the whole data set at once."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sem.activations import Layout, measure
from sem.activations.layers import MODEL

SHAPES = {
    "images": (13, 3, 9, 10),
    "thin images": (13, 2, 1, 7),
    "sequences": (13, 11, 4),
    "vectors": (13, 5),
    "numbers": (13,),
    "volumes": (5, 2, 4, 3, 6),
}
PERCENTILES = (1, 5, 50, 95, 99)


def statistics_of(data, batch_size=None, **options):
    """What is measured of a layer that returns ``data``."""
    batches = torch.as_tensor(data).split(batch_size or len(data))
    return measure(nn.Identity(), batches, **options).layers[MODEL]


def data_of(kind, *, wave=False, offset=0.7):
    random = np.random.default_rng(sum(map(ord, kind)))
    shape = SHAPES[kind]
    values = random.normal(offset, 1.5, shape)
    values[random.random(shape) < 0.1] = 0.0
    return values + 1j * random.normal(-0.2, 0.8, shape) * (values != 0) if wave else values


def arranged(data):
    """As `[B, C, *positions]`."""
    if data.ndim == 1:
        return data[:, None]
    return np.moveaxis(data, 2, 1) if data.ndim == 3 else data


def low_frequency_ratio(x):
    axes = tuple(range(2, x.ndim))
    power = np.abs(np.fft.fftn(x, axes=axes)) ** 2
    squared = sum(q**2 for q in np.meshgrid(*(np.fft.fftfreq(n) for n in x.shape[2:]), indexing="ij"))
    return power[..., (squared > 0) & (squared <= 1 / 64 + 1e-12)].sum() / power[..., squared > 0].sum()


def expected_of(data):
    """The definitions, transcribed."""
    x = arranged(data)
    wave = np.iscomplexobj(x)
    numbers = np.stack([x.real, x.imag]) if wave else x[None]
    axes = tuple(range(2, x.ndim))
    std_of_channels = np.sqrt((np.abs(x - x.mean((0, *axes), keepdims=True)) ** 2).mean((0, *axes)) / len(numbers))
    result = {
        "count": numbers.size,
        "nonfinite": 0,
        "channels": x.shape[1],
        "dead_channels": int((std_of_channels < 1e-6 * numbers.std()).sum()),
        "mean": numbers.mean(),
        "std": numbers.std(),
        "min": numbers.min(),
        "max": numbers.max(),
        "percentile_error": np.ptp(numbers) / 4096,
        "mean_abs": np.abs(x).mean(),
        "rel_amp_std": np.abs(x).std() / np.abs(x).mean(),
        "zero_share": (numbers == 0).mean(),
        "between_sample_share": numbers.var(axis=1).mean() / numbers.var(),
        "dc_share": (np.abs(x.mean(axes)) ** 2).mean() / (np.abs(x) ** 2).mean() if axes else None,
        "low_freq_ratio": low_frequency_ratio(x) if axes else None,
    }
    result["dead_share"] = result["dead_channels"] / x.shape[1]
    if wave:
        phase = np.angle(x[x != 0])
        direction = np.exp(1j * phase).mean()
        result |= {
            "amplitude_mean": np.abs(x).mean(),
            "amplitude_std": np.abs(x).std(),
            "amplitude_min": np.abs(x).min(),
            "amplitude_max": np.abs(x).max(),
            "amplitude_percentile_error": np.ptp(np.abs(x)) / 4096,
            "phase_mean": np.angle(direction),
            "phase_std": math.sqrt(-2 * math.log(abs(direction))),
            "phase_min": phase.min(),
            "phase_max": phase.max(),
            "phase_percentile_error": np.ptp(phase) / 4096,
        }
    return result


def spreads_of(data):
    """The numbers whose percentiles are told, by the prefix of their names."""
    if not np.iscomplexobj(data):
        return {"": data}
    return {
        "": np.stack([data.real, data.imag]),
        "amplitude_": np.abs(data),
        "phase_": np.angle(data[data != 0]),
    }


@pytest.mark.parametrize("wave", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("batch_size", [1, 4, 13])
def test_statistics_are_those_of_numpy(kind, wave, batch_size):
    data = data_of(kind, wave=wave)
    found = statistics_of(data, batch_size)
    for name, value in expected_of(data).items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-11, abs=1e-13)), name
    percentiles = {
        f"{prefix}p{p}": (np.percentile(values, p), found[f"{prefix}percentile_error"])
        for prefix, values in spreads_of(data).items()
        for p in PERCENTILES
    }
    for name, (value, error) in percentiles.items():
        assert abs(found[name] - value) <= error, name
    assert found.keys() == expected_of(data).keys() | percentiles.keys()


def test_one_sample():
    data = data_of("images")[:1]
    found, expected = statistics_of(data), expected_of(data)
    assert found["between_sample_share"] is None  # a single sample says nothing of others
    for name in expected.keys() - {"between_sample_share"}:
        assert found[name] == pytest.approx(expected[name], rel=1e-11, abs=1e-13), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_narrow_numbers_are_summed_wide(dtype):
    torch.manual_seed(0)
    data = (torch.randn(40, 3, 8, 8, dtype=torch.float64 if dtype.is_floating_point else torch.complex128) + 100).to(
        dtype
    )
    expected = expected_of(data.to(torch.complex128 if dtype.is_complex else torch.float64).numpy())
    found = statistics_of(data, 7)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_a_large_offset_keeps_the_deviation():
    data = np.random.default_rng(0).normal(0, 1e-3, (30, 4, 16)) + 1e6
    found = statistics_of(data, 4)
    assert found["std"] == pytest.approx(data.std(), rel=1e-9)
    assert abs(found["p50"] - np.percentile(data, 50)) <= found["percentile_error"] < 3e-6


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40),
    batch_size=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_percentiles_are_within_a_bin_and_batches_do_not_matter(values, batch_size):
    data = np.array(values)
    whole, split = statistics_of(data), statistics_of(data, batch_size)
    for p in PERCENTILES:
        rounding = 1e-12 * np.abs(data).max()
        assert abs(split[f"p{p}"] - np.percentile(data, p)) <= split["percentile_error"] + rounding
    for name, value in whole.items():
        assert split[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), name


def test_a_dead_channel_is_found_and_all_of_a_constant_layer_are():
    data = data_of("images")
    data[:, 1] = 0.1
    found = statistics_of(data, 3)
    assert (found["channels"], found["dead_channels"], found["dead_share"]) == (3, 1, 1 / 3)
    stripes = np.where(np.arange(10) % 2, 1.0, -1.0)
    std = data.std()
    data[:, 1] = 0.1 + 0.9e-6 * std * stripes
    assert statistics_of(data, 3)["dead_channels"] == 1
    data[:, 1] = 0.1 + 1.1e-6 * std * stripes
    assert statistics_of(data, 3)["dead_channels"] == 0
    constant = statistics_of(np.full((7, 3, 5, 5), 0.1), 2)
    assert constant["dead_share"] == 1.0
    assert (constant["std"], constant["between_sample_share"]) == (0.0, 0.0)
    assert (constant["p1"], constant["p99"], constant["percentile_error"]) == (0.1, 0.1, 0.0)
    assert (constant["low_freq_ratio"], constant["dc_share"]) == (None, pytest.approx(1))


def test_dead_channels_of_waves_and_of_sequences():
    wave = data_of("sequences", wave=True)
    wave[..., 2] = 0.3 - 0.1j
    assert statistics_of(wave, 5)["dead_channels"] == 1
    wave[..., 2] += 0.01j * np.random.default_rng(0).normal(size=wave.shape[:-1])
    assert statistics_of(wave, 5)["dead_channels"] == 0  # its real part alone is constant


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch_size", [1, 4, 13])
def test_what_is_not_finite_is_counted_and_left_out(bad, batch_size):
    data = data_of("images")
    places = [(0, 0, 0, 0), (3, 1, 4, 4), (3, 1, 4, 5), (12, 2, 8, 9)]
    for place in places:
        data[place] = bad
    kept = data[np.isfinite(data)]
    found = statistics_of(data, batch_size)
    assert (found["nonfinite"], found["count"]) == (4, data.size - 4)
    assert found["mean"] == pytest.approx(kept.mean())
    assert found["std"] == pytest.approx(kept.std())
    assert (found["min"], found["max"]) == (kept.min(), kept.max())
    assert found["rel_amp_std"] == pytest.approx(np.abs(kept).std() / np.abs(kept).mean())
    assert found["zero_share"] == pytest.approx((kept == 0).mean())
    assert abs(found["p95"] - np.percentile(kept, 95)) <= found["percentile_error"]
    maps = np.ma.masked_invalid(data)
    constant = (maps.mean((2, 3)) ** 2 * maps.count((2, 3))).sum() / (kept**2).sum()
    assert found["dc_share"] == pytest.approx(constant)
    assert found["between_sample_share"] == pytest.approx((maps.var(0) * maps.count(0)).sum() / kept.var() / kept.size)
    whole = np.isfinite(data).all((2, 3))
    assert found["low_freq_ratio"] == pytest.approx(low_frequency_ratio(data[whole][None]))


def test_a_wave_with_one_bad_part_is_left_out_whole():
    data = data_of("sequences", wave=True)
    data[2, 3, 1] = complex(np.nan, 1.0)
    data[5, 0, 0] = complex(2.0, np.inf)
    kept = data[np.isfinite(data)]
    found = statistics_of(data, 4)
    assert (found["nonfinite"], found["count"]) == (4, 2 * kept.size)
    assert found["mean"] == pytest.approx(np.stack([kept.real, kept.imag]).mean())
    assert found["amplitude_mean"] == pytest.approx(np.abs(kept).mean())


def test_nothing_finite_at_all():
    found = statistics_of(np.full((4, 3), np.nan), 2)
    assert found == {"count": 0, "nonfinite": 12}


def test_a_layer_that_ignores_its_input_and_one_that_is_all_input():
    pattern = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)
    ignoring = statistics_of(np.repeat(pattern, 9, axis=0), 2)
    assert ignoring["between_sample_share"] == 0.0 and ignoring["std"] > 0.5
    samples = np.random.default_rng(1).normal(size=(9, 1, 1, 1))
    assert statistics_of(samples.repeat(6, axis=2), 2)["between_sample_share"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("along_y", "along_x", "expected"), [(1, 1, 1.0), (2, 0, 1.0), (2, 1, 0.0), (0, 5, 0.0), (-2, 7, 0.0)]
)
def test_a_planted_wave_is_low_or_high(along_y, along_x, expected):
    y, x = np.mgrid[:16, :16] / 16
    image = 3 + np.cos(2 * np.pi * (along_y * y + along_x * x))
    found = statistics_of(np.stack([image, 2 * image])[:, None])
    assert found["low_freq_ratio"] == pytest.approx(expected, abs=1e-12)
    assert found["dc_share"] == pytest.approx(9 / 9.5)


@pytest.mark.parametrize("length", [16, 17])
def test_energies_of_waves_along_a_sequence(length):
    t = np.arange(length)
    low, high = np.cos(2 * np.pi * t / length), 2 * np.sin(2 * np.pi * 6 * t / length)
    found = statistics_of((low + high)[None, :, None].repeat(3, axis=0), 1)
    assert found["low_freq_ratio"] == pytest.approx(1 / 5)
    turning = np.exp(-2j * np.pi * t / length) + 2 * np.exp(2j * np.pi * 5 * t / length)
    assert statistics_of(turning[None, :, None])["low_freq_ratio"] == pytest.approx(1 / 5)


def test_where_the_axes_are_is_told():
    data = data_of("images")

    def layout(name, output):
        return Layout(sample=1, channel=-1, positions=(0, 2))

    turned = np.ascontiguousarray(data.transpose(2, 0, 3, 1))
    batches = torch.as_tensor(turned).split(4, dim=1)
    found = measure(nn.Identity(), batches, layout=layout).layers[MODEL]
    assert found == pytest.approx(statistics_of(data, 4))
    assert found != pytest.approx(statistics_of(turned, 4))


def test_samples_of_several_lengths():
    random = np.random.default_rng(0)
    rows = [torch.as_tensor(random.normal(size=(2, length, 3))) for length in (8, 12, 8)]
    found = measure(nn.Identity(), rows).layers[MODEL]
    assert (found["count"], found["channels"], found["between_sample_share"]) == (168, 3, None)
    powers = [np.abs(np.fft.fft(row, axis=1, norm="ortho")) ** 2 for row in rows]
    low = sum(
        power[:, [k for k in range(1, n) if min(k, n - k) / n <= 1 / 8]].sum()
        for power, n in zip(powers, (8, 12, 8), strict=True)
    )
    assert found["low_freq_ratio"] == pytest.approx(low / sum(power[:, 1:].sum() for power in powers))
    assert found["mean"] == pytest.approx(np.concatenate([row.numpy().ravel() for row in rows]).mean())
