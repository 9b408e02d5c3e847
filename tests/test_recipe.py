"""Recipes: settings by name, with changes."""

from __future__ import annotations

from dataclasses import asdict
from math import nan

import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")

from cloudnet.commands import main
from cloudnet.errors import ModelError
from cloudnet.recipe import RECIPES, settings_of
from cloudnet.train import TrainConfig


def test_without_a_recipe_settings_are_the_default_ones_with_changes() -> None:
    assert settings_of(None, {}) == TrainConfig()
    assert settings_of(None, {"epochs": 3, "seed": 7}) == TrainConfig(epochs=3, seed=7)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_taken_as_it_is_or_with_changes(name: str) -> None:
    recipe = RECIPES[name]
    assert settings_of(name, {}) == recipe != TrainConfig()
    changes = {"epochs": recipe.epochs + 1, "deterministic": True}
    changed = settings_of(name, changes)
    assert asdict(changed) == {**asdict(recipe), **changes}
    assert settings_of(name, {}) == recipe, "a change is not kept"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_makes_up_tiles_and_takes_no_choice_from_validation(name: str) -> None:
    recipe = RECIPES[name]
    assert not recipe.mixture.plain
    assert recipe.keep == "last"
    assert TrainConfig().mixture.plain, "plain training is as it was"


def test_an_unknown_recipe_is_named_beside_the_known() -> None:
    with pytest.raises(ModelError, match=rf"'s3'.*{'.*'.join(RECIPES)}"):
        settings_of("s3", {})


@pytest.mark.parametrize("name", [None, *RECIPES])
@pytest.mark.parametrize("wrong", [{"tile_px": 100}, {"epochs": 0}, {"learning_rate": nan}])
def test_changes_out_of_range_are_refused(name: str | None, wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError):
        settings_of(name, wrong)


def test_the_command_offers_every_recipe() -> None:
    """It lists them itself: to import them takes TensorFlow."""
    (option,) = (one for one in main.commands["train"].params if one.name == "recipe")
    assert list(option.type.choices) == list(RECIPES)  # type: ignore[attr-defined]
