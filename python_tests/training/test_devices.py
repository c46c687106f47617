"""What runs on an XPU device. The real extension is not for this torch, so a package of its name stands in for it."""

import sys

import pytest
import torch
from torch import nn
from toy import RecordingDisplay, toy_trainer

from sem.ipex import MODULE, load_ipex, xpu_path
from sem.native import require_same_sycl
from sem.optimization_settings import OptimizationSettings
from sem.system_info import system_info
from sem.training.devices import prepare_for_device, resolve_device
from sem.training.optim import build_optimizer

XPU = torch.device("xpu")
MAJOR, MINOR = torch.__version__.split(".")[:2]
RECORDING = """
__version__ = "{version}+xpu"
calls = []


def optimize(model, **options):
    calls.append((model, options))
    return model if options["optimizer"] is None else (model, options["optimizer"])
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts an extension on the path: of this torch's major and minor version by default."""
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)

    def write(source=RECORDING, minor=None):
        version = f"{minor or f'{MAJOR}.{MINOR}'}.10"
        (tmp_path / f"{MODULE}.py").write_text(source.replace("{version}", version))
        metadata = tmp_path / f"{MODULE}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: {version}\n")
        return version

    yield write
    sys.modules.pop(MODULE, None)


@pytest.fixture
def with_xpu(monkeypatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)


def model_and_optimizer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).train()
    return model, build_optimizer(model, OptimizationSettings(optimizer="adamw", weight_decay=0.1))


def test_device_that_is_not_there_is_an_error():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "xpu")
    if not torch.xpu.is_available():
        with pytest.raises(ValueError, match=r"training.device = 'xpu:3'.*cpu"):
            resolve_device("xpu:3")


def test_matching_extension_optimizes_in_float32_and_replaces_nothing(install):
    version = install()
    model, optimizer = model_and_optimizer()
    assert prepare_for_device(model, optimizer, XPU) == f"IPEX {version}+xpu in float32"
    ((optimized, options),) = sys.modules[MODULE].calls
    assert optimized is model
    assert options.pop("optimizer") is optimizer
    assert options.pop("dtype") is torch.float32
    assert options.pop("inplace") is True
    assert set(options) >= {"weights_prepack", "fuse_update_step", "optimize_lstm"}
    assert not any(options.values())


def test_model_without_optimizer_is_optimized_for_evaluation(install):
    install()
    model = nn.Linear(2, 2).eval()
    assert prepare_for_device(model, None, XPU).startswith("IPEX")
    ((optimized, options),) = sys.modules[MODULE].calls
    assert optimized is model and options["optimizer"] is None


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_other_devices_never_touch_the_extension(install, device):
    install("raise AssertionError('imported')")
    assert prepare_for_device(*model_and_optimizer(), torch.device(device)) is None
    assert MODULE not in sys.modules


def test_without_the_extension_torch_is_used():
    assert prepare_for_device(*model_and_optimizer(), XPU) == "torch's own XPU path; IPEX not installed"


@pytest.mark.parametrize("minor", ["1.13", f"{MAJOR}.{int(MINOR) + 1}", f"{MAJOR}.{MINOR}1"])
def test_extension_for_another_torch_is_not_even_imported(install, minor):
    version = install("raise AssertionError('imported')", minor)
    note = prepare_for_device(*model_and_optimizer(), XPU)
    assert note == f"torch's own XPU path; IPEX {version} is for torch {minor}, this is torch {torch.__version__}"
    assert MODULE not in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('libsycl.so.8: no such file\\nand more')", r"OSError: libsycl.so.8: no such file\)$"),
        ("raise RuntimeError('no driver')", "RuntimeError: no driver"),
        ("import os; os.exit(127)", "AttributeError: module 'os' has no attribute 'exit'"),
        ("raise SystemExit(127)", "SystemExit: 127"),
        ("import not_there_at_all", "ModuleNotFoundError"),
    ],
)
def test_broken_extension_is_reported_in_one_line(install, source, reason):
    version = install(source)
    note = prepare_for_device(*model_and_optimizer(), XPU)
    assert note.startswith(f"torch's own XPU path; IPEX {version} is installed but cannot be imported (")
    assert "\n" not in note
    with pytest.raises(ImportError, match=reason):
        load_ipex()


def test_extension_built_for_cpus_is_not_used(install):
    version = install(RECORDING.replace("+xpu", "+cpu"))
    note = prepare_for_device(*model_and_optimizer(), XPU)
    assert note == f"torch's own XPU path; IPEX {version}+cpu is built for CPUs"
    assert sys.modules[MODULE].calls == []


def test_extension_that_fails_at_work_is_reported(install):
    install("__version__ = '0+xpu'\n\ndef optimize(model, **options):\n    raise RuntimeError('lost the device')")
    note = prepare_for_device(*model_and_optimizer(), XPU)
    assert note == "torch's own XPU path; IPEX could not optimize the model (RuntimeError: lost the device)"


def test_training_mode_and_optimizer_go_together():
    model, optimizer = model_and_optimizer()
    with pytest.raises(ValueError, match="got none in training mode"):
        prepare_for_device(model, None, torch.device("cpu"))
    with pytest.raises(ValueError, match="got one in evaluation mode"):
        prepare_for_device(model.eval(), optimizer, torch.device("cpu"))


def test_info_says_which_path_and_why():
    assert dict(system_info())["xpu path"] == "torch's own; IPEX not installed"


def test_info_names_the_extension_where_there_is_a_device(install, with_xpu):
    version = install()
    assert xpu_path() == f"IPEX {version}+xpu"


def test_info_tells_a_broken_extension_where_there_is_a_device(install, with_xpu):
    version = install("raise OSError('no libsycl')")
    assert xpu_path() == f"torch's own; IPEX {version} is installed but cannot be imported (OSError: no libsycl)"


def test_info_does_not_import_the_extension_without_a_device(install, monkeypatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    version = install()
    assert xpu_path() == f"IPEX {version}, if it can be imported; no XPU device to try it for"
    assert MODULE not in sys.modules


def test_a_run_prepares_what_it_trains_and_says_so(install, tmp_path):
    version = install()
    trainer = toy_trainer(tmp_path / "run")
    trainer.device = XPU
    display = RecordingDisplay()
    trainer.fit(display=display)
    ((model, options),) = sys.modules[MODULE].calls
    assert model is trainer.model
    assert options["optimizer"].param_groups[0]["params"][0] is next(model.parameters())
    assert f"IPEX {version}+xpu in float32" in display.messages


@pytest.mark.parametrize(("cuda", "xpu", "expected"), [(0, 1, "xpu"), (1, 0, "cuda"), (1, 1, "cuda"), (0, 0, "cpu")])
def test_auto_is_the_accelerator_that_torch_reports(monkeypatch, cuda, xpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.xpu, "is_available", lambda: bool(xpu))
    assert resolve_device("auto").type == expected


def test_kernels_of_another_sycl_runtime_are_refused():
    require_same_sycl(8, {8})
    require_same_sycl(8, set())
    for loaded in ({9}, {8, 9}):
        with pytest.raises(RuntimeError, match=r"built against libsycl.so.8, torch .* runs on .*libsycl.so.9.*rebuild"):
            require_same_sycl(8, loaded)
