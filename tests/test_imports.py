"""What a command imports, and what works where the train extra is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cloudnet.commands import main

ROOT = Path(__file__).parents[1]

HEAVY = (
    "tensorflow", "keras", "onnx", "tf2onnx", "matplotlib", "tensorboard", "onnxruntime",
    "rasterio", "numpy",
)  # fmt: skip
TRAIN_EXTRA = HEAVY[:6]

LOADED = """
import sys
from contextlib import suppress
{}
print(sorted({{name.partition(".")[0] for name in sys.modules}} & set({!r})))
"""

CORE_ALONE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from cloudnet.commands import main
main()
"""
"""The command line as it is after `pip install cloudnet`, whatever else is installed here."""


def run_python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in another Python, this checkout's package first on its path."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )


def loaded_by(code: str) -> list[str]:
    result = run_python(LOADED.format(code, HEAVY))
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout.splitlines()[-1].replace("'", '"')))


def run_core(*arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command where nothing of the train extra can be imported."""
    return run_python(CORE_ALONE.format(TRAIN_EXTRA), *map(str, arguments), cwd=cwd)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"from cloudnet.commands import main\nwith suppress(SystemExit): main({arguments!r})"
    assert loaded_by(code) == []


def test_the_package_imports_nothing_heavy() -> None:
    assert loaded_by("import cloudnet; cloudnet.__version__; cloudnet.CloudnetError") == []


def test_a_name_is_imported_when_it_is_asked_for() -> None:
    """Also: a model needs no rasterio. And the check above can tell."""
    assert loaded_by("from cloudnet import load_model") == ["numpy", "onnxruntime"]


def test_predict_inspect_and_evaluate_need_nothing_of_the_train_extra(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    predicted = run_core("predict", scene, "-m", tiny_onnx, "-o", tmp_path, "--probability")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert len(list(tmp_path.iterdir())) == 4
    inspected = run_core("inspect", geotiff_dataset)
    assert (inspected.returncode, inspected.stderr) == (0, "")
    assert "scene05" in inspected.stdout
    evaluated = run_core("evaluate", geotiff_dataset, "-m", tiny_onnx, "--json")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert json.loads(evaluated.stdout)["pooled"]["scenes"] == 6


def test_info_and_compare_need_nothing_of_the_train_extra(tiny_onnx: Path) -> None:
    shown = run_core("info", tiny_onnx)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "multiply-adds" in shown.stdout
    compared = run_core("compare", tiny_onnx)
    assert (compared.returncode, compared.stderr) == (0, "")
    assert "compared with probe" in compared.stdout


def test_simulate_needs_nothing_of_the_train_extra(tmp_path: Path) -> None:
    result = run_core("simulate", tmp_path / "sim", "--scenes", "1", "--size-px", "16")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "sim" / "scenes.csv").exists()


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train {data} --out run", "tensorflow"),
        ("export {run} -o model.onnx", "tensorflow"),
        ("info {run}", "tensorflow"),
        ("demo --out demo", "tensorflow"),
        ("inspect {data} --sheet sheet.png", "matplotlib"),
        ("evaluate {data} --predictions {data}/masks --worst worst.png", "matplotlib"),
        ("evaluate {data} --folds {run}", "tensorflow"),
    ],
)
def test_a_missing_extra_names_its_install_line(
    geotiff_dataset: Path, tiny_run: Path, tmp_path: Path, command: str, missing: str
) -> None:
    words = command.format(data=geotiff_dataset, run=tiny_run).split()
    result = run_core(*words, cwd=tmp_path)
    line = f'Error: {missing} is not installed; get it with: pip install "cloudnet[train]"\n'
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("train {data} --out run", "tensorboard"),
        ("train {data} --out run", "matplotlib"),
        ("export {run} -o model.onnx", "tf2onnx"),
        ("export {run} -o model.onnx", "onnx"),
        ("demo --out demo", "tf2onnx"),
        ("demo --out demo", "matplotlib"),
    ],
)
def test_half_an_extra_is_noticed_before_the_work(
    geotiff_dataset: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    missing: str,
) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    words = command.format(data=geotiff_dataset, run=tiny_run).split()
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {missing} is not installed; get it with: pip install")
    assert list(tmp_path.iterdir()) == []


def test_cli_py_is_the_command_line() -> None:
    result = subprocess.run(
        [sys.executable, "cli.py", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )
    assert result.stderr == ""
    listed = result.stdout.partition("Commands:\n")[2].split("\n")
    assert [line.split()[0] for line in listed if line] == list(main.commands)


def test_the_console_script_is_the_command_line() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="cloudnet")
    assert script.load() is main
