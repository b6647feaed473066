"""Every option is there, is explained, and is the one that messages name."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

import voxray
from voxray.cli.arguments import CTArguments, XrayArguments
from voxray.cli.prepare import PrepareArguments
from voxray.data.options import PrepareOptions
from voxray.images.read_ct import read_ct
from voxray.images.xray import ReadOptions

Cli = Callable[..., object]
COMMANDS = (
    "reconstruct", "project", "prepare", "train", "evaluate", "compare", "nodules", "report", "bench", "models",
    "import-weights", "demo", "info", "doctor",
)  # fmt: skip


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_T2_help_lists_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.out)
    assert cli().out == done.out


@pytest.mark.parametrize("command", COMMANDS)
def test_T2_help_explains_every_option(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.code == 0
    for line in done.out.splitlines():
        if re.match(r"^\W*--", line):
            assert re.search(r"[a-z]{2,} [a-z(]", line), f"no explanation: {line}"


@pytest.mark.parametrize(("group", "options"), [
    (XrayArguments, {f.name for f in fields(ReadOptions)}),
    (CTArguments, set(inspect.signature(read_ct).parameters) - {"path"}),
    (PrepareArguments, {f.name for f in fields(PrepareOptions)} - {"centre_mask"} | {"mask"}),
])  # fmt: skip
def test_arguments_and_library_have_the_same_options(group: type, options: set[str]) -> None:
    assert {f.name for f in fields(group)} == options


def test_arguments_and_library_have_the_same_defaults() -> None:
    assert PrepareArguments().options() == PrepareOptions()
    assert XrayArguments().options() == ReadOptions()


def test_I6_every_option_that_a_message_names_exists(cli: Cli) -> None:
    there = {option for command in COMMANDS for option in options_in(cli(command, "--help").out)}
    source = Path(voxray.__file__).parent
    for file in source.rglob("*.py"):
        if "cli" not in file.relative_to(source).parts:
            named = options_in(file.read_text(encoding="utf-8")) - {"--raw"}  # of another program, gdcmconv
            assert named <= there, file
