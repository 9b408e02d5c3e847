"""cloudnet fetch: reference data from where they are published."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import FILE, INTERRUPTED

if TYPE_CHECKING:
    from cloudnet.catalogue import FetchProgress, OnFetch

STEPS = 1000
"""Of a bar: bytes are too many for it to count."""


@click.command(short_help="Download the reference data.")
@click.argument("what", type=click.Choice(("catalogue",)))
@click.argument("folder", type=FILE)
@click.option(
    "--discard-archives", is_flag=True, help="Remove each archive once it is unpacked (15 GB)."
)
@click.option(
    "--url",
    metavar="ADDRESS",
    help="Of the record in Zenodo's API or at a mirror, instead of Zenodo's own.",
)
def fetch(what: str, folder: Path, discard_archives: bool, url: str | None) -> None:
    """Download the Sentinel-2 Cloud Mask Catalogue into FOLDER and unpack it: 15 GB, then 45 GB.

    Stopped or broken off, the same command goes on where it was. Sizes and MD5 are checked.
    """
    from cloudnet.catalogue import fetch_catalogue
    from cloudnet.fetch import RECORD_URL, Source

    try:
        with file_bars() as show:
            done = fetch_catalogue(
                folder,
                Source(RECORD_URL if url is None else url),
                discard_archives=discard_archives,
                on_progress=show,
            )
    except KeyboardInterrupt:
        click.echo(f"\nStopped; the same command goes on from there: {folder}", err=True)
        raise SystemExit(INTERRUPTED) from None
    for name in done:
        click.echo(f"{'unpacked' if name.endswith('/') else 'fetched'}: {folder / name}")
    click.echo(f"{folder} is complete; look at it with cloudnet inspect {folder} --totals")


@contextmanager
def file_bars() -> Iterator[OnFetch]:
    """Show a bar for each file and what is done with it, on stderr where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda progress: None
        return
    bars: dict[tuple[str, str], Any] = {}

    def end() -> None:
        for bar in bars.values():
            bar.__exit__(None, None, None)
        bars.clear()

    def show(progress: FetchProgress) -> None:
        key, total = (progress.stage, progress.name), max(progress.total, 1)
        if key not in bars:
            end()
            label = f"{progress.stage} {progress.name} ({total / 1e6:,.0f} MB)"
            bars[key] = click.progressbar(length=STEPS, label=label, file=sys.stderr)
            bars[key].__enter__()
        # Backwards too, where a server begins anew.
        if step := int(STEPS * progress.done / total) - bars[key].pos:
            bars[key].update(step)

    try:
        yield show
    finally:
        end()
