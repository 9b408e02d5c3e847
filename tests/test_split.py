"""Splits are by place, from a seed, with about the same mixture of cloud on each side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudnet.dataset import LabelledScene, open_dataset
from cloudnet.errors import DatasetError
from cloudnet.mixture import SceneFacts, survey
from cloudnet.split import STRATA, Split, split_folds, split_once


def facts_of(shares: Sequence[float]) -> list[SceneFacts]:
    """Facts of scenes of dark ground, labelled throughout, with these cloud shares."""
    return [SceneFacts(share, 1.0, 0.0) for share in shares]


def scenes_of(places: Sequence[int]) -> list[LabelledScene]:
    """Scenes, one for each entry, of the places numbered."""
    return [
        LabelledScene(f"scene{index:03d}", Path(), Path(), 8, 8, f"place{place:02d}")
        for index, place in enumerate(places)
    ]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[LabelledScene], list[SceneFacts], int, int]:
    """Scenes, what they show, a number of folds that can be, and a seed."""
    folds = draw(st.integers(2, 6))
    extra = draw(st.lists(st.integers(0, 12), max_size=40))
    scenes = scenes_of([*range(folds), *extra])
    share = st.floats(0, 1)
    fact = st.builds(SceneFacts, share, share, share)
    facts = draw(st.lists(fact, min_size=len(scenes), max_size=len(scenes)))
    return scenes, facts, folds, draw(st.integers(0, 2**31))


def groups(scenes: Sequence[LabelledScene]) -> set[str]:
    return {scene.group for scene in scenes}


def strata_of(scenes: Sequence[LabelledScene], shares: dict[str, float]) -> list[int]:
    return [int(np.searchsorted(STRATA, shares[scene.name])) for scene in scenes]


@given(problems())
def test_no_place_is_on_both_sides_and_no_side_is_empty(
    problem: tuple[list[LabelledScene], list[SceneFacts], int, int],
) -> None:
    scenes, facts, folds, seed = problem
    for split in [*split_folds(scenes, facts, folds, seed), split_once(scenes, facts, seed)]:
        assert split.train and split.validation
        assert not groups(split.train) & groups(split.validation)
        assert sorted(s.name for s in split.train + split.validation) == [s.name for s in scenes]


@given(problems())
def test_every_scene_is_validated_exactly_once_over_the_folds(
    problem: tuple[list[LabelledScene], list[SceneFacts], int, int],
) -> None:
    scenes, facts, folds, seed = problem
    splits = split_folds(scenes, facts, folds, seed)
    assert len(splits) == folds
    validated = [scene.name for split in splits for scene in split.validation]
    assert sorted(validated) == [scene.name for scene in scenes]


@given(problems(), st.data())
def test_a_split_is_reproducible_whatever_the_order_of_the_scenes(
    problem: tuple[list[LabelledScene], list[SceneFacts], int, int], data: st.DataObject
) -> None:
    scenes, facts, folds, seed = problem
    splits = split_folds(scenes, facts, folds, seed)
    assert splits == split_folds(scenes, facts, folds, seed)
    order = data.draw(st.permutations(range(len(scenes))))
    again = split_folds([scenes[i] for i in order], [facts[i] for i in order], folds, seed)
    for split, other in zip(splits, again, strict=True):
        assert {s.name for s in split.validation} == {s.name for s in other.validation}


def test_sides_keep_the_order_of_the_scenes() -> None:
    scenes = scenes_of([3, 1, 2, 0, 1, 3, 2, 4, 5])
    for split in split_folds(scenes, facts_of([0.5] * 9), 3, 1):
        assert [s.name for s in split.train] == sorted(s.name for s in split.train)
        assert [s.name for s in split.validation] == sorted(s.name for s in split.validation)


def test_the_seed_matters() -> None:
    scenes = scenes_of(range(30))
    facts = facts_of([0.1] * 30)
    chosen = {frozenset(groups(split_once(scenes, facts, seed).validation)) for seed in range(8)}
    assert len(chosen) > 5


def test_a_known_split() -> None:
    # Splits are written down by seed: they must not change from one version to the next unseen.
    scenes = scenes_of([0, 0, 0, 1, 1, 2, 3, 4, 5, 6])
    facts = facts_of([0.0, 0.5, 1.0, 0.0, 0.5, 0.1, 0.2, 0.6, 0.0, 0.99])
    folds = [sorted(groups(split.validation)) for split in split_folds(scenes, facts, 3, 7)]
    assert folds == [
        ["place00", "place03"],
        ["place01", "place02"],
        ["place04", "place05", "place06"],
    ]


def test_a_plain_split_is_the_last_of_five_folds() -> None:
    scenes, facts = scenes_of(range(23)), facts_of(np.linspace(0, 1, 23).tolist())
    assert split_once(scenes, facts, 5) == split_folds(scenes, facts, 5, 5)[4]


def test_strata_are_dealt_out_evenly() -> None:
    rng = np.random.default_rng(0)
    scenes = scenes_of([index // 2 for index in range(200)])
    values = [[0.0, 0.2, 0.6, 0.99][stratum] for stratum in rng.integers(0, 4, 100).repeat(2)]
    shares = {scene.name: value for scene, value in zip(scenes, values, strict=True)}
    total = Counter(strata_of(scenes, shares))
    for seed in range(3):
        for split in split_folds(scenes, facts_of(values), 5, seed):
            found = Counter(strata_of(split.validation, shares))
            assert abs(len(split.validation) - 40) <= 4
            for stratum, count in total.items():
                assert abs(found[stratum] - count / 5) <= 4


def test_rare_overcast_scenes_are_spread_over_the_folds() -> None:
    scenes = scenes_of(range(50))
    values = [1.0 if index % 10 == 3 else 0.0 for index in range(50)]
    shares = {scene.name: value for scene, value in zip(scenes, values, strict=True)}
    for split in split_folds(scenes, facts_of(values), 5, seed=2):
        assert strata_of(split.validation, shares).count(3) == 1


def test_scenes_of_bright_ground_are_spread_over_the_folds() -> None:
    scenes = scenes_of(range(50))
    bright = {scene.name for index, scene in enumerate(scenes) if index % 10 == 4}
    facts = [SceneFacts(0.1, 1.0, float(scene.name in bright)) for scene in scenes]
    for split in split_folds(scenes, facts, 5, seed=2):
        assert sum(scene.name in bright for scene in split.validation) == 1
        assert len(split.validation) == 10


def test_scenes_labelled_by_humans_are_spread_over_the_folds() -> None:
    scenes = [
        replace(scene, labels="human" if index % 10 == 4 else "SCL")
        for index, scene in enumerate(scenes_of(range(50)))
    ]
    for split in split_folds(scenes, facts_of([0.1] * 50), 5, seed=2):
        assert [scene.labels for scene in split.validation].count("human") == 1
        assert len(split.validation) == 10


def test_a_place_of_many_scenes_does_not_draw_others_to_its_fold() -> None:
    scenes = scenes_of([0] * 40 + list(range(1, 41)))
    sizes = sorted(len(s.validation) for s in split_folds(scenes, facts_of([0.5] * 80), 5, 3))
    assert sizes == [10, 10, 10, 10, 40]


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_as_many_folds_as_places_hold_a_place_each(folds: int) -> None:
    scenes = scenes_of([place for place in range(folds) for _ in range(place * 3 + 1)])
    splits = split_folds(scenes, facts_of([0.3] * len(scenes)), folds, 0)
    assert [len(groups(split.validation)) for split in splits] == [1] * folds


@pytest.mark.parametrize(("places", "validation"), [(2, 1), (3, 1), (4, 1), (5, 1), (20, 4)])
def test_a_plain_split_sets_about_a_fifth_aside(places: int, validation: int) -> None:
    split = split_once(scenes_of(range(places)), facts_of([0.4] * places), 0)
    assert len(split.validation) == validation
    assert len(split.train) == places - validation


def test_too_few_places_are_refused() -> None:
    scenes = scenes_of([0, 0, 0, 1])
    with pytest.raises(DatasetError, match="2 places cannot be split into 3 parts"):
        split_folds(scenes, facts_of([0.1] * 4), 3, 0)
    with pytest.raises(DatasetError, match="1 place cannot be split into 2 parts"):
        split_once(scenes[:3], facts_of([0.1] * 3), 0)
    with pytest.raises(DatasetError, match="0 places"):
        split_once([], [], 0)


@pytest.mark.parametrize("folds", [1, 0, -1])
def test_too_few_folds_are_refused(folds: int) -> None:
    with pytest.raises(DatasetError, match="folds"):
        split_folds(scenes_of(range(9)), facts_of([0.1] * 9), folds, 0)


def test_a_share_too_few_is_no_silent_matter() -> None:
    with pytest.raises(ValueError, match="zip"):
        split_folds(scenes_of(range(4)), facts_of([0.1] * 3), 2, 0)


def test_the_real_scenes_split_evenly(real_scenes: Path) -> None:
    scenes = open_dataset([real_scenes / "catalogue", real_scenes / "rgbn"]).scenes
    facts = survey(scenes)
    shares = {scene.name: fact.cloud_share for scene, fact in zip(scenes, facts, strict=True)}
    splits: list[Split] = split_folds(scenes, facts, 5, 0)
    for split in splits:
        assert not groups(split.train) & groups(split.validation)
        mean = np.mean([shares[scene.name] for scene in split.validation])
        assert 0.1 < mean < 0.45
        assert set(strata_of(split.validation, shares)) == {0, 1, 2, 3}
    # One place has 58 scenes, another 30.
    assert sorted(len(split.validation) for split in splits)[:3] >= [30, 30, 30]
