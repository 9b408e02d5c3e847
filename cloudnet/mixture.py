"""What training tiles are made of: how often each scene is drawn, and what is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import LabelledScene
from cloudnet.errors import ModelError
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

REAL, COMPOSED, PASTED, SIMULATED = range(4)
"""Kinds of tile: of a scene; of a clear scene under simulated clouds; of a clear scene under the
clouds of another scene; simulated, ground and clouds."""

BRIGHT_BLUE = 0.3
"""Reflectance from which ground is bright in the blue band, as of snow, ice, salt and white sand:
the ground that looks like cloud."""

BRIGHT_SHARE = 0.15
"""Share of bright pixels from which a scene's clear ground counts as bright."""

SURVEY_PX = 512
"""Side of the square in the middle of a scene whose ground is looked at."""

CLEAR_SCENE, CLOUDY_SCENE, OVERCAST_SCENE = 0.005, 0.02, 0.95
"""Cloud shares: up to which clouds are put over a scene; from which it is mixed; overcast."""

LABELLED_GROUND = 0.7
"""Least share of labelled pixels of ground to put clouds over."""

SIMULATION_USES = 3
"""Tiles of an epoch made of one simulated block, each turned and lit otherwise: to draw a block
takes twice as long as a training step on it."""

SIMULATIONS_AT_ONCE = 160
"""Simulated blocks that take turns in an epoch: all uses of these come before the next ones', so
that no more of them need be in memory than these."""

RARE = 1.5
"""How much more often than others scenes are drawn that are mixed, overcast or bright: they are
rarer than clear and dark ones, and decide more."""


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of tile, and how often each scene is drawn.

    Attributes
    ----------
    simulated, composed, pasted
        Shares of tiles of these kinds; the others show scenes as they are.
    trust
        How often scenes of a kind of label are drawn, relative to those not named; 0: never.
    balanced
        Draw mixed, overcast and bright scenes more often, and those of a place with many scenes
        less; otherwise each scene by its area.
    """

    simulated: float = 0.0
    composed: float = 0.0
    pasted: float = 0.0
    trust: tuple[tuple[str, float], ...] = ()
    balanced: bool = False

    def __post_init__(self) -> None:
        shares = (self.simulated, self.composed, self.pasted)
        if not (min(shares) >= 0 and sum(shares) <= 1):
            raise ModelError(f"shares of tiles are 0 or more and 1 together at most, not {shares}")
        if any(not weight >= 0 for _, weight in self.trust):
            raise ModelError("how often a kind of label is drawn is 0 or more")

    @property
    def plain(self) -> bool:
        """True when tiles show scenes as they are, each by its area."""
        return self == Mixture()


@dataclass(frozen=True)
class SceneFacts:
    """What a scene shows: shares of cloud and of bright ground, each of the labelled pixels of its
    kind, and of labelled pixels; its level, where it tells."""

    cloud_share: float
    labelled_share: float
    bright_share: float
    level: str | None = None

    @property
    def bright(self) -> bool:
        """Whether its clear ground is bright."""
        return self.bright_share > BRIGHT_SHARE

    @property
    def ground(self) -> bool:
        """Whether clouds can be put over it."""
        return self.cloud_share < CLEAR_SCENE and self.labelled_share > LABELLED_GROUND

    @property
    def donor(self) -> bool:
        """Whether its clouds can be put over other ground: it has edges of cloud to cut along."""
        return CLOUDY_SCENE < self.cloud_share < OVERCAST_SCENE


def survey(scenes: Sequence[LabelledScene]) -> list[SceneFacts]:
    """Look at what scenes show; of large ones, the ground in their middle."""
    return [_survey(scene) for scene in scenes]


def _survey(labelled: LabelledScene) -> SceneFacts:
    counts = labelled.count_labels()
    rows, cols = min(labelled.rows, SURVEY_PX), min(labelled.cols, SURVEY_PX)
    middle = Window((labelled.rows - rows) // 2, (labelled.cols - cols) // 2, rows, cols)
    with labelled.open() as scene:
        reflectance, valid = scene.read(middle)
        level = scene.level
    clear = valid & (labelled.read_mask(middle) == CLEAR)
    bright = float((reflectance[..., 2][clear] > BRIGHT_BLUE).mean()) if clear.any() else 0.0
    return SceneFacts(counts.cloud_share, 1.0 - counts.unlabelled_share, bright, level)


def scene_weights(
    scenes: Sequence[LabelledScene], facts: Sequence[SceneFacts], mixture: Mixture
) -> NDArray[np.float64]:
    """How often each scene is drawn, (scenes,), their sum 1.

    Balanced, a scene counts by its trust, by the share of it that is labelled, and by the root of
    its area and of one over the number of scenes of its place: their tiles are alike.

    Raises
    ------
    ModelError
        When no scene is to be drawn.
    """
    trust = dict(mixture.trust)
    weights = np.array([trust.get(scene.labels, 1.0) for scene in scenes])
    if not weights.any():
        kinds = ", ".join(sorted({scene.labels for scene in scenes}))
        raise ModelError(
            f"the recipe does not train on scenes with labels of these kinds: {kinds}; "
            "add others, or train without --recipe"
        )
    area = np.array([scene.rows * scene.cols for scene in scenes], dtype=np.float64)
    if not mixture.balanced:
        weights *= area
        return _shares(weights)
    places = [scene.group for scene in scenes]
    number = {place: places.count(place) for place in set(places)}
    weights *= np.sqrt(area / np.array([number[place] for place in places]))
    cloud = np.array([fact.cloud_share for fact in facts])
    weights *= np.where(cloud > CLOUDY_SCENE, RARE, 1.0)
    weights *= np.array([(RARE if fact.bright else 1.0) for fact in facts])
    weights *= np.maximum([fact.labelled_share for fact in facts], 0.2)
    return _shares(weights)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def plan_tiles(
    weights: NDArray[np.float64],
    facts: Sequence[SceneFacts],
    mixture: Mixture,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw what each of `count` tiles is made of.

    Returns
    -------
    (count, 3): number of the scene (of no meaning where all is simulated), kind of tile, and
    number of the scene whose clouds are pasted, or of the simulation.
    """
    used = [(number, fact) for number, fact in enumerate(facts) if weights[number] > 0]
    kinds = _spread(rng, _kind_shares([fact for _, fact in used], mixture), count)
    scenes = _spread(rng, weights, count)
    grounds = [number for number, fact in used if fact.ground]
    over = np.isin(kinds, (COMPOSED, PASTED))
    if grounds:
        chosen = weights[grounds] / weights[grounds].sum()
        scenes[over] = np.array(grounds)[_spread(rng, chosen, int(over.sum()))]
    donors = scenes.copy()
    simulated = np.flatnonzero(kinds == SIMULATED)
    numbers = rng.integers(0, 2**31, -(-len(simulated) // SIMULATION_USES))
    donors[simulated] = _take_turns(numbers)[: len(simulated)]
    if candidates := [number for number, fact in used if fact.donor]:
        pasted = kinds == PASTED
        donors[pasted] = rng.choice(candidates, int(pasted.sum()))
    return np.stack([scenes, kinds, donors], axis=1)


def _take_turns(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each number `SIMULATION_USES` times, some at once taking turns before the next ones come."""
    ends = range(SIMULATIONS_AT_ONCE, len(numbers), SIMULATIONS_AT_ONCE)
    return np.concatenate([np.tile(part, SIMULATION_USES) for part in np.split(numbers, ends)])


def _kind_shares(facts: Sequence[SceneFacts], mixture: Mixture) -> NDArray[np.float64]:
    """Shares of the kinds of tile; those that the scenes give nothing for fall to real ones."""
    ground, donor = (any(getattr(fact, name) for fact in facts) for name in ("ground", "donor"))
    shares = np.zeros(4)
    shares[SIMULATED] = mixture.simulated
    shares[COMPOSED] = mixture.composed if ground else 0.0
    shares[PASTED] = mixture.pasted if ground and donor else 0.0
    shares[REAL] = 1.0 - shares.sum()
    return shares


def _spread(
    rng: np.random.Generator, weights: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Draw `count` numbers by weight, each as often as it should be or once more (systematic
    resampling, Kitagawa 1996), in random order."""
    steps = (np.arange(count) + rng.random()) / max(count, 1)
    drawn = np.searchsorted(np.cumsum(weights), steps * weights.sum(), side="right")
    return rng.permutation(np.minimum(drawn, len(weights) - 1)).astype(np.int64)


def paste_clouds(
    ground: tuple[NDArray[np.float32], NDArray[np.uint8]],
    donor: tuple[NDArray[np.float32], NDArray[np.uint8]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Put the clouds of one block over another, turned at random, with soft edges.

    Blocks are reflectance (n, n, bands), 0 where there is no data, and mask (n, n, 1). What the
    donor's soft edge only half covers is unlabelled.
    """
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = (_turned(part, turns, flip) for part in donor)
    cover = np.clip(1.6 * _softened((mask == CLOUD).astype(np.float32)) - 0.1, 0.0, 1.0)
    known = (ground[0] > 0).any(axis=2, keepdims=True) & (image > 0).any(axis=2, keepdims=True)
    cover *= known
    label = np.where(cover < 0.02, ground[1], NO_DATA)
    label[cover > 0.85] = CLOUD
    return cover * image + (1.0 - cover) * ground[0], label.astype(np.uint8)


def _turned(pixels: NDArray[Any], turns: int, flip: bool) -> NDArray[Any]:
    turned = np.rot90(pixels, turns)
    return turned[::-1] if flip else turned


def _softened(cover: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur (n, n, 1) by a binomial of seven pixels, near a Gaussian of 1.2 pixels."""
    for axis in (0, 1):
        for _ in range(3):
            edge = [(1, 1) if a == axis else (0, 0) for a in range(cover.ndim)]
            wide = np.pad(cover, edge, mode="edge")
            ends = (slice(0, -2), slice(1, -1), slice(2, None))
            low, mid, high = (
                wide[tuple(part if a == axis else slice(None) for a in range(cover.ndim))]
                for part in ends
            )
            cover = (0.25 * low + 0.5 * mid + 0.25 * high).astype(np.float32)
    return cover
