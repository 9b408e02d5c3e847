"""Tasks: a scene of an archive, and what any process needs to predict it as every other does."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnxruntime

from cloudnet._version import __version__
from cloudnet.compare import Comparison, replay_probe
from cloudnet.errors import BatchError, CloudnetError
from cloudnet.files import writable_folder
from cloudnet.predict import PredictOptions, predict_scene
from cloudnet.product import VECTOR_FORMATS, Outputs
from cloudnet.reading import is_address
from cloudnet.runtime import CloudModel, load_model
from cloudnet.scene import Reading


def versions() -> dict[str, str]:
    """Return what must be the same wherever scenes of one archive are predicted."""
    return {
        "cloudnet": __version__,
        "onnxruntime": str(onnxruntime.__version__),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


@dataclass(frozen=True)
class Task:
    """One scene of an archive.

    Attributes
    ----------
    scene, name
        Its absolute path or address, and the name of its products.
    """

    scene: str
    name: str


def scene_stamp(scene: str) -> str | None:
    """Return what tells a scene from another that takes its place: a digest of the sizes and times
    of its file, or of those at the top of its folder, where a product says what it is; None of an
    address, and where there is nothing.
    """
    if is_address(scene):
        return None
    path = Path(scene)
    try:
        files = sorted(filter(Path.is_file, path.iterdir())) if path.is_dir() else [path]
        found = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    facts = [(name, status.st_size, status.st_mtime_ns) for name, status in found]
    text = repr((path.name, facts))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    seconds
        From opening the scene to its products.
    cloud_share, valid_share
        As in `Prediction`.
    error
        Why it failed, a sentence; None where it is done.
    note
        As in `Prediction`.
    """

    seconds: float = 0.0
    cloud_share: float | None = None
    valid_share: float | None = None
    error: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Job:
    """What all tasks share; it can be sent to another process or machine.

    Attributes
    ----------
    model, content, sha256
        The model's file as it was found, what is in it, and its digest.
    comparison
        Of this model, where the job was made; each process replays the probe for itself.
    folder
        Where the products go, an absolute path.
    options, reading
        How to predict. Products that are there are replaced: whoever gives tasks has looked.
    threads
        Inside the net, for each scene that is under way; None: as many as the process may use.
    versions
        As `versions` gives them, where the job was made.
    provider
        Of onnxruntime, as `load_model` takes it.
    """

    model: Path
    content: bytes
    sha256: str
    comparison: Comparison
    folder: Path
    options: PredictOptions
    reading: Reading
    threads: int | None
    versions: dict[str, str]
    provider: str = "cpu"

    @property
    def settings(self) -> str:
        """Digest of the model and of every option that the products depend on."""
        options = {**asdict(self.options), "overwrite": None}
        facts = {"model": self.sha256, "options": options, "reading": asdict(self.reading)}
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def products(self, name: str) -> list[Path]:
        """Return the files that the scene of a name gets."""
        return [*self.options.wanted(Outputs(self.folder, name)).values()]


def make_job(
    model: CloudModel,
    comparison: Comparison,
    folder: Path,
    options: PredictOptions,
    reading: Reading | None,
) -> Job:
    """Return the job of a model that was compared here, its threshold and paths written out."""
    threshold = options.threshold or model.spec.threshold
    like = None if options.like is None else options.like.absolute()
    vector = options.vector
    if vector not in (None, *VECTOR_FORMATS):
        vector = str(Path(vector).absolute())
    return Job(
        model=model.path.absolute(),
        content=model.path.read_bytes(),
        sha256=model.sha256,
        comparison=comparison,
        folder=folder.absolute(),
        options=replace(options, threshold=threshold, like=like, vector=vector),
        reading=reading or Reading(),
        threads=None,
        versions=versions(),
    )


def prepare(job: Job) -> CloudModel:
    """Load the job's model in this process and prove that products made here will be right.

    Raises
    ------
    BatchError
        When the versions here are not those where the job was made.
    OutputError
        When the folder is not to be seen from here, or cannot be written to.
    ComparisonError
        When onnxruntime does not say here what the model said at publication (contract 5).
    """
    if (here := versions()) != job.versions:
        other = ", ".join(f"{name} {here[name]}" for name in here)
        wanted = ", ".join(f"{name} {job.versions[name]}" for name in job.versions)
        raise BatchError(f"this worker has {other}, the command {wanted}; install the same on both")
    if not job.folder.is_dir():
        raise BatchError(
            f"{job.folder} is not to be seen by this worker; give an output folder that all share"
        )
    writable_folder(job.folder)
    model = _load(job)
    replay_probe(model, job.comparison.atol).require(job.model)
    return model


def _load(job: Job) -> CloudModel:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, job.model.name)
        copy.write_bytes(job.content)
        model = load_model(copy, threads=job.threads, provider=job.provider)
    model.path = job.model
    return model


def run_task(job: Job, model: CloudModel, task: Task) -> Outcome:
    """Predict a scene; whatever is wrong with it becomes the outcome's error."""
    began = time.perf_counter()
    try:
        prediction = predict_scene(
            task.scene,
            model,
            job.folder,
            comparison=job.comparison,
            options=replace(job.options, overwrite=True),
            reading=job.reading,
        )
    except CloudnetError as error:
        return Outcome(time.perf_counter() - began, error=" ".join(str(error).split()))
    except Exception as error:  # an archive of thousands does not end for one scene
        cause = " ".join(f"{type(error).__name__} {error}".split())
        sentence = f"{task.scene} fails in an unforeseen way ({cause}); please report it"
        return Outcome(time.perf_counter() - began, error=sentence)
    seconds = time.perf_counter() - began
    return Outcome(seconds, prediction.cloud_share, prediction.valid_share, note=prediction.note)
