"""What commands that ask the API have in common: options, payloads, moments, and things that have names."""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from penstock.core.errors import NotFound, Refused
from penstock.core.settings import read_settings

if TYPE_CHECKING:
    from penstock.ui.remote import Api

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ApiUrl = Annotated[str, typer.Option("--api", envvar="PENSTOCK_API_URL", help="Where the API is.")]

# How moments are asked for, in help texts.
PAST: Final = "2026-11-24T07:45:00Z, Unix ms, or 15m, 2h, 3d ago"
COMING: Final = "2030-01-31T09:00:00+01:00, Unix ms, or 15m, 2h, 3d from now"

Facts = Callable[[dict[str, Any]], Iterable[tuple[str, Any]]]


class Named:
    """Things of one kind that have names, like schedules: `folder` is their path in the API, `facts` what a
    person is shown of one."""

    def __init__(self, folder: str, facts: Facts) -> None:
        self._folder: Final = folder
        self._facts: Final = facts

    def ask(self, url: str, method: str, name: str = "", act: str = "", body: Any = None) -> dict[str, Any]:
        """What the API answers about one of them, or all. Raises its problems as our errors."""
        from penstock.ui.remote import Api

        path = "/".join([self._folder, *([quote(name, safe="")] if name else []), *([act] if act else [])])
        return Api(read_settings(), url).ask(method, path, body)

    def tell(
        self, url: str, method: str, name: str, act: str = "", body: Any = None, *, as_json: bool
    ) -> None:
        """Ask about one of them, and show the answer."""
        from penstock.ui.output import print_facts, print_json

        found = self.ask(url, method, name, act, body)
        if as_json:
            print_json(found)
        else:
            print_facts(list(self._facts(found)))


def payload_of(text: str) -> Any:
    """A payload that was given as JSON, or by standard input (`-`). Raises Refused."""
    source = sys.stdin.read() if text == "-" else text
    try:
        return msgspec.json.decode(source)
    except msgspec.DecodeError as error:
        raise Refused(f"""the payload is not JSON: {error}; quote it like '{{"text": "Hello"}}'""") from None


def moment_asked(name: str, text: str, *, ahead: bool = False) -> str:
    """A moment that was given as PAST says, or with `ahead` as COMING does, as the API takes it; empty for no
    text. Raises InvalidJob."""
    from penstock.projections.details import instant
    from penstock.projections.replay.asking import moment_of

    found = moment_of(name, text, ahead=ahead)
    return instant(found) if found is not None else ""


def check_queue(api: "Api", queue: str) -> None:
    """Raises NotFound for the name of a queue that is none: nothing would fit, and why would not be said."""
    if queue and queue not in (known := [it["queue"] for it in api.queues()]):
        raise NotFound(f"there is no queue {queue!r}; there are: {', '.join(known) or 'none'}")
