"""The built-in jobs: light to declare, each with a handler."""

import os
import subprocess
import sys

from penstock.consumers import ai, email, image, webhooks
from penstock.consumers.handlers import handlers
from penstock.core.connection import connect
from penstock.core.contracts import contracts
from penstock.core.endpoints import Endpoints
from penstock.core.keys import Keys
from penstock.core.settings import Secret, Settings
from penstock.ui import system

HEAVY = ("PIL", "lingua", "httpx", "aiosmtplib", "jinja2", "obstore", "redis", "litestar")
ASYNC = {"email.send", "ai.chat", "penstock.webhook", "penstock.bulk", "penstock.redrive"}
LOOK = f"""
import sys
import penstock.core.jobs.ai, penstock.core.jobs.email, penstock.core.jobs.image
import penstock.core.jobs.bulk, penstock.core.jobs.redrive, penstock.core.jobs.webhook
print(*sorted(set(sys.modules) & {set(HEAVY)!r}))
"""


def test_declaring_the_built_in_jobs_loads_nothing_heavy() -> None:
    """Whoever submits a job or validates one needs no Pillow, no model and no mail library."""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, "-c", LOOK], env=here, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""


def test_every_built_in_contract_has_a_handler_in_its_own_queue() -> None:
    modules = {"ai": ai, "email": email, "image": image, "webhooks": webhooks, "penstock": system}
    settings = Settings(redis_url=Secret("unix:///nowhere"))
    redis = connect(settings)
    system.enter_handlers(settings)
    webhooks.register(webhooks.Sender(Endpoints(redis, Keys("test"), None), allow_private=False))
    declared = [entry for entry in contracts() if entry.payload.__module__.startswith("penstock.core.jobs.")]
    assert {entry.type for entry in declared} == {
        *("ai.chat", "ai.language", "ai.ocr"),
        "email.send",
        *("penstock.bulk", "penstock.redrive", "penstock.webhook"),
        *("image.convert", "image.crop", "image.resize", "image.thumbnails", "image.watermark"),
    }
    for entry in declared:
        found = handlers()[entry.type]
        assert found.contract == entry
        assert found.run.__module__ == modules[entry.queue].__name__
        assert found.mode == ("async" if entry.type in ASYNC else "thread")
        assert entry.summary
