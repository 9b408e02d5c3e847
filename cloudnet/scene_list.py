"""Scene lists: what the user names, patterns and a list on standard input included, as scenes."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cloudnet.errors import SceneError
from cloudnet.reading import is_address

STDIN = "-"
"""The argument that stands for a list on standard input."""


def list_scenes(words: Iterable[str], lines: Iterable[str] = ()) -> list[str]:
    """Return the scenes that words name, each once, in their order.

    Parameters
    ----------
    words
        Paths, http(s) addresses, patterns (`*`, `?`, `[…]`, and `**` for folders at any depth) for
        shells that do not expand them, and `-` for the lines.
    lines
        A scene or a pattern each; empty ones and those that begin with `#` say nothing.

    Raises
    ------
    SceneError
        When a pattern fits nothing, or the lines name no scene.
    """
    named: list[str] = []
    for word in words:
        named += _from_lines(lines) if word == STDIN else _expand(word)
    unique: dict[str, str] = {}
    for scene in named:
        unique.setdefault(identity(scene), scene)
    return [*unique.values()]


def identity(scene: str) -> str:
    """Return what tells a scene from others, from wherever it is named: its absolute path."""
    return scene if is_address(scene) else str(Path(scene).absolute())


def _from_lines(lines: Iterable[str]) -> list[str]:
    named = [scene for word in _words(lines) for scene in _expand(word)]
    if not named:
        raise SceneError("the list on standard input names no scene; give a scene a line")
    return named


def _words(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        word = line.strip().removeprefix("\ufeff")
        if word and not word.startswith("#"):
            yield word


def _expand(word: str) -> list[str]:
    """Return the files that fit a pattern; a word that is none, or names a file, as it is."""
    if is_address(word) or not glob.has_magic(word) or _lies_there(word):
        return [word]
    found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - it knows no absolute pattern
    if not found:
        raise SceneError(f"no scene fits the pattern {word}")
    return found


def _lies_there(word: str) -> bool:
    with suppress(OSError):
        return Path(word).exists()
    return False
