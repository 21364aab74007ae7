"""The built-in jobs: light to declare, each with a handler."""

import os
import subprocess
import sys

from penstock.consumers import ai, email, image
from penstock.consumers.handlers import handlers
from penstock.core.contracts import contracts

HEAVY = ("PIL", "lingua", "httpx", "aiosmtplib", "jinja2", "obstore", "redis", "litestar")
LOOK = f"""
import sys
import penstock.core.jobs.ai, penstock.core.jobs.email, penstock.core.jobs.image
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
    modules = {"ai": ai, "email": email, "image": image}
    declared = [entry for entry in contracts() if entry.payload.__module__.startswith("penstock.core.jobs.")]
    assert {entry.type for entry in declared} == {
        *("ai.chat", "ai.language", "ai.ocr"),
        "email.send",
        *("image.convert", "image.crop", "image.resize", "image.thumbnails", "image.watermark"),
    }
    for entry in declared:
        found = handlers()[entry.type]
        assert found.contract == entry
        assert found.run.__module__ == modules[entry.queue].__name__
        assert found.mode == ("async" if entry.type in {"email.send", "ai.chat"} else "thread")
        assert entry.summary
