"""Ahead: items in order, errors where they belong, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cloudnet import ahead as ahead_module
from cloudnet.ahead import run_ahead


class Source:
    """An iterator that notes what it gave, in which thread, and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.given: list[int] = []
        self.threads: set[int] = set()
        self.closed = False
        self._count, self._fails_at = count, fails_at

    def items(self) -> Iterator[int]:
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise KeyboardInterrupt("midway")
                self.threads.add(threading.get_ident())
                self.given.append(number)
                yield number
        finally:
            self.closed = True


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "cloudnet-ahead"]


def wait_for(condition: list[int], length: int) -> None:
    ends = time.monotonic() + 10
    while len(condition) < length and time.monotonic() < ends:
        time.sleep(0.001)


@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("ahead", [1, 3])
def test_items_come_in_order_from_another_thread(count: int, ahead: int) -> None:
    source = Source(count)
    assert list(run_ahead(source.items(), ahead)) == list(range(count))
    assert threading.get_ident() not in source.threads
    assert source.closed
    assert ours() == []


def test_one_is_made_while_one_is_used_and_no_more() -> None:
    source = Source(9)
    items = run_ahead(source.items(), 1)
    assert source.given == []  # nothing starts before it is asked for
    for number in range(4):
        assert next(items) == number
        wait_for(source.given, number + 2)
        time.sleep(0.01)
        assert source.given == list(range(number + 2))
    items.close()
    assert source.closed
    assert len(source.given) < 9


def test_an_error_arrives_as_it_is_after_the_items_before() -> None:
    source = Source(9, fails_at=3)
    items = run_ahead(source.items(), 2)
    got = []
    with pytest.raises(KeyboardInterrupt, match="midway"):
        for number in items:
            got.append(number)
    assert got == [0, 1, 2]
    assert source.closed
    assert ours() == []


def test_an_error_of_the_user_stops_the_thread_and_closes_what_it_reads() -> None:
    source = Source(1_000_000)
    items = run_ahead(source.items())
    with pytest.raises(ValueError, match="of the user"):
        for number in items:
            if number == 2:
                items.throw(ValueError("of the user"))
    assert source.closed
    assert len(source.given) <= 5
    assert ours() == []


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupt_while_the_thread_starts_leaves_nothing_reading(
    monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """The file that is read is closed next: reading on crashed the process."""

    class Interrupted(threading.Thread):
        def start(self) -> None:
            if begun:
                super().start()
            raise KeyboardInterrupt("as it starts")

    monkeypatch.setattr(ahead_module, "Thread", Interrupted)
    source = Source(9)
    with pytest.raises(KeyboardInterrupt, match="as it starts"):
        next(run_ahead(source.items(), 1))
    given = list(source.given)
    assert source.closed == bool(given) and len(given) <= 1
    assert ours() == []
    time.sleep(0.01)
    assert source.given == given


def test_one_behind_another() -> None:
    source = Source(7)
    doubled = (2 * number for number in run_ahead(source.items()))
    assert list(run_ahead(doubled)) == [0, 2, 4, 6, 8, 10, 12]
    assert ours() == []


def test_any_iterator_will_do() -> None:
    assert list(run_ahead(iter([3, 1, 2]))) == [3, 1, 2]
