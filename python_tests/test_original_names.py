"""The names and calls of the original plan, as its own checks write them."""

from pathlib import Path

import torch

CONFIG = Path(__file__).parents[1] / "configs" / "max_aggression.yaml"


def test_cayley_soliton_propagator():
    from sem.propagator.cayley_soliton import CayleySolitonPropagator

    torch.manual_seed(0)
    propagator = CayleySolitonPropagator(dim=64, cg_max_iter=10, cg_tol=1e-5)
    psi = torch.randn(2, 16, 64, dtype=torch.complex64)
    out = propagator(psi)
    assert out.shape == psi.shape and out.dtype == torch.complex64
    assert 0.8 < (out.norm() / psi.norm()).item() < 1.2
    assert hasattr(propagator, "pit_strength")


def test_cg_solve_sparse_keeps_float32():
    from sem.propagator.cg_solver import cg_solve, cg_solve_sparse

    b = torch.randn(4, 32, 2)
    x = cg_solve_sparse(lambda v: v * 2.0, b, max_iter=10, tol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cg_solve_sparse(lambda v: v * 2.0, b, max_iter=10, tol=1e-5)
    assert x.dtype == inside.dtype == torch.float32
    assert torch.equal(x, inside)
    torch.testing.assert_close(x, b / 2)
    assert callable(cg_solve)


def test_config_from_yaml():
    from sem.config import SEMConfig

    config = SEMConfig.from_yaml(str(CONFIG))
    assert config.training.dtype == "float32"
    assert config.propagator.pit_enabled
    assert config.training.precision_mode == "selective-bf16"


def test_model_and_its_parts():
    from sem.config import SEMConfig
    from sem.model import SEMModel

    config = SEMConfig.from_yaml(str(CONFIG))
    model = SEMModel(config)
    assert len(model.mamba_layers) == config.model.num_layers
    assert all(hasattr(layer, "pit_strength") for layer in model.propagator.layers)
    for name in ("encoder", "final_norm", "sampler"):
        assert isinstance(getattr(model, name), torch.nn.Module)


def test_the_other_modules_keep_their_names():
    from sem.propagator.cayley_soliton import CayleySolitonStack
    from sem.propagator.hamiltonian import GraphLaplacianHamiltonian, MultiScaleHamiltonian
    from sem.spinor.complex_mamba3 import ComplexMamba3Layer
    from sem.training.trainer import SEMTrainer

    names = (CayleySolitonStack, GraphLaplacianHamiltonian, MultiScaleHamiltonian, ComplexMamba3Layer, SEMTrainer)
    assert all(isinstance(name, type) for name in names)


def test_lightning_module_and_precision_plugin():
    from sem.config import SEMConfig
    from sem.training.lightning_module import SEMLightningModule
    from sem.training.precision_plugin import SEMPrecisionPlugin

    module = SEMLightningModule(SEMConfig.from_yaml(str(CONFIG)))
    assert isinstance(module.model, torch.nn.Module)
    assert SEMPrecisionPlugin(precision="32-true", device="cpu").precision == "32-true"
    assert SEMPrecisionPlugin("selective-bf16", "cpu").precision == "selective-bf16"
