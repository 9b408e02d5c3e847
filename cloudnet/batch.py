"""Batches: an archive of scenes, each predicted once, whatever happens on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from cloudnet._version import __version__
from cloudnet.claims import Claim, claim_path, stems, sweep, unpublished
from cloudnet.cluster import LOCAL, run_on_dask
from cloudnet.compare import replay_probe
from cloudnet.errors import CloudnetError, OutputError
from cloudnet.files import writable_folder
from cloudnet.manifest import DONE, FAILED, SKIPPED, Manifest, Record
from cloudnet.predict import PredictOptions, check_shared
from cloudnet.runtime import CloudModel, load_model, usable_cores
from cloudnet.scene import Reading, scene_name
from cloudnet.scene_list import identity
from cloudnet.task import Job, Outcome, Task, make_job, scene_stamp
from cloudnet.workers import run_here, run_in_processes

OnResult: TypeAlias = Callable[[Record], None]

REPLACE = "give --overwrite to replace it"


@dataclass(frozen=True)
class Spread:
    """Where the scenes of an archive are predicted.

    Attributes
    ----------
    jobs
        Processes on this machine; None: this one, or for a local cluster as many as it has cores.
    scheduler
        Address of a Dask scheduler, or "local"; None: no Dask.
    skip_existing
        Leave out scenes whose products are there, whatever made them.
    """

    jobs: int | None = None
    scheduler: str | None = None
    skip_existing: bool = False

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise CloudnetError(f"--jobs is 1 or more, not {self.jobs}")
        if self.jobs is not None and self.scheduler not in (None, LOCAL):
            raise CloudnetError(
                f"--jobs goes without --scheduler, or with --scheduler {LOCAL}; "
                f"{self.scheduler} has the workers that were started for it"
            )


def predict_dataset(
    scenes: Iterable[str | Path],
    folder: str | Path,
    model: CloudModel | str | Path | None = None,
    *,
    options: PredictOptions | None = None,
    reading: Reading | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    skip_existing: bool = False,
    on_result: OnResult | None = None,
) -> list[Record]:
    """Write the products of many scenes; called again after any end, it goes on where it was.

    `folder/manifest.jsonl` gets a line for each scene. A scene that fails is recorded there, and
    the others go on. Scenes that are done, with this model and these options, are not done again,
    unless a scene's files are others than they were then.
    Scripts that give `jobs` or `scheduler="local"` call it under `if __name__ == "__main__":`,
    since processes that are started import the script.

    Parameters
    ----------
    scenes
        Paths and addresses, each with a name of its own.
    folder
        Where the products go; made if need be. On a cluster, one that all its machines share.
    model
        As `load_model` takes it, or what it gave; it is compared before anything is written.
    options, reading
        As in `predict_scene`. With `overwrite` every scene is done again.
    jobs, scheduler, skip_existing
        As in `Spread`.
    on_result
        Called with the record of each scene as it is done, failed or skipped now.

    Returns
    -------
    The record of each scene, in the order of `scenes`; of those done before, as it was.

    Raises
    ------
    CloudnetError
        When the model does not pass its comparison, two scenes bear one name or would share a file,
        a product is in the way, the folder cannot be written to, or the workers cannot go on.
    """
    spread = Spread(jobs, scheduler, skip_existing)
    if not isinstance(model, CloudModel):
        model = load_model(model)
    comparison = replay_probe(model)
    comparison.require(model.path)
    job = make_job(model, comparison, Path(folder), options or PredictOptions(), reading)
    return open_batch(scenes, model, job, spread).run(on_result)


def open_batch(scenes: Iterable[str | Path], model: CloudModel, job: Job, spread: Spread) -> Batch:
    """Return a batch, once it is sure that it can begin.

    Parameters
    ----------
    scenes
        Paths and addresses.
    model, job
        The model, and what `task.make_job` made of it.
    spread
        Where to predict.

    Raises
    ------
    ModelError
        When the model takes single tiles only.
    OutputError
        When two scenes bear one name or would share a file, a product is in the way, or the folder
        cannot be written to.
    """
    model.require_scenes()
    tasks = _to_tasks(scenes)
    check_shared(tasks, job.options)
    writable_folder(job.folder)
    batch = Batch(tasks, model, job, spread)
    batch.refuse_existing()
    return batch


class Batch:
    """Scenes of an archive, and what has become of them. Made by `open_batch`."""

    def __init__(
        self, tasks: tuple[Task, ...], model: CloudModel, job: Job, spread: Spread
    ) -> None:
        self.tasks = tasks
        self.manifest = Manifest(job.folder)
        self._model = model
        self._job = job
        self._spread = spread
        self._claims: dict[str, Claim] = {}
        self._results: dict[str, Record] = {}
        self._stamps: dict[str, str | None] = {}
        self._report: OnResult = lambda record: None

    @property
    def waiting(self) -> int:
        """Number of scenes that are not done yet."""
        return sum(self._done(task) is None for task in self.tasks)

    def refuse_existing(self) -> None:
        """Raise OutputError where a product is in the way that is not of this batch."""
        for task in self.tasks:
            remains = claim_path(self._job.folder, task.name).exists()
            if self._spread.skip_existing or self._done(task):
                continue
            if sentence := self._in_the_way(task, remains):
                raise OutputError(sentence)

    def run(self, on_result: OnResult | None = None) -> list[Record]:
        """Do what is not done, as `predict_dataset` says, and return the record of each scene."""
        self._report = on_result or self._report
        try:
            with closing(self._outcomes()) as outcomes:
                for task, outcome in outcomes:
                    self._settle(task, DONE if outcome.error is None else FAILED, outcome)
        finally:
            self._give_up()
            self._sweep()
        self.manifest.compact()
        return [self._results[task.scene] for task in self.tasks]

    def _outcomes(self) -> Generator[tuple[Task, Outcome], None, None]:
        tasks, jobs = self._next_tasks(), self._spread.jobs
        if self._spread.scheduler is not None:
            workers = jobs or usable_cores()
            return run_on_dask(self._job, tasks, self._spread.scheduler, workers)
        if jobs is not None and jobs > 1:
            return run_in_processes(self._job, tasks, jobs)
        return run_here(self._job, self._model, tasks)

    def _next_tasks(self) -> Iterator[Task]:
        """Yield the tasks to be done, each once it is claimed."""
        for task in self.tasks:
            done = self._done(task)
            if done and not claim_path(self._job.folder, task.name).exists():
                self._results[task.scene] = done
                continue
            claim = Claim.take(self._job.folder, task.name)
            if claim is None:
                self._skip(task, f"another process is predicting {task.scene}")
                continue
            self._claims[task.scene] = claim
            self.manifest.refresh()
            if self._is_to_do(task, claim.remains):
                self._stamps[task.scene] = self._stamp(task)
                yield task

    def _is_to_do(self, task: Task, remains: bool) -> bool:
        """Tell whether a claimed task is to be done; settle it where it is not."""
        products = self._job.products(task.name)
        if done := self._done(task):
            self._results[task.scene] = done
            self._claims.pop(task.scene).release()
        elif self._spread.skip_existing and not remains and all(map(Path.exists, products)):
            self._skip(task, f"the products of {task.scene} exist")
        elif sentence := self._in_the_way(task, remains):
            self._settle(task, FAILED, Outcome(error=sentence))
        else:
            return True
        return False

    def _done(self, task: Task) -> Record | None:
        """Return the record of a task that need not be done again."""
        if self._job.options.overwrite:
            return None
        last = self._last_done(task)
        if last is None or not all(map(Path.exists, self._job.products(task.name))):
            return None
        return None if self._is_replaced(task, last) else last

    def _last_done(self, task: Task) -> Record | None:
        """Return the last record of a task where it was done as it would be now."""
        last = self.manifest.last(task.scene)
        same = last and (last.state, last.settings) == (DONE, self._job.settings)
        return last if same else None

    def _is_replaced(self, task: Task, done: Record) -> bool:
        """Tell whether a scene is another than when it was done; one that is gone is not."""
        stamp = self._stamp(task)
        return None not in (stamp, done.stamp) and stamp != done.stamp

    def _stamp(self, task: Task) -> str | None:
        """Return the stamp of a task's scene; None where products come to lie among its files."""
        return None if Path(task.scene) == self._job.folder else scene_stamp(task.scene)

    def _in_the_way(self, task: Task, remains: bool) -> str | None:
        """Return what keeps a task's products from being written, as a sentence.

        What a process left that was killed at the scene, or failed at it, is not in the way, nor is
        what was made of a scene that another has replaced.
        """
        last = self.manifest.last(task.scene)
        failed = last and (last.state, last.settings) == (FAILED, self._job.settings)
        done = self._last_done(task)
        if (
            self._job.options.overwrite
            or remains
            or failed
            or (done and self._is_replaced(task, done))
        ):
            return None
        found = next(filter(Path.exists, self._job.products(task.name)), None)
        if found is None:
            return None
        if last and last.state == DONE and last.settings != self._job.settings:
            return f"{found} exists, made by another model or with other options; {REPLACE}"
        return f"{found} exists; {REPLACE}, or --skip-existing to leave its scene out"

    def _skip(self, task: Task, why: str) -> None:
        """Leave a task out; the manifest says so only where it says nothing of the scene."""
        self._settle(task, SKIPPED, Outcome(error=why), self.manifest.last(task.scene) is None)

    def _settle(self, task: Task, state: str, outcome: Outcome, write: bool = True) -> None:
        """Record and report what has become of a task, and end its claim."""
        record = self._record(task, state, outcome)
        if write:
            self.manifest.append(record)
        if claim := self._claims.pop(task.scene, None):
            claim.release()
        self._results[task.scene] = record
        self._report(record)

    def _record(self, task: Task, state: str, outcome: Outcome) -> Record:
        spec, options = self._model.spec, self._job.options
        return Record(
            scene=task.scene,
            name=task.name,
            state=state,
            seconds=round(outcome.seconds, 3),
            cloud_share=outcome.cloud_share,
            valid_share=outcome.valid_share,
            error=outcome.error,
            model=f"{spec.name} {spec.version}",
            model_sha256=self._job.sha256,
            threshold=options.threshold or spec.threshold,
            settings=self._job.settings,
            cloudnet=__version__,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            stamp=self._stamps.get(task.scene),
            note=outcome.note,
        )

    def _give_up(self) -> None:
        """End the claims of tasks that were under way when the run ended early."""
        elsewhere = self._spread.scheduler not in (None, LOCAL)
        for task in self.tasks:
            if claim := self._claims.pop(task.scene, None):
                products = self._job.products(task.name)
                if not elsewhere:
                    sweep(self._job.folder, stems(products))
                # A worker of a cluster may still be at it, or some of its products are there.
                if elsewhere or (any(map(Path.exists, products)) and not self._done(task)):
                    claim.leave()
                else:
                    claim.release()

    def _sweep(self) -> None:
        """Remove what workers that were killed have left of scenes that nobody is at."""
        left = unpublished(self._job.folder)
        for task in self.tasks if left else ():
            own = stems(self._job.products(task.name))
            if own & left and (claim := Claim.take(self._job.folder, task.name)):
                sweep(self._job.folder, own)
                claim.leave() if claim.remains else claim.release()


def _to_tasks(scenes: Iterable[str | Path]) -> tuple[Task, ...]:
    """Return a task a scene; raises OutputError where two would write the same products."""
    paths = {identity(str(scene)): str(scene) for scene in scenes}
    tasks = tuple(Task(scene, scene_name(scene)) for scene in paths)
    names = Counter(task.name for task in tasks)
    for name in (name for name, times in names.items() if times > 1):
        alike = " and ".join(paths[task.scene] for task in tasks if task.name == name)
        raise OutputError(
            f"{alike} bear one name, so would their products; predict each into its own folder"
        )
    return tasks
