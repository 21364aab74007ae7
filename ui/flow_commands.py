"""Commands on flows: `penstock flow submit FILE`, `penstock flow show ID` and their like."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from penstock.core.errors import Refused
from penstock.core.settings import read_settings

app: Final = typer.Typer(no_args_is_help=True, help="Jobs that wait for one another.")

JsonOutput = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ApiUrl = Annotated[str, typer.Option("--api", envvar="PENSTOCK_API_URL", help="Where the API is.")]
STATES: Final = ("active", "completed", "failed", "cancelled")

FlowId = Annotated[str, typer.Argument(metavar="ID", help="Like flow.1795477369681-0.")]
Wait = Annotated[float, typer.Option(min=0, max=60, help="Seconds to wait for its end.")]


@app.command()
def submit(
    file: Annotated[str, typer.Argument(help="The flow as JSON; - reads standard input.")],
    key: Annotated[str, typer.Option(help="Idempotency key.")] = "",
    wait: Wait = 0,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Submit a flow. It is {"name": …, "nodes": [{"name", "type", "payload", "after": […]}, …]}."""
    api = _api(url)
    asked = _read(file)
    if key:
        asked["key"] = key
    accepted = api.submit_flow(asked)
    _show(api.flow(accepted["id"], wait), as_json=as_json)


@app.command()
def show(id: FlowId, wait: Wait = 0, url: ApiUrl = "", as_json: JsonOutput = False) -> None:
    """Show a flow and its nodes."""
    _show(_api(url).flow(id, wait), as_json=as_json)


@app.command("list")
def list_(
    state: Annotated[str, typer.Option(help="active, completed, failed or cancelled.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """List flows, newest first."""
    from penstock.ui.output import print_json, print_table

    if state and state not in STATES:
        raise Refused(f"there is no state {state!r} of a flow; there are: {', '.join(STATES)}")
    found = _api(url).flows(state, limit)
    if as_json:
        print_json(found)
        return
    rows = [
        [flow["id"], flow["name"], flow["state"], f"{flow['progress']:.0%}", flow["submitted_at"]]
        for flow in found
    ]
    print_table(("flow", "name", "state", "done", "submitted"), rows)


@app.command()
def cancel(
    id: FlowId,
    reason: Annotated[str, typer.Option(help="Why; kept in the flow's history.")] = "",
    url: ApiUrl = "",
    as_json: JsonOutput = False,
) -> None:
    """Cancel a flow. What runs is cancelled, the rest is never submitted."""
    _show(_api(url).cancel_flow(id, reason), as_json=as_json)


def _read(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        return msgspec.json.decode(text, type=dict[str, Any])
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{file} is no flow as JSON: {error}") from None


def _show(flow: dict[str, Any], *, as_json: bool) -> None:
    from penstock.ui.output import print_facts, print_json, print_table

    if as_json:
        print_json(flow)
        return
    nodes = flow.pop("nodes")
    flow["progress"] = f"{flow['progress']:.0%}"
    flow["counts"] = ", ".join(f"{number} {state}" for state, number in flow["counts"].items())
    print_facts([(name, value) for name, value in flow.items() if value is not False])
    rows = [
        [node["name"], node["state"], ", ".join(node.get("after", ())), node.get("job"), node.get("why")]
        for node in nodes
    ]
    sys.stdout.write("\n")
    print_table(("node", "state", "after", "job", "why"), rows)


def _api(url: str) -> Any:
    from penstock.ui.remote import Api

    return Api(read_settings(), url)
