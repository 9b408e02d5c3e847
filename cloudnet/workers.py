"""Workers: the tasks of an archive in this process, or in several on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from cloudnet.claims import stems, sweep
from cloudnet.errors import BatchError, CloudnetError
from cloudnet.runtime import CloudModel, usable_cores
from cloudnet.task import Job, Outcome, Task, prepare, run_task

TRIES = 2
"""A scene whose process dies is given to one other."""

END_S = 10
"""A process has this long to end by itself."""

SPAWN = multiprocessing.get_context("spawn")
"""onnxruntime's and GDAL's threads do not survive a fork."""


def run_here(
    job: Job, model: CloudModel, tasks: Iterable[Task]
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yield each task with its outcome, done in this process."""
    for task in tasks:
        yield task, run_task(job, model, task)


def run_in_processes(
    job: Job, tasks: Iterable[Task], jobs: int
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yield each task with its outcome, as they come, done by several processes.

    A process that is killed loses its scene to another; a scene that kills two has failed. Tasks
    are taken as processes are free. When this ends early the processes end with it, and leave no
    unfinished file.

    Parameters
    ----------
    job
        What the tasks share; the cores are divided among the processes.
    tasks
        Taken one by one.
    jobs
        Processes, no more than there are tasks.

    Raises
    ------
    CloudnetError
        When a process finds that it can do no task at all, as `task.prepare` says.
    BatchError
        When processes die before they are ready.
    """
    pool = _Pool(replace(job, threads=job.threads or max(usable_cores() // jobs, 1)), jobs)
    try:
        yield from pool.run(iter(tasks))
    finally:
        pool.close()


@dataclass
class _Try:
    """A task and how many processes were killed at it."""

    task: Task
    deaths: int = 0


class _Worker:
    """A process and the task that it is at."""

    def __init__(self, job: Job) -> None:
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, job), daemon=True)
        self.attempt: _Try | None = None
        self.ready = False
        with _ctrl_c_kept_off():
            self.process.start()
        theirs.close()

    def give(self, attempt: _Try) -> None:
        self.attempt = attempt
        with suppress(OSError):  # it died: the pipe's end says so when it is read
            self.pipe.send(attempt.task)

    def death(self) -> str:
        """Return how the process ended, which it has or is about to."""
        self.process.join(END_S)
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), as a machine does that runs out of memory"
        return f"ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"


class _Pool:
    """Processes that are started as tasks come, and replaced when they die."""

    def __init__(self, job: Job, jobs: int) -> None:
        self._job = job
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._again: deque[_Try] = deque()
        self._failed_starts = 0

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Outcome]]:
        while True:
            self._hand_out(tasks)
            busy = {worker.pipe: worker for worker in self._workers if worker.attempt}
            if not busy:
                return
            for pipe in wait([*busy]):
                worker = busy[pipe]  # type: ignore[index]
                try:
                    answer: Outcome | CloudnetError | None = worker.pipe.recv()
                except (EOFError, OSError):
                    yield from self._bury(worker)
                    continue
                if isinstance(answer, CloudnetError):
                    raise answer
                worker.ready, self._failed_starts = True, 0
                if answer and worker.attempt:
                    task, worker.attempt = worker.attempt.task, None
                    yield task, answer

    def close(self) -> None:
        """End all processes; one that is at a scene removes what it has not finished."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.attempt:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _hand_out(self, tasks: Iterator[Task]) -> None:
        """Give each process that is free, or not yet started, a task, as long as there are any."""
        idle = [worker for worker in self._workers if not worker.attempt]
        while idle or len(self._workers) < self._jobs:
            attempt = self._again.popleft() if self._again else None
            if attempt is None and (task := next(tasks, None)):
                attempt = _Try(task)
            if attempt is None:
                return
            if not idle:
                self._workers.append(_Worker(self._job))
                idle.append(self._workers[-1])
            idle.pop().give(attempt)

    def _bury(self, worker: _Worker) -> Iterator[tuple[Task, Outcome]]:
        """Take a dead process's task back, to be done by another unless it has killed enough."""
        how = worker.death()
        if not worker.ready:
            self._failed_starts += 1
        if self._failed_starts == TRIES:
            raise BatchError(
                f"a worker process {how} before it was ready; a script that predicts with several "
                'jobs does so under: if __name__ == "__main__":'
            )
        self._workers.remove(worker)
        worker.pipe.close()
        attempt = worker.attempt
        if attempt is None:
            return
        task = attempt.task
        sweep(self._job.folder, stems(self._job.products(task.name)))
        attempt.deaths += worker.ready
        if attempt.deaths < TRIES:
            self._again.append(attempt)
            return
        error = f"{task.scene} was given up: each of {TRIES} processes that did it {how}"
        yield task, Outcome(error=f"{error}; try fewer --jobs or a smaller --tile-px")


@contextmanager
def _ctrl_c_kept_off() -> Iterator[None]:
    """Let no process that is started in the block ever hear of Ctrl-C: its parent tells it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection[Any, Any], job: Job) -> None:
    """Do the tasks that come through a pipe, in a process of its own, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        try:
            model = prepare(job)
        except CloudnetError as error:
            pipe.send(error)
            return
        pipe.send(None)
        while True:
            pipe.send(run_task(job, model, pipe.recv()))


def _end(*_: object) -> None:
    """End as on Ctrl-C, so that files which are not finished are removed."""
    raise SystemExit(0)


def _end_with_parent() -> None:
    """End at once when the parent has been killed: its next run may begin any moment."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
