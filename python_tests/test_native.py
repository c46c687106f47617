"""What is said where kernels are missing: never the name of an index's package, always what to do."""

import pytest

from sem import native


@pytest.fixture
def nothing_built(monkeypatch):
    native.backend.cache_clear()
    monkeypatch.setattr(native, "is_built", lambda device_type: False)
    yield
    native.backend.cache_clear()


def message_for(device_type):
    with pytest.raises(RuntimeError) as raised:
        native.backend(device_type)
    return str(raised.value)


def test_sources_without_kernels_say_where_they_lie_and_what_to_do(nothing_built, monkeypatch, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text("")
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "sem")
    message = message_for("cpu")
    assert f"the sources in {tmp_path}" in message and message.endswith(f"pip install {tmp_path}")


@pytest.mark.parametrize("device_type", ["cpu", "cuda", "xpu"])
def test_no_message_names_an_indexs_package(nothing_built, monkeypatch, tmp_path, device_type):
    monkeypatch.setattr(native, "_PACKAGE", tmp_path / "sem")
    message = message_for(device_type)
    assert f"has no {device_type} kernels" in message and "source folder: pip install" in message
    assert "no-deps sem" not in message
    assert ("move the tensors to the CPU" in message) == (device_type != "cpu")


def test_without_openmp_the_kernels_have_one_thread(monkeypatch):
    monkeypatch.setattr(native.backend("cpu"), "openmp", False)
    assert native.capabilities()["threads"] == 1
