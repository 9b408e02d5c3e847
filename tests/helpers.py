"""What several tests need: small scenes without symmetry, small data sets that a net can learn."""

from __future__ import annotations

import csv
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cloudnet.spec import BANDS, CATALOGUE_BANDS

if TYPE_CHECKING:
    from cloudnet.dataset import DataSet, LabelledScene
    from cloudnet.probe import Probe
    from cloudnet.train import TrainConfig

UTM_10M = Affine(10.0, 0.0, 399960.0, 0.0, -10.0, 5300040.0)
LOCAL_CRS = 'LOCAL_CS["a quarry",UNIT["metre",1]]'
"""Of a place that is nowhere on Earth."""

MGRS_LETTERS = "ABCDEFGHJKLMNPQRSTUV"


def lopsided_scene(rows: int, cols: int, bands: int = 4) -> NDArray[np.float32]:
    """Return reflectance (rows, cols, bands) that grows by row, faster by column, and by band.

    No flip, transpose or exchange of bands leaves it as it is, and it is above 0 everywhere.
    """
    row, col, band = np.ogrid[:rows, :cols, :bands]
    return np.asarray(
        0.02 + 0.2 * row / rows + 0.3 * col / cols + 0.4 * band / bands, dtype=np.float32
    )


def write_scene_tif(
    path: Path,
    values: NDArray[Any],
    *,
    scale: float | Sequence[float] | None = 1e-4,
    offset: float | Sequence[float] = 0.0,
    nodata: float | None = None,
    descriptions: Sequence[str | None] | None = BANDS,
    crs: str | None = "EPSG:32633",
    transform: Any = UTM_10M,
    mask: NDArray[np.bool_] | None = None,
    colorinterp: Sequence[Any] | None = None,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF scene.

    Parameters
    ----------
    path
        The file; its folder is made.
    values
        (rows, cols, bands). Integers are digital numbers and are written as they are. Floats are
        reflectance: written as uint16 digital numbers by scale and offset, or, where `scale` is
        None, as they are.
    scale, offset
        Written into the file, one for all bands or one a band; None: none is written.
    nodata, descriptions, crs, transform
        Written into the file where they are not None.
    mask
        (rows, cols), True where valid: written as an internal mask.
    colorinterp
        Colour interpretation of the bands.
    profile
        Other settings of GDAL's driver.
    """
    rows, cols, count = values.shape
    if values.dtype.kind == "f" and scale is not None:
        numbers = np.rint((values - np.asarray(offset)) / np.asarray(scale))
        values = np.clip(numbers, 0, 65535).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=rows,
            width=cols,
            count=count,
            dtype=values.dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as target,
    ):
        target.write(np.moveaxis(values, 2, 0))
        if descriptions is not None:
            target.descriptions = tuple(descriptions)
        if scale is not None:
            target.scales = np.broadcast_to(scale, count).tolist()
            target.offsets = np.broadcast_to(offset, count).tolist()
        if colorinterp is not None:
            target.colorinterp = tuple(colorinterp)
        if mask is not None:
            target.write_mask(mask)
    return path


def write_vrt(path: Path, source: Path, size: tuple[int, int], bands: Sequence[str]) -> Path:
    """Write a file of GDAL's that holds no pixels but takes those of bands of `source`."""
    parts = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description>'
        f"<Scale>0.0001</Scale><SimpleSource><SourceFilename>{source}</SourceFilename>"
        f"<SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        for number, band in enumerate(bands, start=1)
    )
    grid = ", ".join(map(str, UTM_10M.to_gdal()))
    path.write_text(
        f'<VRTDataset rasterYSize="{size[0]}" rasterXSize="{size[1]}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{grid}</GeoTransform>{parts}</VRTDataset>"
    )
    return path


def write_mask_tif(
    path: Path, mask: NDArray[Any], *, nodata: float | None = 255, **profile: Any
) -> Path:
    """Write a mask (rows, cols): 0 clear, 1 cloud, 255 unlabelled; or (rows, cols, bands)."""
    stack = mask[..., np.newaxis] if mask.ndim == 2 else mask
    return write_scene_tif(path, stack, scale=None, nodata=nodata, descriptions=None, **profile)


def write_mask_npy(path: Path, mask: NDArray[Any], shadow: NDArray[np.bool_] | None = None) -> Path:
    """Write a mask (rows, cols) of 0, 1, 255 in the catalogue's layout: CLEAR, CLOUD, CLOUD_SHADOW.

    `shadow` says which of the clear pixels are marked as shadow.
    """
    shaded = np.zeros(mask.shape, dtype=bool) if shadow is None else shadow & (mask == 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([(mask == 0) & ~shaded, mask == 1, shaded], axis=2))
    return path


def write_scene_npy(path: Path, values: NDArray[Any]) -> Path:
    """Write an array (rows, cols, bands) as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def write_labelled_scene(
    folder: Path, name: str, values: NDArray[Any], mask: NDArray[Any]
) -> LabelledScene:
    """Write a scene (rows, cols, bands) and its mask as arrays, and return the pair."""
    from cloudnet.dataset import LabelledScene

    path = write_scene_npy(folder / "scenes" / f"{name}.npy", values)
    labels = write_mask_npy(folder / "masks" / f"{name}.npy", mask)
    rows, cols = mask.shape
    return LabelledScene(name, path, labels, rows, cols, name)


def cloudy_scene(
    rng: np.random.Generator, rows: int, cols: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return reflectance (rows, cols, 4) and mask of bright blobs over darker, textured ground.

    Cloud is far brighter than the ground, so that a tiny net learns it in a few steps. About a
    fortieth of the pixels, in one corner, is unlabelled.
    """
    row, col = np.mgrid[:rows, :cols]
    texture = rng.normal(0.0, 0.015, (rows, cols, 4))
    ground = np.array([0.09, 0.10, 0.08, 0.28]) * (0.7 + 0.6 * col / cols)[..., np.newaxis]
    height = np.zeros((rows, cols))
    for _ in range(rng.integers(2, 5)):
        middle = rng.uniform((0, 0), (rows, cols))
        radius = rng.uniform(0.1, 0.25) * min(rows, cols) + 1.0
        height += np.exp(-((row - middle[0]) ** 2 + (col - middle[1]) ** 2) / radius**2)
    cloud = height > 0.4
    bright = rng.uniform(0.55, 0.8) + 0.1 * np.minimum(height, 1.0)[..., np.newaxis]
    reflectance = np.where(cloud[..., np.newaxis], bright + texture, ground + texture)
    mask = cloud.astype(np.uint8)
    mask[: rows // 8, : cols // 5] = 255
    return np.clip(reflectance, 0.005, 1.5).astype(np.float32), mask


def make_dataset(
    folder: Path,
    layout: str = "geotiff",
    scenes: int = 6,
    size: tuple[int, int] = (48, 72),
    seed: int = 0,
) -> Path:
    """Write a labelled data set and return its folder; two scenes in a row share a place.

    Parameters
    ----------
    folder
        Is made.
    layout
        "geotiff": `scenes/scene00.tif` … and a `scenes.csv` with groups and labels; "catalogue":
        `subscenes/NAME.npy` of 13 bands named as Sentinel-2 products, without a `scenes.csv`, the
        place in the name, some cloud shadow marked.
    scenes
        How many.
    size
        Rows and columns of each.
    seed
        Of what they show.
    """
    rng = np.random.default_rng(seed)
    table = []
    for index in range(scenes):
        reflectance, mask = cloudy_scene(rng, *size)
        if layout == "geotiff":
            name = f"scene{index:02d}"
            write_scene_tif(folder / "scenes" / f"{name}.tif", reflectance)
            write_mask_tif(folder / "masks" / f"{name}.tif", mask)
            table.append((name, f"place{index // 2:02d}", ("human", "teacher")[index % 2]))
        else:
            name = product_name(place=index // 2, day=index + 1)
            write_scene_npy(folder / "subscenes" / f"{name}.npy", to_catalogue_bands(reflectance))
            shadow = np.roll(mask == 1, 2, axis=0)
            write_mask_npy(folder / "masks" / f"{name}.npy", mask, shadow)
    if table:
        with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("scene", "group", "labels"), *table])
    return folder


def product_name(place: int, day: int) -> str:
    """Return a Sentinel-2 product name whose MGRS tile stands for the place."""
    tile = f"T33U{MGRS_LETTERS[place // 20]}{MGRS_LETTERS[place % 20]}"
    date = f"201801{day:02d}T032011"
    return f"S2A_MSIL1C_{date}_N0206_R118_{tile}_{date}"


def to_catalogue_bands(reflectance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (rows, cols, 13) with red, green, blue, NIR at their places and 0.9 in all others."""
    rows, cols, _ = reflectance.shape
    stack = np.full((rows, cols, len(CATALOGUE_BANDS)), 0.9, dtype=np.float32)
    for index, band in enumerate(BANDS):
        stack[..., CATALOGUE_BANDS.index(band)] = reflectance[..., index]
    return stack


def tiny_config(**changes: Any) -> TrainConfig:
    """Settings of a training that takes seconds: a net of two levels on tiles of 32 px."""
    from cloudnet.augment import Augmentation
    from cloudnet.model import UNetConfig
    from cloudnet.train import TrainConfig

    settings: dict[str, Any] = {
        "epochs": 2,
        "epoch_tiles": 48,
        "batch": 8,
        "tile_px": 32,
        "net": UNetConfig(widths=(8, 12), blocks=1, stem=0),
        "augmentation": Augmentation(zoom_share=0.25),
    }
    return TrainConfig(**{**settings, **changes})


def ship_tiny(folder: Path, tiny_onnx: Path, tiny_run: Path) -> None:
    """Fill a folder as that of the shipped models is, with the tiny net under their names."""
    import onnx

    from cloudnet.run import Run
    from cloudnet.runtime import QUANTISED_KEY, load_model
    from cloudnet.spec import SPEC_KEY

    shutil.copy(tiny_onnx, folder / "s2-rgbn.onnx")
    shutil.copy(Run(tiny_run).model, folder / "s2-rgbn.keras")
    (folder / "MODEL_CARD.md").write_text("# Model card\n", encoding="utf-8")
    model = onnx.load(tiny_onnx)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    spec = load_model(tiny_onnx).spec.with_threshold(0.25)
    changed = {SPEC_KEY: spec.to_json(), QUANTISED_KEY: "{}"}
    onnx.helper.set_model_props(model, {**kept, **changed})
    (folder / "s2-rgbn-int8.onnx").write_bytes(model.SerializeToString())


def teach(source: Path, data: DataSet, path: Path) -> Path:
    """Write a copy of an ONNX file whose head tells cloud from ground, and return its path.

    Two epochs leave the answers of the tiny net near 0.5. Here its head is fitted to the labels by
    least squares on what the layer before it says.
    """
    import onnx

    from cloudnet.compare import read_probe
    from cloudnet.probe import Probe
    from cloudnet.quantise import run_graph
    from cloudnet.runtime import load_model

    model = onnx.load(source)
    head = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    kernel, bias = _fit_head(model, head.input[0], data)
    for tensor in model.graph.initializer:
        for name, values in zip(head.input[1:], (kernel, bias)):
            if tensor.name == name:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    tiles = read_probe(load_model(source)).tiles
    write_probe(model, Probe(tiles, run_graph(model, tiles)), path)
    return path


def _fit_head(
    model: Any, features: str, data: DataSet
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel (4, channels, 1, 1) and bias (4,) that give logits of -4 and 4."""
    import onnx

    from cloudnet.session import open_session
    from cloudnet.tiles import Window

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(features))
    session = open_session(opened.SerializeToString())
    known, wanted = [], []
    for labelled in data.scenes:
        with labelled.open() as scene:
            reflectance, _ = scene.read(Window(0, 0, scene.rows, scene.cols))
        cells = session.run(None, {"reflectance": reflectance[np.newaxis]})[1][0]
        known.append(np.moveaxis(cells, 0, 2).reshape(-1, len(cells)))
        rows, cols = cells.shape[1:]
        mask = labelled.read_mask().reshape(rows, 2, cols, 2)
        wanted.append(mask.transpose(0, 2, 1, 3).reshape(-1, 4))
    labels = np.concatenate(wanted)
    used = (labels != 255).all(axis=1)
    inputs = np.column_stack([np.concatenate(known), np.ones(len(labels))])[used]
    weights = np.linalg.lstsq(inputs, np.where(labels[used] == 1, 4.0, -4.0), rcond=None)[0]
    weights = weights.astype(np.float32)
    return weights[:-1].T[..., np.newaxis, np.newaxis], weights[-1]


def write_probe(model: Any, probe: Probe, path: Path) -> None:
    """Write a graph with another probe."""
    import onnx

    from cloudnet.runtime import PROBE_KEY

    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, PROBE_KEY: probe.to_text()})
    path.write_bytes(model.SerializeToString())
