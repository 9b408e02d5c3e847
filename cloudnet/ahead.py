"""Ahead: an iterator that runs in a thread of its own while what it gave last is being used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Semaphore, Thread
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
        A generator, or any iterator; from here on used by the thread alone.
    ahead
        Items that wait or are being made while one is in use; it bounds the memory.
    """
    free, made = Semaphore(ahead), SimpleQueue[Any]()
    stopped: list[bool] = []

    def work() -> None:
        last: Any = END
        try:
            while _may_go_on(free, stopped) and (item := next(items, END)) is not END:
                made.put((item, None))
                del item  # or it would live on here until the next is made
        except BaseException as error:
            last = error
        finally:
            with suppress(AttributeError):  # an iterator that is no generator holds nothing
                items.close()  # type: ignore[attr-defined]
            made.put((END, last))

    thread = Thread(target=work, name="cloudnet-ahead", daemon=True)
    thread.start()
    try:
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
        thread.join()


def _may_go_on(free: Semaphore, stopped: list[bool]) -> bool:
    """Wait until an item may be made; tell whether it is still wanted."""
    free.acquire()
    return not stopped
