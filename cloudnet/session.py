"""Sessions: an ONNX file's content in onnxruntime, on the CPU or another provider."""

from __future__ import annotations

from typing import Any

import onnxruntime

from cloudnet.cores import usable_cores
from cloudnet.errors import ModelError

PROVIDERS: dict[str, tuple[str, dict[str, str], str]] = {
    "cpu": ("CPUExecutionProvider", {}, "onnxruntime"),
    # TF32 rounds to ten bits, which no comparison with Keras passes.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}, "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", {}, "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", {}, "onnxruntime, on macOS"),
    "directml": ("DmlExecutionProvider", {}, "onnxruntime-directml"),
}
"""By our name: onnxruntime's, its options, and the package that has it."""


def open_session(
    content: bytes,
    *,
    threads: int | None = None,
    optimised: bool = True,
    provider: str = "cpu",
) -> Any:
    """Return an onnxruntime session of an ONNX file's content.

    Without optimising, every node runs as it stands in the file: an INT8 net as floats between
    roundings to its steps.

    Raises
    ------
    ModelError
        When the provider is unknown, not installed, or does not start here.
    """
    asked, settings, package = _find_provider(provider)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3
    # From its second run on, a pattern of the first one's memory is laid out beside that memory.
    options.enable_mem_pattern = False
    # Threads that wait for the next tile leave the cores to reading and writing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen = [(asked, settings)] + [("CPUExecutionProvider", {})] * (provider != "cpu")
    session = onnxruntime.InferenceSession(content, sess_options=options, providers=chosen)
    if asked not in session.get_providers():  # onnxruntime falls back without a word
        raise ModelError(
            f"the provider {provider} does not start here; see that its driver and libraries fit "
            f"{package} {onnxruntime.__version__}, or use the provider cpu"
        )
    return session


def _find_provider(name: str) -> tuple[str, dict[str, str], str]:
    """Return a provider that is installed; raises ModelError for any other."""
    if name not in PROVIDERS:
        raise ModelError(f"{name} is no provider; there are {', '.join(PROVIDERS)}")
    asked, _, package = PROVIDERS[name]
    if asked not in onnxruntime.get_available_providers():
        raise ModelError(
            f"this onnxruntime has no provider {name}; install {package} in its place, or use the "
            "provider cpu"
        )
    return PROVIDERS[name]
