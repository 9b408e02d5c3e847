"""cloudnet models: the models that come with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloudnet.shipped import ShippedModel

HEADER = (
    "model", "kB", "parameters", "multiply-adds/px", "numbers", "threshold", "bands", "version",
)  # fmt: skip


@click.command(short_help="List the models that come with cloudnet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def models(as_json: bool) -> None:
    """List the models that come with cloudnet: what each costs and takes, and their model card.

    Their names stand for their files in predict, evaluate, compare, info and quantise.
    """
    from cloudnet.report import text_table
    from cloudnet.shipped import find_model, model_card, shipped_models

    find_model()  # an installation without its default model is broken
    facts = [_facts(model) for model in shipped_models()]
    card = str(model_card())
    if as_json:
        click.echo(json.dumps({"models": facts, "model_card": card}, indent=2))
    else:
        click.echo(text_table(HEADER, map(_row, facts)))
        click.echo(f"\nmodel card: {card}")


def _facts(shipped: ShippedModel) -> dict[str, Any]:
    """Return what the file tells about a model, as JSON types."""
    from cloudnet.runtime import load_model

    model = load_model(shipped.path)
    return {
        "name": shipped.name,
        "default": shipped.is_default,
        "path": str(shipped.path),
        "keras": str(shipped.keras) if shipped.keras else None,
        "bytes": shipped.size_bytes,
        "parameters": model.facts.get("parameters"),
        "macs_per_pixel": model.facts.get("macs_per_pixel"),
        "precision": model.precision,
        "threshold": model.spec.threshold,
        "bands": list(model.spec.bands),
        "version": model.spec.version,
        "sha256": model.sha256,
    }


def _row(facts: dict[str, Any]) -> tuple[str | int | float | None, ...]:
    macs = facts["macs_per_pixel"]
    return (
        f"{facts['name']}{' (default)' if facts['default'] else ''}",
        round(facts["bytes"] / 1000),
        facts["parameters"],
        None if macs is None else round(macs),
        facts["precision"],
        facts["threshold"],
        " ".join(facts["bands"]),
        facts["version"],
    )
