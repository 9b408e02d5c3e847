"""Ahead: an iterator that runs in a thread of its own while what it gave last is being used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")

END = object()


def run_ahead(items: Iterator[Item], ahead: int = 1) -> Generator[Item, None, None]:
    """Yield the items of an iterator that a thread takes at most `ahead` of them before their use.

    The thread starts with the first item that is asked for. What the iterator raises is raised
    here, after the items before. Closing this generator lets the iterator finish the item it is at,
    closes it, and waits for that: whoever closes a file afterwards closes nothing that is in use.

    Parameters
    ----------
    items
        A generator, or any iterator; used by the thread alone until it is closed here.
    ahead
        Items that wait or are being made while one is in use; it bounds the memory.
    """
    free, made, turn = Semaphore(ahead), SimpleQueue[Any](), Lock()
    stopped: list[bool] = []

    def work() -> None:
        """Put what the iterator gives, then END and what it raised, or END twice."""
        last: Any = END
        try:
            while (item := _next(items, free, turn, stopped)) is not END:
                made.put((item, None))
                del item  # or it would live on here until the next is made
        except BaseException as error:
            last = error
        finally:
            made.put((END, last))

    thread = Thread(target=work, name="cloudnet-ahead", daemon=True)
    try:
        thread.start()
        while True:
            item, error = made.get()
            if item is END:
                break
            free.release()
            yield item
            del item
        if error is not END:
            raise error
    finally:
        stopped.append(True)
        free.release()
        # Not by the thread: where Ctrl-C came as it was being started, nobody knows if it runs.
        with turn, suppress(AttributeError):  # an iterator that is no generator holds nothing
            items.close()  # type: ignore[attr-defined]
        if thread.is_alive():
            thread.join()


def _next(items: Iterator[Item], free: Semaphore, turn: Lock, stopped: list[bool]) -> Any:
    """Wait until an item may be made, and make it; END where none is left or wanted."""
    free.acquire()
    with turn:
        return END if stopped else next(items, END)
