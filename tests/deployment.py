"""What deployment files say of our processes, held against what these processes know: command lines,
variables and ports."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import typer.main
import yaml

from penstock.core.settings import FILE, PREFIX, Secret, Settings
from penstock.ui.cli import app

INFRA: Final = Path(__file__).parents[1] / "infra"


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file, those that are not empty."""
    return [it for it in yaml.safe_load_all(path.read_text()) if it is not None]


def parsed(words: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """A command line as our command line reads it: which command, and its options. Raises click's
    errors for what it would refuse; runs nothing."""
    name, *rest = words
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    with command.make_context(name, rest) as context:
        return name, context.params


def known_variables() -> set[str]:
    """Every variable that our processes read."""
    plain = Settings()
    names = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    secret = {
        PREFIX + name.upper() + FILE
        for name in Settings.__struct_fields__
        if isinstance(getattr(plain, name), Secret)
    }
    return names | secret | set(_of_options(typer.main.get_command(app)))


def _of_options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar
    for inner in getattr(command, "commands", {}).values():
        yield from _of_options(inner)
