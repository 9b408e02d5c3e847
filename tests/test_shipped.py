"""The models that come with cloudnet: found by name, used by default, small enough to come along.

What is asked of the code is asked with the tiny net in their place, `tiny_shipped`.
"""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path, PurePath

import pytest
from click.testing import CliRunner, Result

import cloudnet
from cloudnet import shipped
from cloudnet.commands import main
from cloudnet.compare import replay_probe
from cloudnet.errors import ModelError
from cloudnet.runtime import FACTS_KEY, load_model
from cloudnet.shipped import (
    DEFAULT_MODEL,
    MODELS_FOLDER,
    find_keras,
    find_model,
    is_name,
    model_card,
    shipped_models,
)
from tests.test_compare import tampered
from tests.test_imports import CORE_ALONE, TRAIN_EXTRA, loaded_by, run_python

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
MAX_BYTES = 5_000_000

INT8_MODEL = "s2-rgbn-int8"
FILES = (
    "s2-rgbn.onnx", "s2-rgbn-int8.onnx", "s2-rgbn.keras", "MODEL_CARD.md", "MODEL_CHANGELOG.md",
    "REPORT.md",
)  # fmt: skip
"""What the package's own folder holds, pictures aside."""


def invoke(*arguments: str | Path) -> Result:
    """Run a command in this process; its exceptions, exits aside, are this test's."""
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def refused(result: Result) -> str:
    """Return the sentence of a command that ended on wrong use, with nothing else said."""
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return result.stderr.removeprefix("Error: ").rstrip("\n")


def packaged_globs() -> list[str]:
    """Return the globs of package data in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["options.package_data"]["cloudnet"].split()


def package_files() -> list[Path]:
    return [
        path
        for path in (ROOT / "cloudnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def is_packaged(path: PurePath) -> bool:
    """Tell whether a path within the package matches a glob from its first folder on."""
    return any(
        len(path.parts) == len(PurePath(pattern).parts) and path.match(pattern)
        for pattern in packaged_globs()
    )


def test_the_package_is_small() -> None:
    files = package_files()
    assert ROOT / "cloudnet" / "shipped.py" in files
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


def test_what_is_no_code_is_package_data() -> None:
    data = [path for path in package_files() if path.suffix != ".py"]
    assert data
    left_out = [path for path in data if not is_packaged(path.relative_to(ROOT / "cloudnet"))]
    assert left_out == []


@pytest.mark.parametrize("name", [*FILES, "snow.png"])
def test_the_models_are_package_data(name: str) -> None:
    assert is_packaged(PurePath("models", name))
    assert not is_packaged(PurePath("other", name))


def test_names_and_files(tiny_shipped: Path) -> None:
    default, int8 = shipped_models()
    assert (default.name, default.is_default) == (DEFAULT_MODEL, True)
    assert default.path == tiny_shipped / "s2-rgbn.onnx"
    assert default.keras == tiny_shipped / "s2-rgbn.keras"
    assert default.size_bytes == len(default.path.read_bytes())
    assert (int8.name, int8.is_default, int8.keras) == (INT8_MODEL, False, None)
    assert model_card() == tiny_shipped / "MODEL_CARD.md"
    assert cloudnet.shipped_models() == (default, int8)


def test_the_default_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("z", "s2-rgbn", "s2-rgbn-int8", "a"):
        (tmp_path / f"{name}.onnx").write_bytes(b"")
    (tmp_path / "z.keras").write_bytes(b"")
    monkeypatch.setattr(shipped, "MODELS_FOLDER", tmp_path)
    assert [model.name for model in shipped_models()] == ["s2-rgbn", "a", "s2-rgbn-int8", "z"]


def test_a_path_wins_then_a_name(
    tiny_shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_model(INT8_MODEL) == tiny_shipped / "s2-rgbn-int8.onnx"
    assert find_model(Path(DEFAULT_MODEL)) == tiny_shipped / "s2-rgbn.onnx"
    assert find_keras(DEFAULT_MODEL) == tiny_shipped / "s2-rgbn.keras"
    assert is_name(Path(DEFAULT_MODEL))
    own = Path(DEFAULT_MODEL)
    own.write_bytes(b"my own")
    assert find_model(DEFAULT_MODEL) == find_keras(DEFAULT_MODEL) == own
    assert not is_name(own)
    # Who names nothing gets the default, whatever lies about.
    assert find_model() == tiny_shipped / "s2-rgbn.onnx"


@pytest.mark.parametrize(
    "name", ["s2-rgnb", "s2-rgbn.onnx", "models/s2-rgbn", "S2-RGBN", "x" * 300]
)
def test_what_is_neither_gets_the_names(
    name: str, tiny_shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert str(caught.value) == (
        f"{name} does not exist; give an ONNX file, or the name of a model that comes with "
        "cloudnet: s2-rgbn, s2-rgbn-int8"
    )
    assert find_keras(name) == Path(name)


def test_a_model_without_keras_says_which_has_one(tiny_shipped: Path) -> None:
    with pytest.raises(ModelError, match=f"{INT8_MODEL} comes without.*: s2-rgbn$"):
        find_keras(INT8_MODEL)


def test_an_installation_without_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "MODELS_FOLDER", tmp_path / "none")
    assert shipped_models() == ()
    missing = f"{tmp_path / 'none' / 's2-rgbn.onnx'}, the default model, is missing; "
    assert refused(invoke("models")) == f"{missing}install cloudnet again"
    with pytest.raises(ModelError, match=r"is missing; install cloudnet again$"):
        load_model()
    with pytest.raises(ModelError, match=r"comes with cloudnet: none is there, install"):
        load_model("s2-rgbn-int8")


def test_the_runtime_takes_a_name_or_nothing(tiny_shipped: Path) -> None:
    assert cloudnet.load_model().path == tiny_shipped / "s2-rgbn.onnx"
    assert cloudnet.load_model(INT8_MODEL).spec.threshold == 0.25
    assert load_model(DEFAULT_MODEL).precision == "fp32"
    assert load_model(INT8_MODEL).precision == "INT8"


def test_the_list_of_models(tiny_shipped: Path) -> None:
    result = invoke("models")
    assert (result.exit_code, result.stderr) == (0, "")
    header, _, default, int8, empty, last = result.stdout.splitlines()
    facts = json.loads(load_model().metadata[FACTS_KEY])
    numbers = [f"{facts['parameters']:,}", f"{facts['macs_per_pixel']:,.0f}"]
    kb = [f"{(tiny_shipped / name).stat().st_size / 1000:,.0f}" for name in FILES[:2]]
    assert header.split()[:4] == ["model", "kB", "parameters", "multiply-adds/px"]
    version = load_model().spec.version
    bands = ["B04", "B03", "B02", "B08"]
    assert default.split() == [
        "s2-rgbn", "(default)", kb[0], *numbers, "fp32", "0.5", *bands, version,
    ]  # fmt: skip
    assert int8.split() == ["s2-rgbn-int8", kb[1], *numbers, "INT8", "0.25", *bands, version]
    assert (empty, last) == ("", f"model card: {tiny_shipped / 'MODEL_CARD.md'}")


def test_the_list_of_models_as_json(tiny_shipped: Path) -> None:
    listed = json.loads(invoke("models", "--json").stdout)
    assert listed["model_card"] == str(tiny_shipped / "MODEL_CARD.md")
    default, int8 = listed["models"]
    assert default["keras"] == str(tiny_shipped / "s2-rgbn.keras") and int8["keras"] is None
    assert [model["default"] for model in (default, int8)] == [True, False]
    assert [model["precision"] for model in (default, int8)] == ["fp32", "INT8"]
    assert [model["threshold"] for model in (default, int8)] == [0.5, 0.25]
    assert int8["sha256"] == load_model(INT8_MODEL).sha256
    assert int8["bytes"] == (tiny_shipped / "s2-rgbn-int8.onnx").stat().st_size


def test_a_file_without_facts_is_listed(tiny_shipped: Path) -> None:
    path = tiny_shipped / "s2-rgbn-int8.onnx"
    tampered(path, path, metadata={FACTS_KEY: None})
    result = invoke("models")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[3].split()[2:4] == ["–", "–"]


@pytest.mark.parametrize("command", ["models", "info s2-rgbn-int8", "compare s2-rgbn-int8"])
def test_a_damaged_model_gets_one_sentence(command: str, tiny_shipped: Path) -> None:
    path = tiny_shipped / "s2-rgbn-int8.onnx"
    path.write_bytes(path.read_bytes()[:-2000])
    sentence = refused(invoke(*command.split()))
    assert sentence.startswith(f"{path} is no ONNX file that runs here (")
    assert sentence.endswith("); install cloudnet again")


@pytest.mark.parametrize("facts", ["[1, 2]", "{", '{"parameters": "many"}'])
def test_damaged_facts_get_one_sentence(facts: str, tiny_shipped: Path) -> None:
    path = tiny_shipped / "s2-rgbn-int8.onnx"
    tampered(path, path, metadata={FACTS_KEY: facts})
    for command in (["models"], ["info", INT8_MODEL]):
        assert refused(invoke(*command)).startswith(f"{path}: its {FACTS_KEY} are damaged")


def test_predict_by_default_and_by_name(
    tiny_shipped: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    for options, name in (([], DEFAULT_MODEL), (["-m", INT8_MODEL], INT8_MODEL)):
        result = invoke("predict", scene, "-o", tmp_path, "--overwrite", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        summary = json.loads((tmp_path / "scene00_cloudmask.json").read_text())
        assert summary["model"]["sha256"] == load_model(name).sha256


def test_evaluate_by_default_and_by_name(tiny_shipped: Path, geotiff_dataset: Path) -> None:
    for options, name in (([], DEFAULT_MODEL), (["-m", INT8_MODEL], INT8_MODEL)):
        result = invoke("evaluate", geotiff_dataset, "--json", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        model = load_model(name)
        scores = json.loads(result.stdout)
        assert model.sha256[:12] in scores["model"]
        assert scores["threshold"] == model.spec.threshold


def test_info_by_name(tiny_shipped: Path) -> None:
    result = invoke("info", INT8_MODEL)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == invoke("info", tiny_shipped / "s2-rgbn-int8.onnx").stdout
    assert str(tiny_shipped / "s2-rgbn-int8.onnx") in result.stdout.splitlines()[0]
    assert "\nnumbers " in result.stdout and "INT8" in result.stdout


def test_compare_by_name_and_with_keras_by_name(tiny_shipped: Path) -> None:
    replayed = invoke("compare", DEFAULT_MODEL)
    assert (replayed.exit_code, replayed.stderr) == (0, "")
    assert "compared with probe" in replayed.stdout
    live = invoke("compare", DEFAULT_MODEL, "--keras", DEFAULT_MODEL)
    assert (live.exit_code, live.stderr) == (0, "")
    assert "compared with Keras, live" in live.stdout


def test_predict_compares_with_keras_by_name(
    tiny_shipped: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    result = invoke("predict", scene, "-o", tmp_path, "--keras", DEFAULT_MODEL)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("compared with Keras, live")
    refusal = invoke("predict", scene, "-o", tmp_path / "other", "--keras", INT8_MODEL)
    assert refused(refusal).startswith(f"{INT8_MODEL} comes without a .keras file")
    assert not (tmp_path / "other").exists()


def test_a_shipped_model_that_fails_its_probe_writes_nothing(
    tiny_shipped: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    path = tiny_shipped / "s2-rgbn.onnx"
    tampered(path, path, weights=lambda array: array * 1.1)
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    result = invoke("predict", scene, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path} does not say what Keras says")
    assert not (tmp_path / "out").exists()


def test_the_names_alone_import_nothing_heavy() -> None:
    assert loaded_by("import cloudnet.shipped; cloudnet.shipped_models()") == []


def run_core(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command with another folder of models, where the train extra is not installed."""
    moved = f"from cloudnet import shipped\nshipped.MODELS_FOLDER = Path({str(folder)!r})\n"
    code = f"from pathlib import Path\n{moved}{CORE_ALONE.format(TRAIN_EXTRA)}"
    return run_python(code, *map(str, arguments))


def test_shipped_models_need_nothing_of_the_train_extra(
    tiny_shipped: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    for arguments in (
        ["models"],
        ["info", DEFAULT_MODEL],
        ["predict", geotiff_dataset / "scenes" / "scene00.tif", "-o", tmp_path],
    ):
        result = run_core(tiny_shipped, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
    compared = run_core(tiny_shipped, "compare", DEFAULT_MODEL, "--keras", DEFAULT_MODEL)
    assert compared.returncode == 0
    assert "the probe is replayed instead" in compared.stderr


# The package's own files.


def test_the_package_holds_what_it_says() -> None:
    missing = [name for name in FILES if not (MODELS_FOLDER / name).is_file()]
    assert not missing
    assert {model.name for model in shipped_models()} >= {DEFAULT_MODEL, INT8_MODEL}
    assert load_model(INT8_MODEL).precision == "INT8"
    assert load_model().precision == "fp32"


def test_every_shipped_model_passes_its_probe() -> None:
    for model in shipped_models():
        comparison = replay_probe(load_model(model.path))
        comparison.require(model.path)
        assert comparison.largest < 1.0


def test_the_card_names_every_model() -> None:
    card = model_card().read_text(encoding="utf-8")
    assert [model.name for model in shipped_models() if model.name not in card] == []


def test_the_models_are_listed_whole() -> None:
    listed = json.loads(invoke("models", "--json").stdout)["models"]
    assert all(model["parameters"] and model["macs_per_pixel"] for model in listed)


def test_the_default_model_finds_clouds_in_the_sample(tmp_path: Path) -> None:
    scenes = sorted((SAMPLE / "scenes").glob("*.tif"))
    result = invoke("predict", *scenes, "-o", tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    scored = json.loads(invoke("evaluate", SAMPLE, "--predictions", tmp_path, "--json").stdout)
    assert scored["pooled"]["iou"] > 0.5


@pytest.mark.parametrize("name", [DEFAULT_MODEL, INT8_MODEL])
def test_the_shipped_net_says_live_what_its_keras_says(name: str) -> None:
    pytest.importorskip("tensorflow", reason="Keras runs with the train extra")
    result = invoke("compare", name, "--keras", DEFAULT_MODEL)
    assert (result.exit_code, result.stderr) == (0, "")
