"""Recipes: the settings of the shipped models, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudnet.errors import ModelError
from cloudnet.mixture import Mixture
from cloudnet.train import LAST, TrainConfig

RECIPES: Mapping[str, TrainConfig] = {
    "s2-rgbn": TrainConfig(
        epochs=30,
        epoch_tiles=3200,
        tile_px=128,
        learning_rate=4e-3,
        weight_decay=2e-2,
        threshold=0.45,
        levels=("L1C",),
        keep=LAST,
        ensemble=2,
        name="s2-rgbn",
        version="1.9.0",
        mixture=Mixture(
            simulated=0.45,
            composed=0.12,
            # A product's own classification (SCL) takes muddy water for cloud, and a net learns it.
            trust=(("human", 1.5), ("clear by inspection", 2.0), ("SCL", 0.0)),
            balanced=True,
        ),
    ),
}
"""What was found by grouped cross-validation; REPORT.md beside the models tells what each part is
worth."""


def settings_of(recipe: str | None, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a recipe, or the default ones, with changes.

    Raises
    ------
    ModelError
        When there is no such recipe, or a setting is out of its range.
    """
    if recipe is None:
        return TrainConfig(**changes)
    if recipe not in RECIPES:
        raise ModelError(f"no recipe is called {recipe!r}; there is {', '.join(RECIPES)}")
    return replace(RECIPES[recipe], **changes)
