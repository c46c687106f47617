"""A teacher that lies in a repository on the hub."""

import pytest
import torch
from huggingface_hub import constants
from taught_runs import config_of
from transformers_models import saved_model

from sem.data import ByteTokenizer
from sem.huggingface import HubError
from sem.precision import PrecisionPolicy
from sem.training.checkpoint import CheckpointMissing
from sem.training.distillation import open_teacher


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def open(name):
        given = config_of(tmp_path), ByteTokenizer(), PrecisionPolicy("32-true", "cpu"), torch.device("cpu")
        return open_teacher(name, *given)

    return open


def test_a_repository_teaches_as_a_folder_does_and_what_is_here_goes_first(hub, opened, tmp_path):
    folder = saved_model(tmp_path / "model")
    hub.repos["me/model"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repos["me/model"]["modeling.py"] = b"raise SystemExit"
    hub.repos["me/model"]["pytorch_model.bin"] = b"no tensors"
    here = opened("model/../model")
    there = opened("me/model@main")
    assert there.identity == here.identity and there.name == "me/model@main"
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"config.json", "model.safetensors", "tokenizer.json"}
    hub.failures[".*"] = (503, "asleep")
    assert opened("me/model@main").identity == here.identity  # it is kept
    (tmp_path / "me").mkdir()
    saved_model(tmp_path / "me/model", "Llama")
    assert opened("me/model").model.config.model_type == "llama"


def test_a_name_that_is_nowhere_is_one_sentence(hub, opened):
    with pytest.raises(HubError, match="'runs/lage': there is no such run or folder here.* the hub answered 404"):
        opened("runs/lage")
    for name in ("no/such/run", "runs/step_00000003.pt", "../run"):
        with pytest.raises(CheckpointMissing, match="there is no such checkpoint"):
            opened(name)
    assert not any("such" in request or "step_" in request for request in hub.requests)
