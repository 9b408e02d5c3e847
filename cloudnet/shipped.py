"""The models that come with cloudnet: their names, and where their files lie."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cloudnet.errors import ModelError

MODELS_FOLDER = Path(__file__).parent / "models"
"""Data of the package: `NAME.onnx`, for some `NAME.keras`, and what is known about them."""

DEFAULT_MODEL = "s2-rgbn"
"""Name of the model that is used where none is named."""


@dataclass(frozen=True)
class ShippedModel:
    """A model that comes with cloudnet.

    Attributes
    ----------
    name
        Bare: no folder, no suffix.
    path
        The ONNX file.
    keras
        The `.keras` file that it was exported from, where that comes along.
    size_bytes
        Of the ONNX file.
    """

    name: str
    path: Path
    keras: Path | None
    size_bytes: int

    @property
    def is_default(self) -> bool:
        """True for the model that is used where none is named."""
        return self.name == DEFAULT_MODEL


def shipped_models() -> tuple[ShippedModel, ...]:
    """Return the models that come with cloudnet: the default first, the others by name."""
    models = [_describe(path) for path in MODELS_FOLDER.glob("*.onnx")]
    return tuple(sorted(models, key=lambda model: (not model.is_default, model.name)))


def model_card() -> Path:
    """Return where the model card lies: what the models are good for, and what they are not."""
    return MODELS_FOLDER / "MODEL_CARD.md"


def find_model(name_or_path: str | Path | None = None) -> Path:
    """Return the ONNX file that a path or a name stands for.

    Parameters
    ----------
    name_or_path
        A path, which wins where something lies there; else the name of a shipped model. None: the
        default model, whatever lies in the working folder.

    Raises
    ------
    ModelError
        When it is neither, or the default model's file is missing.
    """
    if name_or_path is None:
        return _default_file()
    path = Path(name_or_path)
    if _lies_there(path):
        return path
    if model := _by_name(path):
        return model.path
    raise ModelError(
        f"{path} does not exist; give an ONNX file, or the name of a model that comes with "
        f"cloudnet: {_listed(shipped_models())}"
    )


def find_keras(name_or_path: str | Path) -> Path:
    """Return the `.keras` file of a shipped model's name; any other path as it is.

    Raises
    ------
    ModelError
        When the model of that name comes without one.
    """
    path = Path(name_or_path)
    model = None if _lies_there(path) else _by_name(path)
    if model is None:
        return path
    if model.keras is None:
        usable = [other for other in shipped_models() if other.keras]
        raise ModelError(f"{path} comes without a .keras file; these have one: {_listed(usable)}")
    return model.keras


def is_name(path: Path) -> bool:
    """Tell whether a path can only be meant as a name: nothing lies there, no folder, no suffix."""
    return path.name == str(path) and not path.suffix and not _lies_there(path)


def is_shipped(path: Path) -> bool:
    """Tell whether a file is one of those that come with cloudnet."""
    return path.parent == MODELS_FOLDER


def _describe(path: Path) -> ShippedModel:
    keras = path.with_suffix(".keras")
    return ShippedModel(path.stem, path, keras if keras.is_file() else None, path.stat().st_size)


def _default_file() -> Path:
    path = MODELS_FOLDER / f"{DEFAULT_MODEL}.onnx"
    if not path.is_file():
        raise ModelError(f"{path}, the default model, is missing; install cloudnet again")
    return path


def _by_name(path: Path) -> ShippedModel | None:
    return next((model for model in shipped_models() if model.name == str(path)), None)


def _lies_there(path: Path) -> bool:
    # A name that is too long, or a folder that may not be entered, is no reason for a traceback.
    with suppress(OSError):
        return path.exists()
    return False


def _listed(models: tuple[ShippedModel, ...] | list[ShippedModel]) -> str:
    return ", ".join(model.name for model in models) or "none is there, install cloudnet again"
