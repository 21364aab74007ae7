"""The guided demo: three real jobs through the HTTP API, and what each left behind.

A photo is uploaded and made into thumbnails while a sentence's language is told; then a mail with the
smallest thumbnail is sent to the mail catcher. On a terminal their progress is drawn live; in a pipe
each change is a line.
"""

import asyncio
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from penstock.core.errors import PenstockError, Unavailable
from penstock.core.settings import Settings
from penstock.ui.console import Terminal
from penstock.ui.mailcatcher import LOOPBACK
from penstock.ui.remote import api_headers, api_url, checked

PHOTO: Final = Path(__file__).parent / "static" / "demo" / "hubble-deep-field.jpg"
SIZES: Final = (
    {"name": "small", "width": 160},
    {"name": "medium", "width": 400},
    {"name": "large", "width": 800},
)
SENTENCE: Final = "Ein Penstock ist das Rohr, das einer Turbine ihr Wasser zuführt."
ENDED: Final = ("completed", "failed", "cancelled")
LOOK_S: Final = 0.1
PATIENCE_S: Final = 60.0

Job = dict[str, Any]


class DemoFailed(PenstockError):
    """A job of the demo did not complete."""


def show(settings: Settings) -> None:
    """Run the demo by itself. Raises Unavailable where no API answers."""
    asyncio.run(run_demo(settings, Terminal()))


async def run_demo(settings: Settings, console: Console) -> None:
    """Run the demo against the API of `settings`. Raises Unavailable or DemoFailed."""
    async with httpx.AsyncClient(
        base_url=api_url(settings), headers=api_headers(settings), timeout=PATIENCE_S, trust_env=False
    ) as client:
        try:
            await Demo(settings, console, client).run()
        except httpx.TransportError as error:
            raise Unavailable(
                f"no answer from {client.base_url} ({error}); is `penstock up` running?"
            ) from None


class Demo:
    """One run of it: the client, where to print, and the bars while they move."""

    def __init__(self, settings: Settings, console: Console, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._console = console
        self._client = client
        self._bars: Progress | None = None

    async def run(self) -> None:
        """Upload, submit, watch, show."""
        self._say("\nDemo: a photo, a mail and a language, each a job")
        photo = await self._upload(PHOTO)
        self._say(f"  uploaded {PHOTO.name}, {photo['size']:,} bytes: {photo['id'][:19]}...")
        with self._progress():
            image, language = await asyncio.gather(
                self._do("image.thumbnails", {"source": photo["id"], "sizes": SIZES}),
                self._do("ai.language", {"text": SENTENCE}),
            )
            mail = await self._mail(image) if not self._settings.smtp_host else None
        self._show_images(image)
        self._show_language(language)
        if mail is None:
            self._say("  no mail sent: PENSTOCK_SMTP_HOST is set, and the demo bothers nobody")
        else:
            await self._show_mail(mail)
        for job in (image, language, mail):
            if job is not None:
                await self._show_history(job)

    def _progress(self) -> "Progress | nullcontext[None]":
        if not self._console.is_terminal:
            return nullcontext()
        columns = (TextColumn("  {task.fields[type]:<17}"), BarColumn(30), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self._console)
        return self._bars

    async def _upload(self, path: Path) -> dict[str, Any]:
        content = await asyncio.to_thread(path.read_bytes)
        answer = await self._client.post(
            "/artifacts",
            params={"filename": path.name},
            content=content,
            headers={"Content-Type": "image/jpeg"},
        )
        return dict(checked(answer))

    async def _mail(self, image: Job) -> Job:
        small = image["result"]["images"][0]
        filename = f"{small['name']}-{PHOTO.name}"
        text = f"The smallest thumbnail is attached: {small['width']} x {small['height']} pixels."
        payload = {
            "to": ["Ada <ada@example.org>"],
            "subject": "Your photo of the Hubble Deep Field",
            "text": text,
            "html": f"<h1>Your photo is ready</h1><p>{text}</p>",
            "attachments": [{"artifact": small["artifact"], "filename": filename}],
        }
        return await self._do("email.send", payload)

    async def _do(self, type: str, payload: dict[str, Any]) -> Job:
        """Submit a job and watch it to its end."""
        queue = type.split(".", maxsplit=1)[0]
        answer = await self._client.post(f"/jobs/{queue}", json={"type": type, "payload": payload})
        job: Job = checked(answer)
        bar = self._bars.add_task("", type=type, note="", total=1.0) if self._bars else None
        told = ""
        deadline = time.monotonic() + PATIENCE_S
        while job["state"] not in ENDED and time.monotonic() < deadline:
            told = self._tell(type, job, told, bar)
            await asyncio.sleep(LOOK_S)
            job = checked(await self._client.get(f"/jobs/{queue}/{job['id']}"))
        self._tell(type, job, told, bar)
        if job["state"] != "completed":
            why = (job.get("error") or {}).get("message", f"not done within {PATIENCE_S:g} s")
            raise DemoFailed(f"{type} {job['id']} is {job['state']}: {why}")
        return job

    def _tell(self, type: str, job: Job, told: str, bar: TaskID | None) -> str:
        """Show how far a job is, if that is news; answers what was shown last."""
        progress = job.get("progress") or {}
        fraction = 1.0 if job["state"] == "completed" else progress.get("fraction", 0.0)
        note = f"{job['state']} {progress.get('message', '')}".strip() if fraction < 1 else job["state"]
        if bar is not None and self._bars is not None:
            self._bars.update(bar, completed=fraction, note=note)
        elif note != told:
            self._say(f"  {type:<17} {fraction:4.0%}  {note}")
        return note

    def _show_images(self, job: Job) -> None:
        self._say("\n  image.thumbnails answered")
        for image in job["result"]["images"]:
            size = f"{image['width']} x {image['height']}"
            self._say(
                f"    {image['name']:<7} {size:>9}  {image['bytes']:>7,} bytes  {self._artifact(image)}"
            )

    def _artifact(self, image: dict[str, Any]) -> str:
        return f"{api_url(self._settings)}/artifacts/{image['artifact']}"

    def _show_language(self, job: Job) -> None:
        best = job["result"]["confidences"][0]
        self._say(f'\n  ai.language says {best["language"]} ({best["confidence"]:.0%}) of "{SENTENCE}"')

    async def _show_mail(self, job: Job) -> None:
        catcher = f"http://{LOOPBACK}:{self._settings.mail_web_port}"
        message_id = job["result"]["message_id"]
        async with httpx.AsyncClient(trust_env=False) as client:
            mails = checked(await client.get(f"{catcher}/mails"))["mails"]
        for mail in mails:
            if mail["message_id"] == message_id:
                self._say(f'\n  email.send: "{mail["subject"]}" was caught: {catcher}/read/{mail["id"]}')
                return
        raise DemoFailed(f"the mail {message_id} was sent, and did not reach the catcher at {catcher}")

    async def _show_history(self, job: Job) -> None:
        path = f"/jobs/{job['queue']}/{job['id']}/events"
        events = checked(await self._client.get(path))["events"]
        began = datetime.fromisoformat(events[0]["at"])
        self._say(f"\n  {job['type']} {job['id']}")
        for event in events:
            after = (datetime.fromisoformat(event["at"]) - began).total_seconds() * 1000
            words = f"{event['event']} {(event['data'] or {}).get('message', '')}".strip()
            self._say(f"    {event['at']}  {f'+{after:.0f} ms':>10}  {words}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)
