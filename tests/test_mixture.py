"""Mixtures: how often scenes are drawn, what tiles are made of, clouds pasted over ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet import mixture as module
from cloudnet.dataset import LabelledScene
from cloudnet.errors import ModelError
from cloudnet.mixture import (
    COMPOSED,
    PASTED,
    REAL,
    SIMULATED,
    Mixture,
    SceneFacts,
    paste_clouds,
    plan_tiles,
    scene_weights,
    survey,
)
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from tests.helpers import (
    to_catalogue_bands,
    write_labelled_scene,
    write_mask_tif,
    write_scene_npy,
    write_scene_tif,
)

CLEAR_FACT = SceneFacts(cloud_share=0.0, labelled_share=1.0, bright_share=0.0)
MIXED_FACT = replace(CLEAR_FACT, cloud_share=0.4)
OVERCAST_FACT = replace(CLEAR_FACT, cloud_share=1.0)
BRIGHT_FACT = replace(CLEAR_FACT, bright_share=1.0)
UNLABELLED_FACT = SceneFacts(cloud_share=0.0, labelled_share=0.0, bright_share=0.0)


def scene(
    place: str = "a", labels: str = "", rows: int = 64, cols: int | None = None
) -> LabelledScene:
    return LabelledScene("name", Path(), Path(), rows, cols or rows, place, labels)


# Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        {"simulated": -0.1},
        {"composed": -0.1},
        {"pasted": -0.1},
        {"simulated": nan},
        {"composed": nan},
        {"pasted": nan},
        {"simulated": 0.5, "composed": 0.4, "pasted": 0.2},
        {"trust": (("human", 2.0), ("SCL", -1.0))},
        {"trust": (("human", nan),)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="shares of tiles" if "trust" not in wrong else "label"):
        Mixture(**wrong)


def test_a_mixture_that_changes_nothing_is_plain() -> None:
    assert Mixture().plain
    for other in (
        Mixture(simulated=0.1),
        Mixture(composed=0.1),
        Mixture(pasted=0.1),
        Mixture(trust=(("human", 2.0),)),
        Mixture(balanced=True),
    ):
        assert not other.plain
    assert not Mixture(simulated=0.5, composed=0.25, pasted=0.25).plain, "all may be made up"


# How often scenes are drawn.

kinds_of_label = st.sampled_from(["human", "SCL", ""])
shares = st.floats(0.0, 1.0)
facts_strategy = st.builds(SceneFacts, shares, shares, shares)


@given(
    st.lists(
        st.tuples(
            st.builds(
                scene,
                st.sampled_from("abc"),
                kinds_of_label,
                st.integers(1, 5000),
                st.integers(1, 5000),
            ),
            facts_strategy,
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_every_scene_is_drawn_and_weights_are_shares(
    drawn: list[tuple[LabelledScene, SceneFacts]], balanced: bool
) -> None:
    scenes, facts = zip(*drawn, strict=True)
    weights = scene_weights(scenes, facts, Mixture(trust=(("human", 3.0),), balanced=balanced))
    assert weights.shape == (len(scenes),) and weights.dtype == np.float64
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).all()


def ratio(
    one: LabelledScene,
    other: LabelledScene,
    facts: Sequence[SceneFacts] = (CLEAR_FACT, CLEAR_FACT),
    more: Sequence[LabelledScene] = (),
    **settings: Any,
) -> float:
    """How much more often one scene is drawn than another."""
    weights = scene_weights(
        [one, other, *more], [*facts, *[CLEAR_FACT] * len(more)], Mixture(**settings)
    )
    return float(weights[0] / weights[1])


@pytest.mark.parametrize("balanced", [False, True])
def test_scenes_count_by_the_trust_in_their_labels(balanced: bool) -> None:
    trust = (("human", 4.0), ("SCL", 0.5))
    human, machine, other = scene("a", "human"), scene("b", "SCL"), scene("c", "model")
    settings = {"trust": trust, "balanced": balanced}
    assert ratio(human, other, **settings) == pytest.approx(4.0)
    assert ratio(machine, other, **settings) == pytest.approx(0.5)
    assert ratio(human, machine, **settings) == pytest.approx(8.0)


@pytest.mark.parametrize("balanced", [False, True])
def test_labels_without_trust_are_never_drawn(balanced: bool) -> None:
    """Nor are such scenes ground for simulated clouds, or give clouds."""
    scenes = [scene("a", "SCL"), scene("b", "human"), scene("c", "SCL"), scene("d", "human")]
    facts = [CLEAR_FACT, MIXED_FACT, MIXED_FACT, CLEAR_FACT]
    mixture = Mixture(composed=0.3, pasted=0.3, trust=(("SCL", 0.0),), balanced=balanced)
    weights = scene_weights(scenes, facts, mixture)
    plan = plan_tiles(weights, facts, mixture, 400, np.random.default_rng(0))
    real = plan[plan[:, 1] != SIMULATED]
    assert set(real[:, 0]) == {1, 3}
    assert set(plan[plan[:, 1] == PASTED, 2]) == {1}
    only_clear = plan_tiles(
        np.array([0.0, 1.0, 0.0, 0.0]), facts, mixture, 100, np.random.default_rng(0)
    )
    assert set(only_clear[:, 1]) == {REAL}  # no clear scene is left to put clouds over


def test_scenes_that_are_never_drawn_are_not_all_that_there_is() -> None:
    mixture = Mixture(trust=(("SCL", 0.0),), balanced=True)
    with pytest.raises(ModelError, match="labels of these kinds: SCL"):
        scene_weights([scene("a", "SCL")], [MIXED_FACT], mixture)


def test_unbalanced_scenes_count_by_their_area_alone() -> None:
    large, small = scene("a", rows=100, cols=300), scene("a", rows=100)
    assert ratio(large, small) == pytest.approx(3.0)
    assert ratio(large, small, (MIXED_FACT, UNLABELLED_FACT)) == pytest.approx(3.0)


def test_balanced_scenes_count_by_the_root_of_their_area() -> None:
    assert ratio(
        scene("a", rows=100, cols=400), scene("b", rows=100), balanced=True
    ) == pytest.approx(2.0)


def test_a_place_with_many_scenes_is_drawn_more_often_but_each_of_its_scenes_less() -> None:
    alone, one_of_many = scene("a"), scene("b")
    found = ratio(alone, one_of_many, more=[scene("b")] * 8, balanced=True)
    assert found == pytest.approx(3.0)  # nine scenes together thrice as often as the one
    assert ratio(alone, one_of_many, more=[scene("b")] * 8) == pytest.approx(1.0)


@pytest.mark.parametrize("rare", [MIXED_FACT, OVERCAST_FACT, BRIGHT_FACT])
def test_mixed_overcast_and_bright_scenes_are_drawn_more_often(rare: SceneFacts) -> None:
    found = ratio(scene("a"), scene("b"), (rare, CLEAR_FACT), balanced=True)
    assert found == pytest.approx(module.RARE) and found > 1
    assert ratio(scene("a"), scene("b"), (rare, CLEAR_FACT)) == pytest.approx(1.0)


def test_scenes_of_few_labels_are_drawn_less_often_but_are() -> None:
    half = replace(CLEAR_FACT, labelled_share=0.5)
    assert ratio(scene("a"), scene("b"), (half, CLEAR_FACT), balanced=True) == pytest.approx(0.5)
    nothing = ratio(scene("a"), scene("b"), (UNLABELLED_FACT, CLEAR_FACT), balanced=True)
    assert 0 < nothing < 0.5


# Plans.

FACTS = [CLEAR_FACT, MIXED_FACT, OVERCAST_FACT, BRIGHT_FACT, UNLABELLED_FACT, MIXED_FACT]
GROUNDS, DONORS = {0, 3}, {1, 5}
WEIGHTS = np.array([0.3, 0.1, 0.2, 0.1, 0.1, 0.2])
THINGS = Mixture(simulated=0.2, composed=0.3, pasted=0.15)


def plan(
    mixture: Mixture = THINGS,
    count: int = 400,
    seed: int = 0,
    facts: Sequence[SceneFacts] = FACTS,
    weights: NDArray[np.float64] = WEIGHTS,
) -> NDArray[np.int64]:
    found = plan_tiles(weights, facts, mixture, count, np.random.default_rng(seed))
    assert found.shape == (count, 3) and found.dtype == np.int64
    assert set(found[:, 0]) <= set(range(len(facts)))
    assert set(found[found[:, 1] != SIMULATED, 2]) <= set(range(len(facts)))
    return found


def test_facts_tell_ground_and_donors() -> None:
    assert {n for n, fact in enumerate(FACTS) if fact.ground} == GROUNDS
    assert {n for n, fact in enumerate(FACTS) if fact.donor} == DONORS
    assert [fact.bright for fact in FACTS].index(True) == 3


@given(st.tuples(shares, shares, shares), st.integers(0, 300), st.integers(0, 2**32), st.booleans())
def test_kinds_of_tile_come_in_the_shares_asked_for_to_one_tile(
    parts: tuple[float, float, float], count: int, seed: int, full: bool
) -> None:
    total = sum(parts) if full and sum(parts) > 0 else 3.0
    simulated, composed, pasted = (part / total / (1 + 1e-9) for part in parts)
    kinds = plan(Mixture(simulated, composed, pasted), count, seed)[:, 1]
    wanted = {
        SIMULATED: simulated,
        COMPOSED: composed,
        PASTED: pasted,
        REAL: 1 - simulated - composed - pasted,
    }
    for kind, share in wanted.items():
        assert abs((kinds == kind).sum() - share * count) < 1 + 1e-6


def test_scenes_are_drawn_by_their_weights_to_one_tile() -> None:
    for seed in range(5):
        found = plan(Mixture(balanced=True), 333, seed)
        drawn = np.bincount(found[:, 0], minlength=len(FACTS))
        assert (np.abs(drawn - 333 * WEIGHTS) < 1 + 1e-6).all()
        assert (found[:, 1] == REAL).all() and (found[:, 2] == found[:, 0]).all()


def test_clouds_are_put_over_clear_scenes_and_taken_from_cloudy_ones() -> None:
    found = plan()
    scenes, kinds, donors = found.T
    over = np.isin(kinds, (COMPOSED, PASTED))
    assert set(scenes[over]) == GROUNDS
    assert set(donors[kinds == PASTED]) == DONORS
    alone = np.isin(kinds, (REAL, COMPOSED))
    assert (donors[alone] == scenes[alone]).all()
    # Grounds are drawn by weight among themselves, three of the first for one of the other.
    assert abs((scenes[over] == 0).sum() - 0.75 * over.sum()) < 1 + 1e-6
    assert set(scenes[kinds == REAL]) == set(range(len(FACTS))), "real tiles show all scenes"


def test_a_simulation_is_used_a_few_times_in_an_epoch_and_not_in_the_next() -> None:
    rng = np.random.default_rng(0)
    numbers = []
    for _ in range(2):
        found = plan_tiles(WEIGHTS, FACTS, Mixture(simulated=0.5), 200, rng)
        numbers.append(found[found[:, 1] == SIMULATED, 2])
    for some in numbers:
        uses = np.unique(some, return_counts=True)[1]
        assert uses.max() <= module.SIMULATION_USES and len(uses) < len(some)
        assert len(uses) == -(-len(some) // module.SIMULATION_USES)
    assert not set(numbers[0]) & set(numbers[1])


def test_few_simulations_take_turns_so_that_few_need_be_kept() -> None:
    rng = np.random.default_rng(0)
    found = plan_tiles(WEIGHTS, FACTS, Mixture(simulated=0.5), 4000, rng)
    numbers = found[found[:, 1] == SIMULATED, 2].tolist()
    assert len(set(numbers)) > 2 * module.SIMULATIONS_AT_ONCE
    draw = lru_cache(module.SIMULATIONS_AT_ONCE)(lambda number: number)
    for number in numbers:
        draw(number)
    assert draw.cache_info().misses == len(set(numbers)), "each is drawn once"


@pytest.mark.parametrize(
    ("facts", "left"),
    [
        ([MIXED_FACT, OVERCAST_FACT], {REAL, SIMULATED}),
        ([CLEAR_FACT, OVERCAST_FACT], {REAL, SIMULATED, COMPOSED}),
        ([UNLABELLED_FACT, UNLABELLED_FACT], {REAL, SIMULATED}),
        ([CLEAR_FACT, MIXED_FACT], {REAL, SIMULATED, COMPOSED, PASTED}),
    ],
)
def test_what_scenes_give_nothing_for_is_left_to_real_tiles(
    facts: list[SceneFacts], left: set[int]
) -> None:
    found = plan(count=100, facts=facts, weights=np.array([0.5, 0.5]))
    assert set(found[:, 1]) == left
    assert (found[:, 1] == SIMULATED).sum() == 20
    wanted = 100 - 20 - 30 * (COMPOSED in left) - 15 * (PASTED in left)
    assert abs((found[:, 1] == REAL).sum() - wanted) <= 1


def test_a_plan_follows_from_its_seed_and_is_in_no_order() -> None:
    np.testing.assert_array_equal(plan(seed=3), plan(seed=3))
    assert (plan(seed=3) != plan(seed=4)).any()
    scenes, kinds, _ = plan(count=1000).T
    for column in (scenes, kinds):
        assert (np.diff(column) < 0).mean() > 0.2
    # Which scene a tile shows does not hang on its kind, nor on its place in the epoch.
    real, simulated = (np.bincount(scenes[kinds == k], minlength=6) for k in (REAL, SIMULATED))
    assert np.abs(real / real.sum() - simulated / simulated.sum()).max() < 0.12


def test_an_epoch_may_be_a_tile_or_none() -> None:
    assert plan(count=0).shape == (0, 3)
    assert {int(plan(count=1, seed=seed)[0, 1]) for seed in range(40)} == set(range(4))
    everything = plan(Mixture(simulated=1.0), 7)
    assert (everything[:, 1] == SIMULATED).all()


# What scenes show.

DARK, SNOW = (0.05, 0.06, 0.04, 0.3), (0.8, 0.82, 0.85, 0.75)


def block(reflectance: tuple[float, ...], size: tuple[int, int] = (20, 30)) -> NDArray[np.float32]:
    return np.broadcast_to(np.array(reflectance, np.float32), (*size, 4)).copy()


def test_dark_and_snowy_ground_are_told_apart_and_cloud_is_not_ground(tmp_path: Path) -> None:
    dark, snow, mixed = block(DARK), block(SNOW), block(DARK)
    mask = np.zeros((20, 30), np.uint8)
    cloudy = mask.copy()
    mixed[:, :12], cloudy[:, :12] = 0.9, CLOUD
    patchy = mask.copy()
    patchy[:15] = NO_DATA
    half = block(DARK)
    half[15:, :15] = SNOW
    half[:15] = SNOW
    scenes = [
        write_labelled_scene(tmp_path, name, values, labels)
        for name, values, labels in (
            ("dark", dark, mask),
            ("snow", snow, mask),
            ("mixed", mixed, cloudy),
            ("patchy", half, patchy),
            ("overcast", snow, mask + CLOUD),
            ("unlabelled", snow, mask + NO_DATA),
        )
    ]
    found = survey(scenes)
    assert found == [
        SceneFacts(0.0, 1.0, 0.0),
        SceneFacts(0.0, 1.0, 1.0),
        SceneFacts(0.4, 1.0, 0.0),
        SceneFacts(0.0, 0.25, 0.5),
        SceneFacts(1.0, 1.0, 0.0),
        SceneFacts(0.0, 0.0, 0.0),
    ]
    assert [fact.bright for fact in found] == [False, True, False, True, False, False]
    assert [fact.ground for fact in found] == [True, True, False, False, False, False]
    assert [fact.donor for fact in found] == [False, False, True, False, False, False]


def as_geotiff(folder: Path, values: NDArray[np.float32], mask: NDArray[np.uint8]) -> LabelledScene:
    path = write_scene_tif(folder / "scenes" / "s.tif", values, nodata=0)
    labels = write_mask_tif(folder / "masks" / "s.tif", mask)
    return LabelledScene("s", path, labels, *mask.shape, "a")


def as_catalogue(
    folder: Path, values: NDArray[np.float32], mask: NDArray[np.uint8]
) -> LabelledScene:
    values = np.where(values == 0, np.float32(np.nan), values)
    made = write_labelled_scene(folder, "s", values, mask)
    write_scene_npy(made.scene_path, to_catalogue_bands(values))
    return made


@pytest.mark.parametrize("write", [as_geotiff, as_catalogue])
def test_pixels_without_data_are_no_ground(
    tmp_path: Path, write: Callable[..., LabelledScene]
) -> None:
    values, mask = block(SNOW), np.zeros((20, 30), np.uint8)
    values[:, :10] = DARK
    values[:, 15:] = 0.0
    # 10 columns of dark ground and 5 of snow have data.
    (found,) = survey([write(tmp_path, values, mask)])
    assert found.bright_share == pytest.approx(1 / 3)
    (empty,) = survey([write(tmp_path / "empty", 0 * values, mask)])
    assert empty.bright_share == 0.0


def test_of_a_large_scene_the_ground_in_the_middle_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SURVEY_PX", 10)
    values, mask = block(SNOW, (20, 7)), np.zeros((20, 7), np.uint8)
    values[5:15] = DARK
    mask[0] = CLOUD
    (found,) = survey([write_labelled_scene(tmp_path, "s", values, mask)])
    assert found == SceneFacts(pytest.approx(0.05), 1.0, 0.0)


# Clouds pasted over ground.

SIDE = 24


def ground_block() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Ground that differs from pixel to pixel; some unlabelled, some without data."""
    rng = np.random.default_rng(5)
    image = rng.uniform(0.05, 0.2, (SIDE, SIDE, 4)).astype(np.float32)
    mask = np.zeros((SIDE, SIDE, 1), np.uint8)
    mask[1, 2:9] = NO_DATA
    image[20:22, 3:20], mask[20:22, 3:20] = 0.0, NO_DATA
    return image, mask


def cloud_block() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A cloud without symmetry, with an unlabelled rim on one side and a hole without data."""
    rng = np.random.default_rng(6)
    image = rng.uniform(0.5, 0.9, (SIDE, SIDE, 4)).astype(np.float32)
    mask = np.zeros((SIDE, SIDE, 1), np.uint8)
    mask[4:13, 2:16] = CLOUD
    mask[4:9, 16:19] = NO_DATA
    image[6:8, 7:9], mask[6:8, 7:9] = 0.0, NO_DATA
    return image, mask


def turned_donor(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The donor as it is pasted by a seed: its labels tell which of the eight turns it was."""
    image, mask = cloud_block()
    whole = np.full_like(ground_block()[0], 0.1), np.zeros_like(mask)
    _, label = paste_clouds(whole, (np.full_like(image, 0.7), mask), np.random.default_rng(seed))

    def miss(turn: tuple[int, bool]) -> int:
        turned = np.rot90(mask, turn[0])[:: -1 if turn[1] else 1]
        return int(((label == CLOUD) & (turned != CLOUD)).sum())

    turns, flip = min(((n, flip) for n in range(4) for flip in (False, True)), key=miss)
    assert miss((turns, flip)) <= 6
    return tuple(  # type: ignore[return-value]
        np.rot90(part, turns)[:: -1 if flip else 1] for part in (image, mask)
    )


def far(inside: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Where no pixel within `reach`, in rows and columns, is inside."""
    padded = np.pad(inside, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
    return np.asarray(~windows.any(axis=(2, 3)))


@pytest.mark.parametrize("seed", range(12))
def test_clouds_are_pasted_with_soft_edges_that_are_unlabelled(seed: int) -> None:
    ground, donor = ground_block(), turned_donor(seed)
    image, label = paste_clouds(ground, cloud_block(), np.random.default_rng(seed))
    assert image.shape == (SIDE, SIDE, 4) and image.dtype == np.float32
    assert label.shape == (SIDE, SIDE, 1) and label.dtype == np.uint8
    cloud = donor[1][..., 0] == CLOUD
    data = (ground[0] > 0).any(axis=2)
    shown = (donor[0] > 0).any(axis=2)
    # Three pixels into the cloud nothing of the ground is left, three away nothing of the cloud.
    core, away = far(~cloud, 3) & data, far(cloud, 3)
    assert core.any() and (away & (label[..., 0] == CLEAR)).any()
    np.testing.assert_array_equal(image[core], donor[0][core])
    assert (label[core] == CLOUD).all()
    np.testing.assert_array_equal(image[away], ground[0][away])
    np.testing.assert_array_equal(label[away], ground[1][away])
    # Along its edge a cloud only half covers: such pixels lie between both and are unlabelled.
    edge = data & shown & cloud & ~far(~cloud, 1)
    low, high = np.minimum(ground[0], donor[0]), np.maximum(ground[0], donor[0])
    assert ((image > low - 1e-6) & (image < high + 1e-6))[data].all()
    soft = (image != ground[0]).any(axis=2) & (image != donor[0]).any(axis=2)
    assert soft[edge].any() and (label[soft & ~cloud] != CLEAR).mean() > 0.7
    assert set(np.unique(label)) == {CLEAR, CLOUD, NO_DATA}
    assert not (label[~cloud] == CLOUD).any()
    # Where the one or the other has no data, nothing is pasted.
    assert not image[~data].any() and (label[~data] == NO_DATA).all()
    np.testing.assert_array_equal(image[~shown], ground[0][~shown])
    np.testing.assert_array_equal(label[~shown], ground[1][~shown])


def test_pasted_clouds_come_in_all_eight_turns() -> None:
    found = {turned_donor(seed)[1].tobytes() for seed in range(60)}
    assert len(found) == 8


def test_a_donor_without_cloud_leaves_the_ground_and_an_overcast_one_hides_it() -> None:
    ground, (image, mask) = ground_block(), cloud_block()
    rng = np.random.default_rng(0)
    same, label = paste_clouds(ground, (image, np.where(mask == CLOUD, 0, mask)), rng)
    np.testing.assert_array_equal(same, ground[0])
    np.testing.assert_array_equal(label, ground[1])
    overcast = np.full_like(image, 0.8), np.full_like(mask, CLOUD)
    hidden, label = paste_clouds(ground, overcast, rng)
    data = (ground[0] > 0).any(axis=2)
    np.testing.assert_allclose(hidden[data], 0.8)
    assert not hidden[~data].any()
    np.testing.assert_array_equal(label[..., 0], np.where(data, CLOUD, NO_DATA))


def test_pasting_changes_neither_block() -> None:
    blocks = (*ground_block(), *cloud_block())
    before = [part.copy() for part in blocks]
    paste_clouds(blocks[:2], blocks[2:], np.random.default_rng(1))
    for part, was in zip(blocks, before, strict=True):
        np.testing.assert_array_equal(part, was)
