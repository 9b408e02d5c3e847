"""The errors that cloudnet raises: one small tree, each with the exit code of the command line."""

from __future__ import annotations

import importlib
from types import ModuleType

USAGE = 2
FAILED = 1


class CloudnetError(Exception):
    """Something the user can mend: the message is one sentence that names the file and the mend."""

    exit_code = USAGE


class SceneError(CloudnetError):
    """A scene cannot be opened, read, or brought to reflectance."""


class DatasetError(CloudnetError):
    """A folder of labelled scenes is missing, empty, or not in order."""


class ModelError(CloudnetError):
    """A model file is not one of ours, lacks its spec, or does not fit what is asked of it."""


class RunError(CloudnetError):
    """A run folder is missing something, or belongs to other settings."""


class OutputError(CloudnetError):
    """An output is in the way, or cannot be written."""


class MissingExtraError(CloudnetError):
    """A package of an optional extra is not installed."""


class TrainingError(CloudnetError):
    """Training cannot go on."""

    exit_code = FAILED


class ExportError(CloudnetError):
    """The trained net could not be turned into an ONNX file that is fit to be published."""

    exit_code = FAILED


class ComparisonError(CloudnetError):
    """Two runtimes do not give the same answer."""

    exit_code = FAILED


class BatchError(CloudnetError):
    """Scenes of an archive failed, or the processes that do them cannot go on."""

    exit_code = FAILED


def require(module: str, extra: str) -> ModuleType:
    """Import a module of an optional extra.

    Parameters
    ----------
    module
        Dotted name of the module.
    extra
        The extra of setup.cfg that brings it.

    Raises
    ------
    MissingExtraError
        When it is not installed; the message holds the install line.
    ImportError
        When it is installed and broken: that is not mended by installing the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):
            raise
        raise MissingExtraError(
            f'{missing} is not installed; get it with: pip install "cloudnet[{extra}]"'
        ) from error
