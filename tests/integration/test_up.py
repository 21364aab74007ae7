"""`penstock up`: everything from one command, ended in order, and back again with its data."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import Command, processes_with
from servers import free_port, wait_until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]

START_S = 60.0
READY = "running; Ctrl-C stops"
SENTENCE = {"text": "The quick brown fox jumps over the lazy dog."}

# The processes that tell metrics, in the order of their ports.
MEASURED = (
    *("api", "worker-email", "worker-image", "worker-ai", "projector"),
    *("dashboard", "scheduler", "flows", "webhooks", "archiver", "worker-penstock"),
)

OWN_JOBS = """
import asyncio
import msgspec
from penstock.core import contract
from penstock.consumers import handler

@contract("greet.person")
class Greet(msgspec.Struct):
    name: str

@handler(Greet)
async def greet(job: Greet, context: object) -> str:
    return f"Hello, {job.name}!"

@contract("greet.slowly")
class GreetSlowly(msgspec.Struct):
    name: str

@handler(GreetSlowly)
async def greet_slowly(job: GreetSlowly, context: object) -> str:
    await asyncio.sleep(2)
    return f"Hello, {job.name}!"
"""


class Up:
    """`penstock up` on free ports, as often as a test likes on the same folder."""

    def __init__(self, start: Callable[..., Command], folder: Path) -> None:
        self._start, self.folder = start, folder
        self.api, self.dashboard, smtp, mail = free_port(), free_port(), free_port(), free_port()
        self.environ: dict[str, Any] = {
            "PENSTOCK_API_PORT": self.api,
            "PENSTOCK_DASHBOARD_PORT": self.dashboard,
            "PENSTOCK_MAIL_PORT": smtp,
            "PENSTOCK_MAIL_WEB_PORT": mail,
            "PENSTOCK_METRICS_PORT": 0,
            "PENSTOCK_GRACE": 5,
            "PENSTOCK_LEASE": 2,
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.api}", trust_env=False, timeout=30)

    def start(self, *words: str, **environ: Any) -> Command:
        command = self._start("up", *words, **self.environ, **environ)
        command.says(READY, START_S)
        return command

    def run(self, type: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Submit a job and wait for its end."""
        queue, _, _ = type.partition(".")
        submitted = self.http.post(f"/jobs/{queue}", json={"type": type, "payload": payload})
        assert submitted.status_code == 202, submitted.text
        ended: dict[str, Any] = self.http.get(submitted.headers["Location"], params={"wait": 20}).json()
        return ended

    def processes(self) -> dict[int, str]:
        return processes_with(str(self.folder))


def free_row(length: int) -> int:
    """The first of so many ports in a row that are free."""
    for first in range(21_000, 31_000, length):
        with ExitStack() as row:
            try:
                for port in range(first, first + length):
                    row.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise AssertionError("no row of free ports")


def metrics_of(port: int) -> str:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.fixture
def up(penstock: Callable[..., Command], tmp_path: Path) -> Up:
    return Up(penstock, tmp_path)


def test_one_command_shows_it_all_and_ends_in_order(up: Up, penstock: Callable[..., Command]) -> None:
    archive = up.folder / "archive"
    up.environ["PENSTOCK_ARCHIVE_URL"] = archive
    first = free_row(len(MEASURED))
    up.environ["PENSTOCK_METRICS_PORT"] = first
    command = up.start()
    output = command.output
    assert f"metrics      http://127.0.0.1:{first}/metrics ... :{first + len(MEASURED) - 1}/metrics" in output
    told = {role: metrics_of(first + number) for number, role in enumerate(MEASURED)}
    assert all(f'service_name="penstock-{role.split("-")[0]}"' in text for role, text in told.items())
    assert 'penstock_jobs_completed_total{queue="email",type="email.send"}' in told["projector"]
    assert 'penstock_worker_slots{state="free"}' in told["worker-ai"]
    up.environ["PENSTOCK_METRICS_PORT"] = 0
    assert "\x1b" not in output, "plain in a pipe"
    for size in ("small", "medium", "large"):
        assert re.search(
            rf"{size} +\d+ x \d+ +[\d,]+ bytes +http://127.0.0.1:{up.api}/artifacts/sha256-", output
        )
    assert f"dashboard    http://127.0.0.1:{up.dashboard}" in output
    here = httpx.get(f"http://127.0.0.1:{up.dashboard}/app/session", trust_env=False).json()
    assert (here["role"], here["login_needed"]) == ("operate", False)
    assert "ai.language says de" in output
    caught = re.search(r'"Your photo of the Hubble Deep Field" was caught: (http://\S+)', output)
    assert caught is not None
    assert (
        "Your photo is ready"
        in httpx.get(caught[1].replace("/read/", "/mails/"), trust_env=False).json()["html"]
    )
    [job_id] = re.findall(r"email\.send (email\.0\.\S+)\n", output)
    assert re.search(r"\+0 ms +submitted\n.*started\n(.*\n)*?.*completed\n", output)

    command.signal(signal.SIGINT)
    assert command.wait() == 0
    wait_until(lambda: not up.processes(), 5, "nothing is left running")
    assert command.output.endswith("stopped\n")
    assert [it.name for it in archive.glob("email.0/*/*.ndjson.zst")], "what was in the log is archived"

    del up.environ["PENSTOCK_ARCHIVE_URL"]
    up.start("--no-demo")
    job = up.http.get(f"/jobs/email/{job_id}").json()
    assert job["state"] == "completed", "data survives to the next start"
    asked = penstock("events", job_id, "--json", **up.environ)
    assert asked.wait() == 0
    assert [event["event"] for event in json.loads(asked.output)][-1] == "completed"


def test_commands_ask_the_running_api(up: Up, penstock: Callable[..., Command]) -> None:
    up.start("--no-demo")

    def ask(*words: str) -> Command:
        command = penstock(*words, **up.environ)
        command.wait()
        return command

    submitted = ask("submit", "ai.language", json.dumps(SENTENCE), "--wait", "20", "--tag", "a", "--json")
    job = json.loads(submitted.output)
    assert (job["state"], job["result"]["language"], job["tags"]) == ("completed", "en", ["a"])
    shown = ask("job", job["id"], "--wait", "20")
    assert re.search(r"^state +completed$", shown.output, re.MULTILINE)
    wait_until(
        lambda: re.search(r"^ai +0 +0 +0 +1 +0 +0$", ask("queues").output, re.MULTILINE), 20, "it is counted"
    )

    wrong = ask("submit", "ai.language", '{"txt": "x"}')
    assert wrong.process.returncode == 2
    assert "payload.text:" in wrong.output
    unknown = ask("submit", "ai.lnguage", "{}")
    assert unknown.process.returncode == 2
    assert "ai.language" in unknown.output
    assert ask("job", "ai.0.1-0").process.returncode == 1


def test_whoever_is_killed_comes_back_and_work_goes_on(up: Up) -> None:
    up.start("--no-demo")
    assert up.run("ai.language", SENTENCE)["state"] == "completed"
    for name in ("server", "worker --queues ai", "projector", "api"):
        [pid] = [pid for pid, words in up.processes().items() if f"penstock.ui {name}" in words]
        os.kill(pid, signal.SIGKILL)

        def is_back(name: str = name, killed: int = pid) -> bool:
            found = [pid for pid, words in up.processes().items() if f"penstock.ui {name}" in words]
            return bool(found) and killed not in found

        wait_until(is_back, 20, f"{name} is back")
        wait_until(lambda: ready(up), 20, "the API is ready")
        job = up.run("ai.language", SENTENCE)
        assert job["state"] == "completed", (name, job)


def test_nothing_outlives_a_killed_supervisor(up: Up) -> None:
    first = up.start("--no-demo")
    job = up.run("ai.language", SENTENCE)
    first.signal(signal.SIGKILL)
    first.wait()
    wait_until(lambda: not up.processes(), 30, "all children are gone")
    up.start("--no-demo")
    assert up.http.get(f"/jobs/ai/{job['id']}").json()["state"] == "completed"


def test_a_second_signal_ends_it_at_once(up: Up) -> None:
    command = up.start("--no-demo")
    command.signal(signal.SIGTERM)
    command.says("stopping")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    wait_until(lambda: not up.processes(), 5, "nothing is left running")


def test_own_jobs_have_a_worker_of_their_own(up: Up) -> None:
    (up.folder / "my_jobs.py").write_text(OWN_JOBS)
    command = up.start("--no-demo", "--jobs", "my_jobs")
    assert "worker-jobs" in command.output
    job = up.run("greet.person", {"name": "Ada"})
    assert (job["state"], job["result"]) == ("completed", "Hello, Ada!")


def test_what_runs_is_finished_before_it_ends(up: Up) -> None:
    (up.folder / "my_jobs.py").write_text(OWN_JOBS)
    command = up.start("--no-demo", "--jobs", "my_jobs")
    where = up.http.post("/jobs/greet", json={"type": "greet.slowly", "payload": {"name": "Ada"}}).headers[
        "Location"
    ]
    wait_until(lambda: up.http.get(where).json()["state"] == "active", 20, "it runs")
    command.signal(signal.SIGTERM)
    assert command.wait() == 0
    up.start("--no-demo", "--jobs", "my_jobs")
    job = up.http.get(where).json()
    assert (job["state"], job["attempt"], job["result"]) == ("completed", 1, "Hello, Ada!")


def test_a_port_in_use_is_said_in_one_line(up: Up, penstock: Callable[..., Command]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", up.api))
        other.listen()
        command = penstock("up", **up.environ)
        assert command.wait() == 2
    assert command.output == (
        f"penstock: port {up.api} for the API is in use: stop the program that has it, "
        f"or choose another one with PENSTOCK_API_PORT={up.api + 1}\n"
    )
    assert not up.processes()


def test_two_on_one_folder_are_refused(up: Up, penstock: Callable[..., Command]) -> None:
    up.start("--no-demo")
    command = penstock("up", **up.environ)
    assert command.wait() == 2
    assert "already runs on" in command.output
    assert command.output.count("\n") == 1


def ready(up: Up) -> bool:
    try:
        return up.http.get("/health/ready").is_success
    except httpx.HTTPError:
        return False
