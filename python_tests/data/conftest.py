import pytest


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path_factory):
    """No network and no cache but our own, here and in processes started from here."""
    folder = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
