"""The tree of errors, their exit codes, and extras that are not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudnet import errors


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.CloudnetError, 2),
        (errors.SceneError, 2),
        (errors.DatasetError, 2),
        (errors.ModelError, 2),
        (errors.RunError, 2),
        (errors.OutputError, 2),
        (errors.MissingExtraError, 2),
        (errors.TrainingError, 1),
        (errors.ExportError, 1),
        (errors.ComparisonError, 1),
    ],
)
def test_wrong_use_exits_2_and_a_failed_check_1(
    error: type[errors.CloudnetError], exit_code: int
) -> None:
    assert issubclass(error, errors.CloudnetError)
    assert error("what is wrong").exit_code == exit_code
    assert str(error("what is wrong")) == "what is wrong"


def test_every_error_of_the_module_is_in_the_tree() -> None:
    raised = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(raised) == 11
    assert all(issubclass(error, errors.CloudnetError) for error in raised)


def test_require_returns_the_module_itself() -> None:
    module = errors.require("json.decoder", "train")
    assert module is sys.modules["json.decoder"]


def test_a_missing_module_names_the_install_line() -> None:
    with pytest.raises(errors.MissingExtraError) as caught:
        errors.require("no_such_module_of_anybody.inner", "train")
    assert 'pip install "cloudnet[train]"' in str(caught.value)
    assert "no_such_module_of_anybody is not installed" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_module_that_is_hidden_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "colorsys", None)
    with pytest.raises(errors.MissingExtraError, match=r'"cloudnet\[scale\]"'):
        errors.require("colorsys", "scale")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The `__init__` of an installed package, for the test to fill."""
    package = tmp_path / "brokenpackage"
    package.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package / "__init__.py"
    sys.modules.pop("brokenpackage", None)


@pytest.mark.parametrize(
    "line",
    [
        "import no_such_module_of_anybody",
        "import brokenpackage.missing_part",
        "from brokenpackage import _native",
        "raise ImportError('a library of the system is too old')",
        "raise ModuleNotFoundError('raised without a name')",
    ],
)
def test_an_import_error_inside_an_installed_module_is_not_hidden(broken: Path, line: str) -> None:
    broken.write_text(line + "\n")
    with pytest.raises(ImportError):
        errors.require("brokenpackage", "train")


def test_a_part_that_an_installed_module_lacks_is_missing(broken: Path) -> None:
    broken.write_text("")
    with pytest.raises(errors.MissingExtraError, match=r"brokenpackage\.newer is not installed"):
        errors.require("brokenpackage.newer", "train")
