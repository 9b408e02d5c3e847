"""The Sentinel-2 Cloud Mask Catalogue: fetched, unpacked, and trained on by its own protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from cloudnet.archive import (
    is_unpacked,
    remove_leftovers,
    require_room,
    unpack,
    unpacked_bytes,
)
from cloudnet.dataset import PARTS, TAGS_FILE, DataSet, LabelledScene
from cloudnet.errors import DatasetError, OutputError
from cloudnet.evaluate import evaluate_model
from cloudnet.fetch import (
    FetchError,
    RemoteFile,
    Source,
    download,
    md5_of,
    part_of,
    read_record,
    size_of,
)
from cloudnet.files import writable_folder, write_text
from cloudnet.lock import output_lock
from cloudnet.report import evaluation_json
from cloudnet.run import Run
from cloudnet.runtime import load_model
from cloudnet.scores import Evaluation
from cloudnet.split import split_once

if TYPE_CHECKING:  # they bring TensorFlow, which fetching need not
    from cloudnet.train import OnProgress, TrainConfig

SUBSCENES = "subscenes.zip"
NEEDED = (SUBSCENES, "masks.zip", TAGS_FILE)
FILES = (*NEEDED, "alt_masks.zip", "shapefiles.zip", "thumbnails.zip", "README.pdf")
"""Of the record."""

NOTES_FILE = "fetched.json"
"""Says which files were found right, so that they need not be read again, and what was unpacked."""

UNPACKED_TIMES = 513 * 1022 * 1022 * 13 * 4 / 15_197_196_473
"""Bytes of the 513 subscenes over those of their archive."""

MASK_SHARE = 3 / (13 * 4)
"""Bytes of a mask (3 channels of bool) over those of its subscene (13 bands of float32)."""

SECOND_SHARE = 60 / 513
"""Share of the scenes that were annotated twice."""

OTHER_TIMES = 3
"""The other archives unpack to so many times their size, roughly."""

MOST_TIMES, SLACK = 3, 100_000_000
"""An archive that unpacks to more than so many times what is expected, and so many bytes, is
refused."""

DOWNLOAD, CHECK, UNPACK = "fetching", "checking", "unpacking"

TEST_PARTS = ("CALIBRATION", "VALIDATION")
TEST_FILE = "test.json"
MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class FetchProgress:
    """What is done with which file, and how far: bytes done of all."""

    stage: str
    name: str
    done: int
    total: int


OnFetch: TypeAlias = Callable[[FetchProgress], None]


def fetch_catalogue(
    folder: Path,
    source: Source | None = None,
    *,
    discard_archives: bool = False,
    on_progress: OnFetch | None = None,
) -> list[str]:
    """Fetch the files of the record and unpack the archives, what is there already left alone.

    Afterwards the folder is a data set: `subscenes/`, `masks/`, `classification_tags.csv`.

    Parameters
    ----------
    folder
        Is made.
    source
        Where the record is.
    discard_archives
        Remove each archive once it is unpacked.
    on_progress
        Called often.

    Returns
    -------
    Names of the files that were fetched, and of the folders, with a slash, that were unpacked.

    Raises
    ------
    FetchError, ArchiveError
        When the record or a file cannot be had, or is not what it says.
    OutputError
        When something is in the way, cannot be written, or the disk has not enough room, or when
        another process fetches to the folder.
    """
    with output_lock(writable_folder(folder) / NOTES_FILE):
        shelf = _Shelf(folder, on_progress or (lambda progress: None))
        return _fetch_to(shelf, source or Source(), discard_archives)


def _fetch_to(shelf: _Shelf, source: Source, discard_archives: bool) -> list[str]:
    """Fetch and unpack what the shelf lacks; the lock is ours."""
    files = _files_of(source)
    try:
        plan = _plan(files, shelf)
        require_room(shelf.folder, _room(plan, discard_archives), "for the catalogue")
        done = []
        for step in plan:
            if step.fetch:
                shelf.fetch(step.remote, source)
                done.append(step.remote.name)
            if step.unpack:
                shelf.unpack(step.remote, step.most)
                done.append(f"{PurePath(step.remote.name).stem}/")
            if discard_archives and _is_archive(step.remote):
                shelf.discard(step.remote)
    except OSError as error:
        cause = error.strerror or error
        raise OutputError(f"{error.filename or shelf.folder} cannot be read: {cause}") from error
    return done


@dataclass(frozen=True)
class _Step:
    """What is to be done with a file.

    `missing` bytes are to come, it unpacks to about `unpacked` bytes, and may to `most`.
    """

    remote: RemoteFile
    fetch: bool
    unpack: bool
    missing: int
    unpacked: int
    most: int


def _files_of(source: Source) -> list[RemoteFile]:
    """Return the catalogue's files in the record, the small ones first."""
    record = read_record(source)
    if missing := [name for name in NEEDED if name not in record]:
        raise FetchError(f"the record at {source.url} lists no {missing[0]}; check --url")
    return sorted((record[name] for name in FILES if name in record), key=lambda file: file.size)


def _is_archive(remote: RemoteFile) -> bool:
    return remote.name.endswith(".zip")


def _plan(files: Sequence[RemoteFile], shelf: _Shelf) -> list[_Step]:
    """Return what is to be done with each file."""
    guesses = _unpacked_sizes(files)
    steps = []
    for remote in files:
        path, guess = shelf.path(remote), guesses[remote.name]
        fetch, unpack = not shelf.has(remote), not shelf.has_unpacked(remote)
        missing = remote.size - min(size_of(part_of(path)), remote.size) if fetch else 0
        unpacked = guess if fetch or not unpack else unpacked_bytes(path)
        steps.append(_Step(remote, fetch, unpack, missing, unpacked, MOST_TIMES * guess + SLACK))
    return steps


def _unpacked_sizes(files: Sequence[RemoteFile]) -> dict[str, int]:
    """Return about how many bytes each file unpacks to."""
    (packed,) = (remote.size for remote in files if remote.name == SUBSCENES)
    subscenes = int(UNPACKED_TIMES * packed)
    masks = int(subscenes * MASK_SHARE)
    known = {
        SUBSCENES: subscenes,
        "masks.zip": masks,
        "alt_masks.zip": int(masks * SECOND_SHARE),
    }
    return {remote.name: known.get(remote.name, OTHER_TIMES * remote.size) for remote in files}


def _room(plan: Sequence[_Step], discard_archives: bool) -> int:
    """Return how many bytes are taken at most, on the way, of what is free now."""
    taken = most = 0
    for step in plan:
        taken += step.missing + step.unpack * step.unpacked
        most = max(most, taken)
        if discard_archives and _is_archive(step.remote):
            taken -= step.remote.size
    return most


class _Shelf:
    """The folder that the files come to, and the notes on what was found right there."""

    def __init__(self, folder: Path, tell: OnFetch) -> None:
        self.folder = folder
        self._tell = tell
        self._notes: dict[str, Any] = {}
        try:
            notes = json.loads((folder / NOTES_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # what they would say is found out again
        if isinstance(notes, dict):
            self._notes = {name: note for name, note in notes.items() if isinstance(note, dict)}

    def path(self, remote: RemoteFile) -> Path:
        """Return where a file is, or will be."""
        return self.folder / remote.name

    def has(self, remote: RemoteFile) -> bool:
        """Tell whether a file is here and right, or is an archive that was unpacked and discarded.

        Raises
        ------
        OutputError
            When another file is in its place.
        """
        path = self.path(remote)
        if not path.exists():
            return _is_archive(remote) and self.has_unpacked(remote)
        if not path.is_file():
            raise OutputError(f"{path} is in the way of the record's file; move it away")
        if size_of(path) != remote.size:
            raise OutputError(
                f"{path} has {size_of(path)} bytes, the record's file {remote.size}; remove it, or "
                f"name it {part_of(path).name} if it is the beginning of that file"
            )
        note = self._notes.get(remote.name, {})
        if (note.get("md5"), note.get("mtime_ns")) != (remote.md5, path.stat().st_mtime_ns):
            if md5_of(path, self._teller(CHECK, remote)) != remote.md5:
                raise OutputError(
                    f"{path} is not the record's file, as its MD5 is not {remote.md5}; remove it"
                )
            self._note(remote, mtime_ns=path.stat().st_mtime_ns)
        return True

    def has_unpacked(self, remote: RemoteFile) -> bool:
        """Tell whether all that an archive holds is here; true for any other file.

        Raises
        ------
        OutputError
            When something else is in its place.
        """
        if not _is_archive(remote):
            return True
        target, note = self._target(remote), self._notes.get(remote.name, {})
        remove_leftovers(target)
        if not target.is_dir() or not any(target.iterdir()):
            return False
        if self.path(remote).exists():
            complete = is_unpacked(self.path(remote), target)
        else:
            noted = note.get("md5"), note.get("unpacked")
            complete = noted == (remote.md5, _count_files(target))
        if not complete:
            raise OutputError(
                f"{target} is there, but is not what {remote.name} holds; move it away"
            )
        return True

    def fetch(self, remote: RemoteFile, source: Source) -> None:
        """Fetch a file."""
        path = self.path(remote)
        teller = self._teller(DOWNLOAD, remote)
        download(remote, path, source, teller, self._teller(CHECK, remote))
        self._note(remote, mtime_ns=path.stat().st_mtime_ns)

    def unpack(self, remote: RemoteFile, most: int) -> None:
        """Unpack an archive."""

        def tell(done: int, total: int) -> None:
            self._tell(FetchProgress(UNPACK, remote.name, done, total))

        found = unpack(self.path(remote), self._target(remote), max_bytes=most, on_bytes=tell)
        self._note(remote, unpacked=found.total())

    def discard(self, remote: RemoteFile) -> None:
        """Remove an archive; what it unpacked to is noted before."""
        path, target = self.path(remote), self._target(remote)
        if path.exists():
            self._note(remote, unpacked=_count_files(target))
            path.unlink()

    def _target(self, remote: RemoteFile) -> Path:
        return self.folder / PurePath(remote.name).stem

    def _teller(self, stage: str, remote: RemoteFile) -> Callable[[int], None]:
        return lambda done: self._tell(FetchProgress(stage, remote.name, done, remote.size))

    def _note(self, remote: RemoteFile, **facts: int) -> None:
        note = self._notes.get(remote.name, {})
        if note.get("md5") != remote.md5:
            note = {"md5": remote.md5}
        self._notes[remote.name] = {**note, **facts}
        write_text(self.folder / NOTES_FILE, json.dumps(self._notes, indent=2) + "\n")


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


@dataclass(frozen=True)
class Protocol:
    """Scenes to train and validate on, to test on, and those of MAIN whose place is tested on."""

    train: tuple[LabelledScene, ...]
    test: tuple[LabelledScene, ...]
    left_out: tuple[LabelledScene, ...]


def split_protocol(scenes: Sequence[LabelledScene]) -> Protocol:
    """Split the catalogue as its authors do: MAIN to train on, the others to test on.

    Places come first: a scene of MAIN from a place that is tested on goes to neither side.

    Raises
    ------
    DatasetError
        When the part of a scene is not known, or one side is empty.
    """
    if not any(scene.part for scene in scenes):
        raise DatasetError(
            f"no scene is known to be of {', '.join(PARTS)}: {TAGS_FILE} is not beside the scenes' "
            "folder, or does not say; get it with cloudnet fetch catalogue"
        )
    if unknown := [scene for scene in scenes if scene.part not in PARTS]:
        says = f"says {unknown[0].part!r} of" if unknown[0].part else "does not know"
        raise DatasetError(
            f"{TAGS_FILE} {says} {unknown[0].scene_path}, and {len(unknown) - 1} scenes more are "
            f"not of {', '.join(PARTS)}; mend it, or take them away"
        )
    test = tuple(scene for scene in scenes if scene.part in TEST_PARTS)
    main = [scene for scene in scenes if scene.part not in TEST_PARTS]
    tested = {scene.group for scene in test}
    train = tuple(scene for scene in main if scene.group not in tested)
    left_out = tuple(scene for scene in main if scene.group in tested)
    if not test or not train:
        raise DatasetError(
            f"the protocol needs scenes to test on, of {' and '.join(TEST_PARTS)}, and scenes of "
            f"MAIN from other places; here are {len(test)} and {len(train)}"
        )
    return Protocol(train, test, left_out)


def train_protocol(
    protocol: Protocol,
    folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Run:
    """Train on MAIN; about a fifth of it, by place, is set aside to validate on.

    Parameters and errors are those of `train.train`, but for the scenes.
    """
    from cloudnet.train import scene_facts, train_split

    facts = scene_facts(protocol.train)
    split = split_once(protocol.train, list(facts.values()), config.seed)
    return train_split(split, facts, folder, config, resume=resume, on_progress=on_progress)


def score_protocol(
    run: Run, protocol: Protocol, on_scene: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Test a run on the parts that it was not trained on: to be done once, at the end.

    The net leaves the run as `model.onnx`, compared with Keras, and that is tested. The scores are
    in `test.json` beside it: all, by part, by tag, by scene.

    Parameters
    ----------
    run
        Trained by the protocol.
    protocol
        The split that it was trained by.
    on_scene
        Called with the number of scenes done and of all.

    Raises
    ------
    CloudnetError
        As `export.export_onnx` and `evaluate.evaluate_model` do.
    """
    from cloudnet.export import export_onnx

    model_file = run.folder / MODEL_FILE
    export_onnx(run.folder, model_file, overwrite=True)
    evaluation = evaluate_model(DataSet(protocol.test), load_model(model_file), on_scene=on_scene)
    report = _test_report(protocol, evaluation)
    write_text(run.folder / TEST_FILE, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return evaluation


def _test_report(protocol: Protocol, evaluation: Evaluation) -> dict[str, Any]:
    """Return the test's scores as JSON types."""
    scenes = protocol.test

    def pooled(chosen: Sequence[bool]) -> Any:
        scores = tuple(score for score, wanted in zip(evaluation.scenes, chosen) if wanted)
        part = Evaluation(scores, evaluation.threshold, evaluation.model)
        return json.loads(evaluation_json(part))["pooled"]

    tags = sorted({tag for scene in scenes for tag in scene.tags})
    return {
        "protocol": "catalogue",
        "train_and_validation_scenes": len(protocol.train),
        "left_out": [scene.name for scene in protocol.left_out],
        **json.loads(evaluation_json(evaluation)),
        "by_part": {part: pooled([scene.part == part for scene in scenes]) for part in TEST_PARTS},
        "by_tag": {tag: pooled([tag in scene.tags for scene in scenes]) for tag in tags},
    }
