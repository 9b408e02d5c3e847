"""Sessions: the provider that was asked for, or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from cloudnet.cores import usable_cores
from cloudnet.errors import ModelError
from cloudnet.runtime import load_model
from cloudnet.session import PROVIDERS, open_session


def test_the_cpu_is_the_default_and_takes_the_threads_that_it_is_given(tiny_onnx: Path) -> None:
    content = tiny_onnx.read_bytes()
    assert open_session(content).get_providers() == ["CPUExecutionProvider"]
    for threads, expected in [(1, 1), (3, 3), (None, usable_cores())]:
        session = open_session(content, threads=threads)
        assert session.get_session_options().intra_op_num_threads == expected


def test_a_provider_that_is_not_installed_names_its_package(tiny_onnx: Path) -> None:
    there = set(onnxruntime.get_available_providers())
    missing = [name for name, (provider, *_) in PROVIDERS.items() if provider not in there]
    assert missing  # no onnxruntime has them all
    for name in missing:
        with pytest.raises(ModelError, match=f"has no provider {name}; install onnxruntime"):
            load_model(tiny_onnx, provider=name)


def test_an_unknown_provider_names_the_known_ones(tiny_onnx: Path) -> None:
    with pytest.raises(ModelError, match="tpu is no provider; there are cpu, cuda, openvino"):
        load_model(tiny_onnx, provider="tpu")


class _Fallen:
    """A session as onnxruntime makes it where the provider's libraries cannot be loaded."""

    def __init__(self, *_: object, providers: list[tuple[str, dict[str, str]]], **__: Any) -> None:
        assert [name for name, _ in providers] == ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_silent_fall_back_to_the_cpu_is_an_error(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: installed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Fallen)
    with pytest.raises(ModelError, match=r"cuda does not start here.*onnxruntime-gpu"):
        load_model(tiny_onnx, provider="cuda")
