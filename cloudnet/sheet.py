"""Contact sheets: the scenes of a data set in true colour beside their masks, on one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import DataSet, LabelCounts, LabelledScene
from cloudnet.errors import OutputError, require
from cloudnet.files import quiet, whole_file
from cloudnet.quicklook import NO_DATA_COLOR, Picture, Quicklook
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

Item = TypeVar("Item")

MOST_SCENES = 200
SLAB_ROWS = 256

MASK_COLORS = {CLEAR: (44, 58, 80), CLOUD: (255, 255, 255), NO_DATA: (226, 138, 28)}
BACKGROUND = (24, 24, 24)
INK = "#e8e8e8"
KEY = (
    ("clear", MASK_COLORS[CLEAR]),
    ("cloud", MASK_COLORS[CLOUD]),
    ("unlabelled", MASK_COLORS[NO_DATA]),
    ("no data", NO_DATA_COLOR),
)

SHEET_PX = 3_600_000
"""Pixels that the pictures of a sheet share; it sets how large each is drawn."""

THUMB_PX = (128, 320)
"""Smallest and largest side of the square that a scene is fitted into."""

GAP_PX, MARGIN_PX, LABEL_PX, TITLE_PX = 4, 14, 34, 64
LEAST_WIDTH_PX = 460
"""Room for title and key."""

DPI = 100
FONT, FONT_PT = "DejaVu Sans Mono", 7.5
"""A font that matplotlib brings."""

LETTER_PX = 0.602 * FONT_PT / 72 * DPI
"""Advance of each of its letters."""


def draw_sheet(
    dataset: DataSet,
    path: Path,
    *,
    most: int = MOST_SCENES,
    on_scene: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a contact sheet as PNG: each scene in true colour beside its mask.

    Scenes are read slab by slab and thinned as they are read.

    Parameters
    ----------
    dataset
        The labelled scenes.
    path
        The file, a .png; written whole or not at all.
    most
        Scenes on the sheet; of more, as many are chosen evenly from first to last.
    on_scene
        Called with the number of scenes drawn and of all that will be.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    OutputError
        When the file cannot be written or is no .png.
    SceneError, DatasetError
        When a scene or its mask cannot be read.
    """
    scenes = choose_evenly(dataset.scenes, most)
    thumb_px = Layout.of(len(scenes)).thumb_px
    shown, of = len(scenes), len(dataset.scenes)
    title = f"{of} labelled scene{'' if of == 1 else 's'}"
    if shown != of:
        title = f"{shown} of {title}, evenly chosen"
    pairs = (_scene_and_mask(scene, thumb_px) for scene in scenes)
    write_sheet(path, pairs, shown, title, KEY, on_scene=on_scene)


@dataclass(frozen=True)
class Pair:
    """Two pictures of a scene, side by side on a sheet, and what stands below them.

    Attributes
    ----------
    left, right
        (rows, cols, 3) uint8; what is too large for the sheet is thinned to every n-th pixel.
    name
        Of the scene; shortened where it is too long.
    facts
        As many as there is room for; empty ones are left out.
    """

    left: Picture
    right: Picture
    name: str
    facts: tuple[str, ...]


def write_sheet(
    path: Path,
    pairs: Iterable[Pair],
    count: int,
    title: str,
    key: Sequence[tuple[str, tuple[int, int, int]]],
    *,
    on_scene: Callable[[int, int], None] | None = None,
) -> None:
    """Draw pairs of pictures on a sheet, and write it as PNG.

    Parameters
    ----------
    path
        The file, a .png; written whole or not at all.
    pairs, count
        The pairs, taken one by one, and their number.
    title, key
        What stands above them; the key has words and their colour.
    on_scene
        Called with the number of pairs drawn and of all.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    OutputError
        When the file cannot be written or is no .png.
    """
    check_sheet(path)
    layout = Layout.of(count)
    canvas = np.full((layout.height, layout.width, 3), BACKGROUND, dtype=np.uint8)
    texts = _draw_heading(canvas, title, key)
    for index, pair in enumerate(pairs):
        texts.append(_draw_pair(canvas, pair, layout, index))
        if on_scene is not None:
            on_scene(index + 1, count)
    figure = _figure(canvas, texts)
    # A letter that the font lacks is drawn as a box; that is no news.
    with whole_file(path) as scratch, quiet(UserWarning):
        figure.canvas.print_png(scratch)


def check_sheet(path: Path) -> None:
    """Raise what `write_sheet` would of the file's name or a missing matplotlib."""
    require("matplotlib", "train")
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: a contact sheet is a PNG; give it a name that ends in .png")


def choose_evenly(scenes: Sequence[Item], most: int) -> list[Item]:
    """Return at most `most` scenes, evenly spaced from the first to the last."""
    if len(scenes) <= most:
        return list(scenes)
    return [scenes[index] for index in np.linspace(0, len(scenes) - 1, most).round().astype(int)]


def thumbnails(
    scene: LabelledScene, thumb_px: int
) -> tuple[Picture, NDArray[np.uint8], LabelCounts]:
    """Return a scene's true colour and its mask, thinned to `thumb_px`, and its pixels by label.

    Returns
    -------
    picture : (height, width, 3) uint8
        Grey where the scene has no data.
    mask : (height, width) uint8
        0 clear, 1 cloud, 255 unlabelled.
    counts
        Of all pixels of the mask.
    """
    quicklook = Quicklook(scene.rows, scene.cols, thumb_px)
    counts = np.zeros(256, dtype=np.int64)
    with scene.open() as opened:
        for row in range(0, scene.rows, SLAB_ROWS):
            window = Window(row, 0, SLAB_ROWS, scene.cols).clip(scene.rows, scene.cols)
            reflectance, valid = opened.read(window)
            mask = scene.read_mask(window)
            counts += np.bincount(mask.ravel(), minlength=256)
            quicklook.add(window, reflectance, mask, valid)
    by_label = LabelCounts(int(counts[CLEAR]), int(counts[CLOUD]), int(counts[NO_DATA]))
    return quicklook.picture(), quicklook.mask(), by_label


def paint_mask(mask: NDArray[np.uint8]) -> Picture:
    """Return a mask (rows, cols) in colour, (rows, cols, 3)."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    for value, color in MASK_COLORS.items():
        palette[value] = color
    return palette[mask]


@dataclass(frozen=True)
class Layout:
    """Where the scenes of a sheet lie, in pixels.

    Attributes
    ----------
    across, down
        Scenes in a row, and rows.
    thumb_px
        Side of the square that each picture is fitted into.
    """

    across: int
    down: int
    thumb_px: int

    @classmethod
    def of(cls, count: int) -> Layout:
        """Lay out `count` scenes on a sheet that is about as wide as high."""
        side = int(sqrt(SHEET_PX / (2 * max(count, 1))))
        thumb_px = min(max(side, THUMB_PX[0]), THUMB_PX[1])
        cell = cls(1, 1, thumb_px)
        across = max(round(sqrt(count * cell.cell_height / cell.cell_width)), 1)
        return cls(min(across, max(count, 1)), ceil(count / across), thumb_px)

    @property
    def cell_width(self) -> int:
        """Width that a scene takes with its mask and the margin to the right."""
        return 2 * self.thumb_px + GAP_PX + MARGIN_PX

    @property
    def cell_height(self) -> int:
        """Height that a scene takes with the label below it."""
        return self.thumb_px + LABEL_PX + MARGIN_PX

    @property
    def width(self) -> int:
        """Width of the sheet; room for the title at least."""
        return max(self.across * self.cell_width + MARGIN_PX, LEAST_WIDTH_PX)

    @property
    def height(self) -> int:
        """Height of the sheet."""
        return self.down * self.cell_height + TITLE_PX

    def corner(self, index: int) -> tuple[int, int]:
        """Return (row, col) of the upper left corner of scene number `index`."""
        down, across = divmod(index, self.across)
        return TITLE_PX + down * self.cell_height, MARGIN_PX + across * self.cell_width


@dataclass(frozen=True)
class _Text:
    """Words on a sheet: upper left corner in pixels, size in points."""

    row: int
    col: int
    words: str
    size_pt: float = FONT_PT


def _scene_and_mask(scene: LabelledScene, thumb_px: int) -> Pair:
    """Return a scene in true colour beside its mask."""
    picture, mask, counts = thumbnails(scene, thumb_px)
    cloud = f"cloud {counts.cloud_share:.0%}" if counts.clear + counts.cloud else "no labels"
    unlabelled = f"unlabelled {counts.unlabelled_share:.0%}" if counts.unlabelled else ""
    facts = (cloud, unlabelled, scene.labels, f"{scene.rows} x {scene.cols}")
    return Pair(picture, paint_mask(mask), scene.name, facts)


def _draw_pair(canvas: Picture, pair: Pair, layout: Layout, index: int) -> _Text:
    """Put a pair in its place, and return what is to be written below it."""
    row, col = layout.corner(index)
    _paste(canvas, pair.left, row, col, layout.thumb_px)
    _paste(canvas, pair.right, row, col + layout.thumb_px + GAP_PX, layout.thumb_px)
    label = _label(pair, layout.cell_width - MARGIN_PX)
    return _Text(row + layout.thumb_px + GAP_PX, col, label)


def _draw_heading(
    canvas: Picture, title: str, key: Sequence[tuple[str, tuple[int, int, int]]]
) -> list[_Text]:
    """Draw the colours of the key, and return the title and the words of the key."""
    texts = [_Text(12, MARGIN_PX, title, 12.0)]
    top, left, swatch_px = TITLE_PX - 30, MARGIN_PX, 14
    for words, color in key:
        canvas[top : top + swatch_px, left : left + swatch_px] = color
        texts.append(_Text(top + 1, left + swatch_px + 6, words))
        left += swatch_px + 24 + ceil(len(words) * LETTER_PX)
    return texts


def _paste(canvas: Picture, picture: Picture, row: int, col: int, side: int) -> None:
    """Put a picture into the middle of a square.

    One that is small is enlarged, pixel by pixel; of one that is too large every n-th is shown.
    """
    step = ceil(max(picture.shape[:2]) / side)
    picture = picture[::step, ::step]
    times = max(side // max(picture.shape[:2]), 1)
    enlarged = picture.repeat(times, axis=0).repeat(times, axis=1)
    height, width = enlarged.shape[:2]
    top, left = row + (side - height) // 2, col + (side - width) // 2
    canvas[top : top + height, left : left + width] = enlarged


def _label(pair: Pair, width_px: int) -> str:
    """Return what stands below a pair: its name, and the facts that there is room for."""
    letters = int(width_px / LETTER_PX)
    facts = pair.facts[0]
    for fact in pair.facts[1:]:
        if fact and len(facts) + len(fact) + 3 <= letters:
            facts += f" · {fact}"
    return f"{_shorten(pair.name, letters)}\n{facts}"


def _shorten(text: str, letters: int) -> str:
    """Return text with its middle left out where it is longer than `letters`."""
    if len(text) <= letters:
        return text
    head = (letters - 1) // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


def _figure(canvas: Picture, texts: Sequence[_Text]) -> Any:
    """Return a figure of the sheet's size, with its own canvas: no global state of pyplot."""
    height, width = canvas.shape[:2]
    size = (width / DPI, height / DPI)
    figure = require("matplotlib.figure", "train").Figure(figsize=size, dpi=DPI)
    require("matplotlib.backends.backend_agg", "train").FigureCanvasAgg(figure)
    figure.figimage(canvas, origin="upper")
    for text in texts:
        figure.text(
            text.col / width,
            1 - text.row / height,
            text.words,
            fontsize=text.size_pt,
            family=FONT,
            color=INK,
            verticalalignment="top",
            linespacing=1.15,
            parse_math=False,
        )
    return figure
