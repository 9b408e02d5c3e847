"""The README is bound to the code: its commands run, in order, in a copy of its folder."""

from __future__ import annotations

import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudnet.commands import main
from tests.helpers import tiny_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = {"train": ["--epoch-tiles", "4", "--batch", "2", "--tile-px", "32", "--epochs", "1"]}
"""Options that make a command of the README quick without changing what it writes where."""


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_two_set_up_commands_and_ci_runs_the_second() -> None:
    set_up = [block.strip() for block in blocks("sh") if "python3 -m venv" in block]
    assert len(set_up) == 2
    assert set_up[0].endswith("cloudnet demo")
    assert set_up[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_command_stands_in_the_readme() -> None:
    missing = [name for name in main.commands if f"cloudnet {name}" not in README]
    assert not missing


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists(), target


def test_every_command_and_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="the README trains, with the train extra")
    from cloudnet import recipe, train

    tiny = partial(train.TrainConfig, net=tiny_config().net)  # the CLI has no option for it
    # Both are loaded before: what is loaded meanwhile would keep the tiny net.
    for module in (train, recipe):
        monkeypatch.setattr(module, "TrainConfig", tiny)
    shutil.copytree(ROOT / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", README, re.M | re.S):
        if language == "python":
            exec(compile(block, "README.md", "exec"), {})
        elif "python3 -m venv" not in block:
            for line in block.splitlines():
                run_line(line)
                ran += 1
    assert ran >= 10


def run_line(line: str) -> None:
    """Run a command line of the README, its glob expanded as a shell would."""
    program, *words = shlex.split(line)
    assert program == "cloudnet"
    arguments = [
        match
        for word in words
        for match in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    result = CliRunner().invoke(
        main, [*arguments, *QUICK.get(words[0], [])], catch_exceptions=False
    )
    assert result.exit_code == 0, f"{line}\n{result.output}"
