"""Bad input: one sentence that names the file and the mend, an exit code, and nothing written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from cloudnet import remote
from cloudnet.commands import main
from cloudnet.layer import LayerWriter
from cloudnet.lock import lock_path
from cloudnet.product import Outputs
from cloudnet.reading import is_address
from cloudnet.runtime import PROBE_KEY
from cloudnet.spec import SPEC_KEY
from tests.helpers import (
    cloudy_scene,
    lopsided_scene,
    make_dataset,
    write_mask_tif,
    write_scene_npy,
    write_scene_tif,
)
from tests.products import (
    L2A_AFTER,
    Kind,
    lopsided_numbers,
    stac_item,
    write_jp2,
    write_safe,
    write_stac,
    zip_product,
)
from tests.server import serving
from tests.test_compare import tampered, with_answers, with_spec
from tests.test_runtime import write_graph
from tests.test_safe import lie

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Place:
    """Where a bad input is made: an empty folder, and good things to go with it.

    Attributes
    ----------
    folder
        For the bad input; what a command writes goes to `out` in it.
    model, run, data, scene
        A good ONNX file, its run, a good data set and one of its scenes.
    """

    folder: Path
    model: Path
    run: Path
    data: Path
    scene: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"


Words = list[str | Path]


@dataclass(frozen=True)
class Bad:
    """A bad input.

    Attributes
    ----------
    make
        Makes the bad input at a place and returns the command that meets it.
    says
        What the sentence says, as a pattern: what is wrong, and the mend.
    exit_code
        2: wrong use; 1: failed check.
    """

    make: Callable[[Place], Words]
    says: str
    exit_code: int = 2


def predict(place: Place, scene: Path, *more: str | Path) -> Words:
    return ["predict", scene, "-m", place.model, "-o", place.out, *more]


def predict_with(place: Place, model: Path) -> Words:
    return ["predict", place.scene, "-m", model, "-o", place.out]


def cut(path: Path, share: float = 0.5) -> Path:
    """Cut a file short."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def text(path: Path) -> Path:
    """Write a file that is no image and no model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("To whom it may concern\n")
    return path


def numbers() -> NDArray[np.uint16]:
    """Return digital numbers."""
    return np.rint(lopsided_scene(40, 60) * 10_000).astype(np.uint16)


def three_bands(path: Path) -> Path:
    names = ("red", "green", "blue")
    return write_scene_tif(path, lopsided_scene(40, 60, 3), descriptions=names)


def of_other_bands(place: Place) -> Path:
    bands = ["B02", "B03", "B04"]
    return with_spec(place.run / "model.keras", place.folder / "bad.keras", bands=bands)


def of_other_weights(place: Place) -> Path:
    return tampered(place.model, place.folder / "bad.onnx", weights=lambda array: array * 1.1)


def copied(place: Place) -> Path:
    """Copy the good data set, for a defect to be made in it."""
    return Path(shutil.copytree(place.data, place.folder / "data"))


def without(place: Place, part: str) -> Path:
    folder = copied(place)
    (folder / part).unlink()
    return folder


def empty_set(place: Place) -> Path:
    for part in ("scenes", "masks"):
        (place.folder / "data" / part).mkdir(parents=True)
    return place.folder / "data"


def mask_of_another_size(place: Place) -> Path:
    folder = copied(place)
    write_mask_tif(folder / "masks" / "scene02.tif", np.zeros((7, 9), dtype=np.uint8))
    return folder


def in_the_way(place: Place) -> Words:
    place.out.mkdir()
    text(place.out / "scene00_cloudmask.tif")
    return predict(place, place.scene)


def existing(place: Place, name: str) -> Path:
    return text(place.folder / name)


IMAGES = {
    "missing scene": Bad(lambda p: predict(p, p.folder / "bad.tif"), "does not exist"),
    "folder for a scene": Bad(lambda p: predict(p, p.data), "is a folder; a scene is a"),
    "three bands": Bad(
        lambda p: predict(p, three_bands(p.folder / "bad.tif")),
        r"has 3 bands \(red, green, blue\); name those for .* --bands",
    ),
    "five bands in an array": Bad(
        lambda p: predict(p, write_scene_npy(p.folder / "bad.npy", lopsided_scene(40, 60, 5))),
        r"shape \(40, 60, 5\); a scene is .* 13 bands .* or 4 .* --bands",
    ),
    "two axes": Bad(
        lambda p: predict(p, write_scene_npy(p.folder / "bad.npy", np.ones((4, 5)))),
        r"shape \(4, 5\); a scene is an array",
    ),
    "digital numbers": Bad(
        lambda p: predict(p, write_scene_npy(p.folder / "bad.npy", numbers())),
        "uint16 digital numbers .* give --scale and --offset",
    ),
    "digital numbers in a GeoTIFF": Bad(
        lambda p: predict(p, write_scene_tif(p.folder / "bad.tif", numbers(), scale=None)),
        "uint16 digital numbers .* give --scale and --offset",
    ),
    "digital numbers as floats": Bad(
        lambda p: predict(p, write_scene_npy(p.folder / "bad.npy", numbers().astype(np.float32))),
        "fit no reflectance; give --scale and --offset",
    ),
    "scaled twice": Bad(
        lambda p: predict(p, write_scene_npy(p.folder / "bad.npy", lopsided_scene(40, 60) * 1e-4)),
        "fit no reflectance; give --scale and --offset",
    ),
    "array cut short": Bad(
        lambda p: predict(p, cut(write_scene_npy(p.folder / "bad.npy", lopsided_scene(40, 60)))),
        "cut short .*; get the file again",
    ),
    "array of nothing but a header": Bad(
        lambda p: predict(
            p, cut(write_scene_npy(p.folder / "bad.npy", lopsided_scene(40, 60)), 0.001)
        ),
        "cut short .*; get the file again",
    ),
    "GeoTIFF cut short": Bad(
        lambda p: predict(p, cut(write_scene_tif(p.folder / "bad.tif", lopsided_scene(90, 90)))),
        "cut short .*; get the file again",
    ),
    "no image": Bad(
        lambda p: predict(p, text(p.folder / "bad.tif")), "is no readable image.*get the file again"
    ),
    "no array": Bad(
        lambda p: predict(p, text(p.folder / "bad.npy")), "is no readable image.*get the file again"
    ),
    "empty file": Bad(
        lambda p: predict(p, cut(text(p.folder / "bad.tif"), 0.0)), "is no readable image"
    ),
    "scene to compare": Bad(
        lambda p: ["compare", p.model, "--keras", p.run, text(p.folder / "bad.tif")],
        "is no readable image",
    ),
    "scene to describe": Bad(
        lambda p: ["info", text(p.folder / "bad.tif")], "is no readable image"
    ),
}

SETS = {
    "missing folder": Bad(
        lambda p: ["evaluate", p.folder / "bad", "-m", p.model], "bad is missing"
    ),
    "missing folder to train on": Bad(
        lambda p: ["train", p.folder / "bad", "--out", p.out], "bad is missing"
    ),
    "missing folder to inspect": Bad(lambda p: ["inspect", p.folder / "bad"], "bad is missing"),
    "file for a folder": Bad(lambda p: ["inspect", text(p.folder / "bad")], "bad is no folder"),
    "folder of something else": Bad(
        lambda p: ["inspect", p.run], "is no data set: it needs masks/ and one of subscenes/"
    ),
    "empty data set": Bad(
        lambda p: ["inspect", empty_set(p)], "data/scenes holds no .npy or .tif scene"
    ),
    "empty data set to train on": Bad(
        lambda p: ["train", empty_set(p), "--out", p.out], "data/scenes holds no"
    ),
    "mask without scene": Bad(
        lambda p: ["evaluate", without(p, "scenes/scene01.tif"), "-m", p.model],
        "masks/scene01.tif has no scene in .*; mend it, or give --skip-bad",
    ),
    "scene without mask": Bad(
        lambda p: ["train", without(p, "masks/scene01.tif"), "--out", p.out],
        "scenes/scene01.tif has no mask .*; mend it, or give --skip-bad",
    ),
    "mask of another size": Bad(
        lambda p: ["evaluate", mask_of_another_size(p), "-m", p.model],
        "masks/scene02.tif has 7 x 9 pixels, its scene 48 x 72; mend it, or give --skip-bad",
    ),
    "same folder twice": Bad(lambda p: ["inspect", p.data, p.data], "is given twice; name each"),
    "no predictions": Bad(
        lambda p: ["evaluate", p.data, "--predictions", p.folder / "bad"],
        "bad is no folder; give the one with the predicted masks",
    ),
    "predictions of other scenes": Bad(
        lambda p: ["evaluate", p.data, "--predictions", empty_set(p)],
        "holds no scene00_cloudmask.tif .*; predict the missing scenes",
    ),
}

MODELS = {
    "missing model": Bad(lambda p: predict_with(p, p.folder / "bad.onnx"), "give an ONNX file"),
    "misspelt model": Bad(lambda p: predict_with(p, Path("s2-rgnb")), "name of a model that comes"),
    "misspelt model to describe": Bad(lambda p: ["info", Path("s2-rgnb")], "name of a model"),
    "a folder as a model": Bad(lambda p: predict_with(p, p.run), "is no file; give an ONNX file"),
    "folder for a model": Bad(lambda p: predict_with(p, p.run), "give an ONNX file"),
    "no ONNX": Bad(lambda p: predict_with(p, text(p.folder / "bad.onnx")), "cloudnet export RUN"),
    "ONNX cut short": Bad(
        lambda p: predict_with(p, cut(Path(shutil.copy(p.model, p.folder / "bad.onnx")))),
        "bad.onnx is no ONNX file that runs here .* cloudnet export RUN",
    ),
    "ONNX not ours": Bad(
        lambda p: predict_with(p, write_graph(p.folder / "bad.onnx", {})),
        "bad.onnx holds no cloudnet spec.*make it with: cloudnet export",
    ),
    "ONNX without its spec": Bad(
        lambda p: predict_with(
            p, tampered(p.model, p.folder / "bad.onnx", metadata={SPEC_KEY: None})
        ),
        "bad.onnx holds no cloudnet spec.*make it with: cloudnet export",
    ),
    "ONNX with a damaged spec": Bad(
        lambda p: predict_with(
            p, tampered(p.model, p.folder / "bad.onnx", metadata={SPEC_KEY: "{"})
        ),
        "bad.onnx: its spec is not JSON",
    ),
    "ONNX without its probe": Bad(
        lambda p: predict_with(
            p, tampered(p.model, p.folder / "bad.onnx", metadata={PROBE_KEY: None})
        ),
        "bad.onnx holds no probe to compare with; export it again",
    ),
    "ONNX not ours to score": Bad(
        lambda p: ["evaluate", p.data, "-m", write_graph(p.folder / "bad.onnx", {})],
        "bad.onnx holds no cloudnet spec",
    ),
    "ONNX not ours to compare": Bad(
        lambda p: ["compare", write_graph(p.folder / "bad.onnx", {})], "holds no cloudnet spec"
    ),
    "ONNX not ours to describe": Bad(
        lambda p: ["info", write_graph(p.folder / "bad.onnx", {})], "holds no cloudnet spec"
    ),
    "probe that fails": Bad(
        lambda p: predict_with(p, with_answers(p.model, p.folder / "bad.onnx", 0.1)),
        "bad.onnx does not say what Keras says: .* do not use it, export it again",
        exit_code=1,
    ),
    "weights that fail": Bad(
        lambda p: ["evaluate", p.data, "-m", of_other_weights(p)],
        "bad.onnx does not say what Keras says: .* do not use it, export it again",
        exit_code=1,
    ),
    "Keras net of other bands": Bad(
        lambda p: predict(p, p.scene, "--keras", of_other_bands(p)),
        "bad.keras takes the bands B02, B03, B04 .* they are not the same net",
    ),
    "Keras net of other bands to describe": Bad(
        lambda p: ["info", of_other_bands(p)],
        "bad.keras takes the bands B02, B03, B04; this cloudnet feeds",
    ),
    "no Keras net": Bad(
        lambda p: ["compare", p.model, "--keras", text(p.folder / "bad.keras")],
        "bad.keras is no .keras file",
    ),
    "missing Keras net": Bad(
        lambda p: ["compare", p.model, "--keras", p.folder / "bad"], "give a .keras file or a run"
    ),
    "run without an epoch": Bad(
        lambda p: ["export", p.data, "-o", p.out / "model.onnx"],
        "geotiff holds no model.keras; train it for an epoch",
    ),
    "missing run": Bad(
        lambda p: ["export", p.folder / "bad", "-o", p.out / "model.onnx"],
        "give a .keras file or a run",
    ),
}

OUTPUTS = {
    "mask in the way": Bad(in_the_way, "scene00_cloudmask.tif exists; give --overwrite"),
    "file for the output folder": Bad(
        lambda p: predict(p, p.scene, "--output", existing(p, "bad")),
        "bad is a file where an output folder is needed",
    ),
    "model in the way": Bad(
        lambda p: ["export", p.run, "-o", existing(p, "bad.onnx")],
        "bad.onnx exists; give --overwrite",
    ),
    "run in the way": Bad(
        lambda p: ["train", p.data, "--out", p.run], "holds a run; give --resume, or another --out"
    ),
    "scores in the way": Bad(
        lambda p: ["evaluate", p.data, "-m", p.model, "--csv", existing(p, "bad.csv")],
        "bad.csv exists; give --overwrite",
    ),
    "folder for the scores": Bad(
        lambda p: ["evaluate", p.data, "-m", p.model, "--csv", p.data],
        "is a folder where a file is to be written; name a file",
    ),
    "simulated set in the way": Bad(
        lambda p: ["simulate", p.data, "--scenes", "1"], "scenes.csv exists; give --overwrite"
    ),
    "sheet of another kind": Bad(
        lambda p: ["inspect", p.data, "--sheet", p.folder / "bad.jpg"],
        "bad.jpg: a contact sheet is a PNG; give it a name",
    ),
    "two scenes of one name": Bad(
        lambda p: predict(p, p.scene, Path(shutil.copy(p.scene, p.folder / p.scene.name))),
        "bear one name",
    ),
}

OPTIONS = {
    "--threshold 2": Bad(lambda p: predict(p, p.scene, "--threshold", "2"), "--threshold.*2"),
    "--threshold 0": Bad(lambda p: predict(p, p.scene, "--threshold", "0"), "--threshold.*0"),
    "--threshold of evaluate": Bad(
        lambda p: ["evaluate", p.data, "-m", p.model, "--threshold", "1"], "--threshold.*1"
    ),
    "--tile-px 0": Bad(lambda p: predict(p, p.scene, "--tile-px", "0"), "--tile-px.*0"),
    "--tile-px of train": Bad(
        lambda p: ["train", p.data, "--out", p.out, "--tile-px", "100"], "tile of 100 px"
    ),
    "--atol 0": Bad(lambda p: predict(p, p.scene, "--atol", "0"), "--atol.*0"),
    "--bands 1,2": Bad(
        lambda p: predict(p, p.scene, "--bands", "1,2"), "--bands names 2 bands; it takes 4"
    ),
    "--bands 1,2,3,9": Bad(
        lambda p: predict(p, p.scene, "--bands", "1,2,3,9"), "scene00.tif has 4 bands.* --bands"
    ),
    "--bands 1,1,2,3": Bad(
        lambda p: predict(p, p.scene, "--bands", "1,1,2,3"), "--bands names a band twice"
    ),
    "--scale 0": Bad(lambda p: predict(p, p.scene, "--scale", "0"), "--scale is a number above 0"),
    "--scale text": Bad(lambda p: predict(p, p.scene, "--scale", "x"), "--scale.*'x'"),
    "--offset nan": Bad(lambda p: predict(p, p.scene, "--offset", "nan"), "--offset is a number"),
    "--no-validation with --folds": Bad(
        lambda p: [
            *["train", p.data, "--out", p.out, "--recipe", "s2-rgbn", "--no-validation"],
            *["--folds", "2"],
        ],
        "--no-validation leaves nothing for --folds",
    ),
    "--no-validation with --protocol": Bad(
        lambda p: [
            *["train", p.data, "--out", p.out, "--recipe", "s2-rgbn", "--no-validation"],
            *["--protocol", "catalogue"],
        ],
        "--no-validation leaves nothing for --folds or --protocol",
    ),
    "--no-validation without --recipe": Bad(
        lambda p: ["train", p.data, "--out", p.out, "--no-validation"], "needs a --recipe"
    ),
    "--recipe that is not known": Bad(
        lambda p: ["train", p.data, "--out", p.out, "--recipe", "s3"], "s2-rgbn"
    ),
    "--tile-px of a recipe": Bad(
        lambda p: ["train", p.data, "--out", p.out, "--recipe", "s2-rgbn", "--tile-px", "100"],
        "tile of 100 px",
    ),
    "--folds 1": Bad(lambda p: ["train", p.data, "--out", p.out, "--folds", "1"], "folds"),
    "--learning-rate 0": Bad(
        lambda p: ["train", p.data, "--out", p.out, "--learning-rate", "0"], "learning rate"
    ),
    "--contract": Bad(
        lambda p: ["export", p.run, "-o", p.out, "--contract", "nchw"], "--contract.*nchw-224"
    ),
    "--size-px 1": Bad(lambda p: ["simulate", p.out, "--size-px", "1"], "--size-px.*1"),
    "no scene": Bad(lambda p: ["predict", "-m", p.model, "-o", p.out], "SCENES"),
    "scenes to compare without Keras": Bad(
        lambda p: ["compare", p.model, p.scene], "--keras; without it give none"
    ),
}


def item_of(place: Place, band: dict[str, float] | None, *, scale: float = 1.0) -> Path:
    """Write a STAC item of four assets."""
    for name, part in zip(COMMON_NAMES, np.moveaxis(lopsided_scene(8, 9) * scale, 2, 0)):
        values = part[..., np.newaxis].astype(np.float32)
        write_scene_tif(place.folder / f"{name}.tif", values, scale=None, descriptions=None)
    made = stac_item({name: f"{name}.tif" for name in COMMON_NAMES}, band)
    return write_stac(place.folder / "bad.json", made)


COMMON_NAMES = ("red", "green", "blue", "nir")
GONE = "http://127.0.0.1:9/bad.tif"


def product(place: Place, kind: Kind = L2A_AFTER, side: int = 64) -> Path:
    return write_safe(place.folder, lopsided_numbers(side, side), kind)


def band_of(place: Place, band: str) -> Path:
    return product(place) / f"{L2A_AFTER.image(band)}.jp2"


def of_product(path: Path) -> Path:
    """Return the product's folder of a band file in it."""
    return path.parents[4]


def without_band(place: Place) -> Path:
    band = band_of(place, "B08")
    band.unlink()
    return of_product(band)


def with_band_of_another_size(place: Place) -> Path:
    band = band_of(place, "B08")
    write_jp2(band, lopsided_numbers(4, 5)[..., 3])
    return of_product(band)


def with_two_granules(place: Place) -> Path:
    granule = band_of(place, "B08").parents[2]
    shutil.copytree(granule, granule.with_name("L2A_T33UUQ_A041564_20230607T100601"))
    return granule.parents[1]


def with_cut_band(place: Place) -> Path:
    return of_product(cut(band_of(place, "B02"), 0.9))


def with_metadata(place: Place, change: Callable[[str], str]) -> Path:
    folder = product(place)
    path = folder / L2A_AFTER.metadata
    path.write_text(change(path.read_text()))
    return folder


def with_external_entity(xml: str) -> str:
    head, _, body = xml.partition("\n")
    return f'{head}<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>{body}'


def zipped(place: Place) -> Path:
    return zip_product(product(place), place.folder / "bad.zip")


def zip_that_leaves(place: Place) -> Path:
    archive = zipped(place)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../bad", b"x")
    return archive


def zip_that_lies(place: Place) -> Path:
    archive = zipped(place)
    lie(archive, "_B02_10m.jp2", 10**6)
    return archive


def locked(place: Place) -> Words:
    """Make the lock that a process which lives holds: the one that started this one."""
    place.out.mkdir()
    holder = {"pid": os.getppid(), "host": socket.gethostname(), "started": "", "token": "x"}
    lock_path(Outputs(place.out, "scene00").mask).write_text(json.dumps(holder))
    return predict(place, place.scene)


PRODUCTS = {
    "product without a band": Bad(
        lambda p: predict(p, without_band(p)), "lacks GRANULE/.*_B08_10m.jp2, .*; get it again"
    ),
    "product with a band of another size": Bad(
        lambda p: predict(p, with_band_of_another_size(p)),
        "has 4 x 5 pixels where B04 has 64 x 64 pixels; get the product again",
    ),
    "product of two granules": Bad(
        lambda p: predict(p, with_two_granules(p)), "holds 2 granules .*; give each in a product"
    ),
    "product with a truncated band": Bad(
        lambda p: predict(p, with_cut_band(p)), "_B02_10m.jp2 .* cut short .*; get the file again"
    ),
    "product with malformed metadata": Bad(
        lambda p: predict(p, with_metadata(p, lambda xml: xml[:-40])), "no well-formed XML"
    ),
    "product with an external entity": Bad(
        lambda p: predict(p, with_metadata(p, with_external_entity)), "declares a document type"
    ),
    "product of another mission": Bad(
        lambda p: predict(p, product(p, replace(L2A_AFTER, mission="Landsat-8"))),
        "is of Landsat-8; give a product of Sentinel-2",
    ),
    "product to describe": Bad(
        lambda p: ["info", without_band(p)], "lacks GRANULE/.*_B08_10m.jp2, .*; get it again"
    ),
    "zip with a path that leaves": Bad(
        lambda p: predict(p, zip_that_leaves(p)), r"'\.\./bad' in it leads out of the folder"
    ),
    "zip that unpacks to more than it says": Bad(
        lambda p: predict(p, zip_that_lies(p)), "unpack to 1000000, which cannot be; get the zip"
    ),
    "zip cut short": Bad(lambda p: predict(p, cut(zipped(p))), "bad.zip cannot be unpacked"),
    "address that does not answer": Bad(
        lambda p: ["predict", GONE, "-m", p.model, "-o", p.out],
        f"{GONE} does not answer .*; check the address",
    ),
    "item without scale": Bad(
        lambda p: predict(p, item_of(p, None, scale=100.0)), "fit no reflectance; give --scale"
    ),
    "item whose scale is none": Bad(
        lambda p: predict(p, item_of(p, {"scale": 0.0, "offset": 0.0})),
        "says scale 0, offset 0, which give no reflectance; give --scale",
    ),
    "output that another process writes": Bad(
        locked, "scene00_cloudmask.tif is being written by another process .*; wait for it"
    ),
}

TABLE = {**IMAGES, **SETS, **PRODUCTS, **MODELS, **OUTPUTS, **OPTIONS}


@pytest.fixture
def place(tmp_path: Path, tiny_onnx: Path, tiny_run: Path, geotiff_dataset: Path) -> Place:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    return Place(tmp_path, tiny_onnx, tiny_run, geotiff_dataset, scene)


def run(words: Words) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence_of(result: Result) -> str:
    """Return the one sentence on stderr; before it, click may say how the command is used."""
    assert isinstance(result.exception, SystemExit), result.exception
    usage = r"Usage: .*\nTry 'main .* --help' for help\.\n\n"
    found = re.fullmatch(rf"(?:{usage})?Error: (.+)\n", result.stderr)
    assert found, result.stderr
    assert "Traceback" not in result.output
    return found[1]


@pytest.mark.parametrize("what", TABLE)
def test_bad_input_gets_one_sentence_and_leaves_nothing(place: Place, what: str) -> None:
    bad = TABLE[what]
    words = bad.make(place)
    before = {path: contents(path) for path in (place.folder, place.data, place.run)}
    result = run(words)
    assert result.exit_code == bad.exit_code
    sentence = sentence_of(result)
    assert re.search(bad.says, sentence)
    files = [str(word) for word in words if isinstance(word, Path) or is_address(word)]
    assert what in OPTIONS or any(path in sentence for path in files)
    for path, content in before.items():
        assert contents(path) == content


def test_an_address_that_breaks_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudnet.remote.WAIT_S", 0.0)
    monkeypatch.setitem(remote.GDAL_SETTINGS, "retry_delay", "0.01")
    values = np.random.default_rng(1).random((400, 400, 4)).astype(np.float32)
    write_scene_tif(place.folder / "scene.tif", values)
    before = contents(place.folder)
    with serving(place.folder) as server:
        server.breaks_after = 200_000
        address = server.address("scene.tif")
        result = run(["predict", address, "-m", place.model, "-o", place.out])
    assert result.exit_code == 2
    assert re.search(r"scene\.tif broke off, .*; get the file again", sentence_of(result))
    assert contents(place.folder) == before


def test_no_room_to_write(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LayerWriter, "write", refuse)
    result = run(predict(place, place.scene, "--probability"))
    assert result.exit_code == 2
    mask = place.out / "scene00_cloudmask.tif"
    assert sentence_of(result) == f"{mask} cannot be written: No space left on device"
    assert contents(place.folder) == {}


FULL_DISK = """
import resource, sys
sys.path.insert(0, {!r})
from cloudnet.commands import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))
main()
"""
"""The command line where no file can grow beyond a size: to GDAL that is a full disk."""


@pytest.mark.parametrize("size", [0, 100, 1500])
def test_no_room_in_earnest(place: Place, size: int) -> None:
    """GDAL notices in other places than the test above, and libtiff notes it on stderr."""
    values, _ = cloudy_scene(np.random.default_rng(1), 99, 99)
    path = write_scene_tif(place.folder / "scene.tif", values)
    before = contents(place.folder)
    code = FULL_DISK.format(str(ROOT), size)
    words = predict(place, path, "--probability", "--no-quicklook")
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    mask = re.escape(str(place.out / "scene_cloudmask.tif"))
    said = f"Error: {mask} cannot be (written|locked): .+\n"
    assert re.fullmatch(said, result.stderr), result.stderr
    assert contents(place.folder) == before


def test_no_room_for_the_scores(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    path = place.folder / "scores.csv"
    result = run(["evaluate", place.data, "-m", place.model, "--csv", path])
    assert result.exit_code == 2
    assert sentence_of(result) == f"{path} cannot be written: No space left on device"
    assert contents(place.folder) == {}


def test_ctrl_c_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LayerWriter, "write", stop)
    result = run(predict(place, place.scene))
    assert result.exit_code == 130
    assert result.stderr.strip() == "Aborted!"
    assert contents(place.folder) == {}


def test_a_bad_scene_does_not_undo_the_good_one_before_it(place: Place) -> None:
    result = run(predict(place, place.scene, text(place.folder / "bad.tif")))
    assert result.exit_code == 1
    failed, count = result.stderr.splitlines()
    assert "bad.tif is no readable image" in failed
    assert count.startswith("Error: 1 of 2 scenes failed")
    assert sorted(path.name for path in place.out.iterdir()) == [
        "manifest.jsonl",
        "scene00_cloudmask.json",
        "scene00_cloudmask.tif",
        "scene00_quicklook.png",
    ]


def test_several_lines_of_a_library_become_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudnet.errors import SceneError

    def refuse(*_: object) -> None:
        raise SceneError("a.tif is bad:\nvery\nbad")

    monkeypatch.setattr("cloudnet.scene.open_scene", refuse)
    assert sentence_of(run(["info", place.scene])) == "a.tif is bad: very bad"


def test_a_scene_without_a_valid_pixel_is_not_bad(place: Place) -> None:
    path = write_scene_tif(place.folder / "void.tif", np.zeros((9, 5, 4), np.float32), nodata=0)
    result = run(predict(place, path))
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(place.out / "void_cloudmask.tif") as file:
        assert (file.read(1) == 255).all()
    shown = run(["info", path])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "100.00%" in shown.stdout


def test_a_scene_of_one_pixel_is_not_bad(place: Place) -> None:
    path = write_scene_tif(place.folder / "pixel.tif", lopsided_scene(1, 1))
    result = run(predict(place, path, "--probability", "--exact"))
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(place.out / "pixel_cloudmask.tif") as file:
        mask = file.read(1)
    with rasterio.open(place.out / "pixel_cloudprobability.tif") as file:
        percent = file.read(1)
    assert mask.shape == (1, 1)
    assert 0 <= percent[0, 0] <= 100
    assert mask[0, 0] == (percent[0, 0] >= 50)
    compared = run(["compare", place.model, "--keras", place.run, path])
    assert (compared.exit_code, compared.stderr) == (0, "")


def test_a_single_nan_is_not_bad(place: Place) -> None:
    values, _ = cloudy_scene(np.random.default_rng(8), 40, 50)
    values[11, 22, 3] = nan
    path = write_scene_tif(place.folder / "nan.tif", values, scale=None)
    result = run(predict(place, path))
    assert (result.exit_code, result.stderr) == (0, "")
    with rasterio.open(place.out / "nan_cloudmask.tif") as file:
        mask = file.read(1)
    np.testing.assert_array_equal(np.argwhere(mask == 255), [(11, 22)])


def test_a_data_set_of_one_pixel_scenes_is_not_bad(place: Place) -> None:
    folder = make_dataset(place.folder / "data", scenes=2, size=(1, 1))
    commands: list[Words] = [["inspect", folder], ["evaluate", folder, "-m", place.model]]
    for words in commands:
        result = run(words)
        assert (result.exit_code, result.stderr) == (0, "")
