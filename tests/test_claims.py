"""Claims: one process at a scene, and what a killed one leaves is known and removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from cloudnet.claims import Claim, claim_path, stems, sweep, unpublished
from cloudnet.files import whole_file

ROOT = Path(__file__).parents[1]

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {!r})
from cloudnet.claims import Claim
claim = Claim.take(Path(sys.argv[1]), "a")
assert claim
print("taken", flush=True)
time.sleep(60)
"""


def test_a_claim_is_one_processs_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD.format(str(ROOT)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "taken\n"
        assert Claim.take(tmp_path, "a") is None
        other = Claim.take(tmp_path, "b")
        assert other
        other.release()
        os.kill(holder.pid, signal.SIGKILL)
    claim = Claim.take(tmp_path, "a")
    assert claim and claim.remains
    claim.release()
    assert not claim_path(tmp_path, "a").exists()


def test_a_claim_that_is_released_leaves_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        claim = Claim.take(tmp_path, "a")
        assert claim and not claim.remains
        assert Claim.take(tmp_path, "a") is None
        claim.release()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_is_left_tells_of_remains(tmp_path: Path) -> None:
    first = Claim.take(tmp_path, "a")
    assert first
    first.leave()
    second = Claim.take(tmp_path, "a")
    assert second and second.remains
    second.release()


def test_a_claim_that_nobody_got_hold_of_tells_of_no_remains(tmp_path: Path) -> None:
    """A process was killed between making the file and locking it."""
    claim_path(tmp_path, "a").touch()
    claim = Claim.take(tmp_path, "a")
    assert claim and not claim.remains
    claim.release()


def test_what_is_unpublished_is_swept_and_nothing_else(tmp_path: Path) -> None:
    """The name of one scene may begin with that of another."""
    ours, other = tmp_path / "a_mask.tif", tmp_path / "a_b_mask.tif"
    (tmp_path / "a_mask.tif").write_text("published")
    with whole_file(ours) as scratch, whole_file(other) as elsewhere:
        scratch.touch()
        elsewhere.touch()
        scratch.with_name(f"{scratch.name}.aux.xml").touch()
        killed = tmp_path / ".a_mask.0123abcd.part"
        killed.mkdir()
        (killed / "layer.tif").touch()
        assert unpublished(tmp_path) == {"a_mask", "a_b_mask"}
        sweep(tmp_path, stems([ours]))
        assert sorted(tmp_path.iterdir()) == sorted([ours, elsewhere])
        scratch.touch()
