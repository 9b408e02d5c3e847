"""Scenes and probabilities as `xarray.DataArray`, with coordinates, lazily through dask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cloudnet.bands import find_bands
from cloudnet.errors import SceneError, require
from cloudnet.reading import Reading
from cloudnet.scene import Scene, open_scene
from cloudnet.spec import BANDS
from cloudnet.surface import at_top
from cloudnet.tiles import Window, round_up

if TYPE_CHECKING:
    from cloudnet.runtime import CloudModel

EXTRA = "xarray"
CHUNK_PX = 1024
ROW, COL, BAND = "y", "x", "band"


def open_dataarray(path: Any, reading: Reading | None = None, *, chunk_px: int = CHUNK_PX) -> Any:
    """Open a scene as a lazy `xarray.DataArray` (y, x, band) of reflectance, 1.0 = 100 %.

    Each chunk opens the scene for itself, so that chunks may be computed by any thread, process or
    machine that can reach it.

    Parameters
    ----------
    path, reading
        As for `open_scene`.
    chunk_px
        Side of a chunk in pixels.

    Returns
    -------
    float32, NaN where there is no data; coordinates of pixel centres where the scene lies upright,
    and of bands; attributes `crs` (WKT), `transform`, `level`, `sun_zenith_deg`,
    `aerosol`.

    Raises
    ------
    MissingExtraError
        When xarray or dask is not installed.
    SceneError
        As from `open_scene`; when a chunk has no pixels.
    """
    if chunk_px < 1:
        raise SceneError(f"a chunk has a side of 1 px or more, not {chunk_px}")
    xarray, dask_array = require("xarray", EXTRA), require("dask.array", EXTRA)
    with open_scene(path, reading) as scene:
        coords, attrs = _coordinates(scene), _attributes(scene)
        chunks = dask_array.core.normalize_chunks(
            (chunk_px, chunk_px, len(BANDS)), (scene.rows, scene.cols, len(BANDS))
        )
    data = dask_array.map_blocks(
        _read_chunk, path, reading, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), "f4")
    )
    return xarray.DataArray(data, coords, (ROW, COL, BAND), scene.name, attrs)


def predict_dataarray(array: Any, model: CloudModel | None = None) -> Any:
    """Return the probability of cloud of an `xarray.DataArray` of reflectance.

    Parameters
    ----------
    array
        Dimensions y, x and band in any order; bands by the names of coordinate `band`, or four:
        red, green, blue, NIR. NaN is no data. Backed by dask, the answer is lazy too, and may
        be computed by other processes. With "L2A" in its attribute `level`, as `open_dataarray`
        leaves it, it is surface reflectance, and is brought to the top of the atmosphere for a net
        that was trained there.
    model
        None: the default one.

    Returns
    -------
    (y, x) float32 in [0, 1], NaN where there is no data; coordinates and attributes are kept.

    Raises
    ------
    MissingExtraError
        When xarray is not installed.
    SceneError
        When dimensions or bands are others.
    ModelError
        When the numbers fit no reflectance, for a lazy array once it is computed.
    """
    xarray = require("xarray", EXTRA)
    from cloudnet.runtime import load_model

    model = model or load_model()
    chosen = _four_bands(array)
    data = chosen.data
    if array.attrs.get("level") == "L2A" and "L2A" not in model.spec.levels:
        data = at_top(data, array.attrs.get("sun_zenith_deg"), array.attrs.get("aerosol"))
    predicted = _predict_lazily(data, model) if chosen.chunks else model.predict(data)
    coords = {name: axis for name, axis in array.coords.items() if BAND not in axis.dims}
    return xarray.DataArray(predicted, coords, (ROW, COL), "cloud_probability", array.attrs)


def _four_bands(array: Any) -> Any:
    """Return an array (y, x, band) of red, green, blue and NIR."""
    if set(array.dims) != {ROW, COL, BAND}:
        raise SceneError(
            f"a DataArray of dimensions {', '.join(map(str, array.dims))} is no scene; "
            f"give it {ROW}, {COL} and {BAND}"
        )
    array = array.transpose(ROW, COL, BAND)
    if BAND not in array.coords and array.sizes[BAND] == len(BANDS):
        return array
    names = [str(name) for name in array.coords[BAND].values] if BAND in array.coords else []
    try:
        numbers = find_bands("the DataArray", names, array.sizes[BAND], None)
    except SceneError as error:
        raise SceneError(
            f"the DataArray has {array.sizes[BAND]} bands ({', '.join(names) or 'no names'}); "
            f"call those for red, green, blue and NIR {', '.join(BANDS)} in its coordinate {BAND}, "
            "or give these four, in this order, without it"
        ) from error
    return array.isel({BAND: [number - 1 for number in numbers]})


def _predict_lazily(data: Any, model: CloudModel) -> Any:
    """Return a lazy prediction: chunks with the model's halo, on the grid of its stride."""
    dask_array = require("dask.array", EXTRA)
    halo, stride = model.spec.halo_px, model.spec.stride
    side = round_up(max(CHUNK_PX, 2 * halo), stride)
    data = data.rechunk((side, side, -1))
    for axis in (0, 1):
        # A last chunk narrower than the halo would be cut off by it.
        sizes = list(data.chunks[axis])
        if len(sizes) > 1 and sizes[-1] < halo:
            sizes[-2:] = [sum(sizes[-2:])]
            data = data.rechunk({axis: tuple(sizes)})
    # Where nothing is cut there is nothing to overlap, and dask refuses what is below the halo.
    depth = {axis: halo if len(data.chunks[axis]) > 1 else 0 for axis in (0, 1)}
    return dask_array.map_overlap(
        model.predict,
        data,
        depth={**depth, 2: 0},
        boundary="none",
        drop_axis=2,
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
    )


def _read_chunk(path: Any, reading: Reading | None, block_info: Any = None) -> Any:
    (rows, cols, _) = block_info[None]["array-location"]
    with open_scene(path, reading, checked=True) as scene:
        window = Window(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        reflectance, valid = scene.read(window)
    reflectance[~valid] = np.nan
    return reflectance


def _coordinates(scene: Scene) -> dict[str, Any]:
    """Return coordinates of pixel centres, where they belong to rows and columns, and of bands."""
    coords: dict[str, Any] = {BAND: list(BANDS)}
    grid = scene.transform
    if grid is not None and grid.b == grid.d == 0:
        coords[ROW] = grid.f + grid.e * (np.arange(scene.rows) + 0.5)
        coords[COL] = grid.c + grid.a * (np.arange(scene.cols) + 0.5)
    return coords


def _attributes(scene: Scene) -> dict[str, Any]:
    told = {
        "crs": scene.crs.to_wkt() if scene.crs else None,
        "transform": tuple(scene.transform)[:6] if scene.transform else None,
        "level": scene.level,
        "sun_zenith_deg": scene.sun_zenith_deg,
        "aerosol": scene.aerosol,
        "units": "1",
    }
    return {key: value for key, value in told.items() if value is not None}
