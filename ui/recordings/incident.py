"""The story: a release fails the orders that come from the app, which writes them in its own way; that is
looked into, and repaired.

Each step is what one thinks, what one types, and what must be seen then: a recording in which something
else is seen fails, so the page that is made of it says what is so.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from penstock.ui.recordings.stage import APP, BROKEN, MENDED, Stage
from penstock.ui.recordings.terminal import Shown, shown

JOB: Final = re.compile(r"shop\.0\.\d+-\d+")
REDRIVE: Final = (
    "penstock replay redrive --queue shop --error KeyError \\\n"
    """    --patch '{{"note": "Sorry for the delay."}}' --rate 20"""
)
LOWER: Final = """penstock replay grep '"currency":"[a-z]+"' --event submitted"""
ZERO: Final = r"0 +0 +0 +"  # waiting, delayed, active


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """`say` and `command` are texts with gaps, like `{failed}`; so is `sees`, a regular expression which must
    be found in what the command shows. Of long output the first `head` and the last `tail` lines are told.
    `pictured`: it is in the picture too."""

    say: str
    command: str
    sees: str
    head: int = 0
    tail: int = 0
    pictured: bool = False


class Part(msgspec.Struct, frozen=True):
    """Steps under a heading."""

    title: str
    steps: tuple[Step, ...]


class Told(msgspec.Struct, frozen=True):
    """A step as it was: its text, and what was shown; `title` where a part begins."""

    title: str
    say: str
    shown: Shown
    head: int
    tail: int
    pictured: bool


class Orders(msgspec.Struct, frozen=True):
    """How many came in before the release, and how many after it; multiples of 3, of which one third is of
    the app."""

    before: int = 120
    after: int = 90

    def facts(self) -> dict[str, int]:
        """What the texts have gaps for."""
        failed, app = self.after // APP, self.before // APP
        total = self.before + self.after
        return {
            "before": self.before,
            "app": app,
            "web": self.before - app,
            "failed": failed,
            "completed": total - failed,
            "total": total,
        }


WHAT: Final = Part(
    "What is wrong",
    (
        Step(
            say="Customers write that they got no receipt. What is failed, and of what?",
            command="penstock failures",
            sees=r"\n {{0,5}}{failed}  .*shop\.0\.\d+-\d+ +KeyError: '…'$",
            pictured=True,
        ),
        Step(
            say="All {failed} of one error, and all of them jobs that make receipts. No mail is failed.",
            command="penstock queues",
            sees=rf"email +{ZERO}{{completed}} +0 +0\n(.*\n)*shop +{ZERO}{{completed}} +{{failed}} +0",
        ),
        Step(
            say="A release went live at {deploy}. Up to then none had failed.",
            command="penstock replay at {deploy}",
            sees=rf"shop +{ZERO}{{before}} +0 +0",
        ),
    ),
)
WHY: Final = Part(
    "Why",
    (
        Step(
            say="The first that failed since:",
            command="penstock replay grep --event failed --from {deploy} --limit 3",
            sees=r"(.* failed +exhausted: KeyError: '[a-z]{{3}}' after .*ms\n?){{3}}",
            pictured=True,
        ),
        Step(
            say="Each names a currency. One of them from its beginning to its end:",
            command="penstock replay show {job}",
            sees=r'"currency":"[a-z]{{3}}"(.*\n)*.*tags=\["app"\]',
        ),
        Step(
            say="Its currency is in lower case; the app writes them so. How many orders are like that "
            "since the release? As many as have failed.",
            command=LOWER + " --from {deploy} | wc -l",
            sees=r"^{failed}$",
        ),
        Step(
            say="And before it? The app wrote them so then too, and they went well.",
            command=LOWER + " --to {deploy} | wc -l",
            sees=r"^{app}$",
        ),
        Step(
            say="So it is the code that changed. It put the currency into upper case; now it looks it "
            "up as it is.",
            command="git show --format=%s -U1",
            sees=r"(?m)^\+ .*signs\[job\.currency\]",
        ),
    ),
)
WOULD: Final = Part(
    "Would a rehearsal have shown it?",
    (
        Step(
            say="The jobs from before the release, run with its code, in a namespace of their own and "
            "without a mail being sent. In CI the exit code would have stopped it.",
            command="penstock replay rehearse --queue shop --to {deploy} --jobs shop; echo exit code $?",
            sees=r"receipt\.send +{before} +{web} +0 +{app} +0 +0 (.*\n)*"
            r"No: {app} of {before} jobs fail now that had completed\.\nexit code 1",
            head=6,
            tail=4,
            pictured=True,
        ),
    ),
)
MEND: Final = Part(
    "The mend",
    (
        Step(
            say="One word was lost.",
            command="git diff -U0",
            sees=r"(?m)^\+ .*signs\[job\.currency\.upper\(\)\]",
        ),
        Step(
            say="Does it hold for all jobs, from before the release and since? {failed} are better, "
            "none is worse.",
            command="penstock replay rehearse --queue shop --jobs shop; echo exit code $?",
            sees=r"receipt\.send +{total} +{completed} +{failed} +0 +0 +0 (.*\n)*"
            r"Yes: of {total} jobs none fails that had completed\.\nexit code 0",
            head=6,
            tail=4,
            pictured=True,
        ),
    ),
)
RIGHT: Final = Part(
    "Put it right",
    (
        Step(
            say="The mended code is live. The receipts that are missing shall be sent now, with a word "
            "of regret: a merge patch puts it into each payload. What that would do, without doing "
            "it:",
            command=REDRIVE + " --dry-run",
            sees=r"count +{failed}\n(.*\n)*takes .* at 20/s\n(.*\n)*"
            r".*note: \(none\) → \"Sorry for the delay\.\"",
            head=7,
            pictured=True,
        ),
        Step(
            say="Then in earnest, twenty a second for the mail server's sake, and under a name of its own:",
            command=REDRIVE + " --id late-receipts --follow",
            sees=r"completed +100% +{failed} of {failed} that fit\n(.*\n)*"
            r"sent +{failed}\nknown +0\nrefused +0\n",
            pictured=True,
        ),
        Step(
            say="A colleague who has not heard of it types the same. Under one name nothing is sent twice.",
            command=REDRIVE + " --id late-receipts --follow",
            sees=r"^Redrive 'late-receipts' was complete already: nothing was sent now\.\n(.*\n)*"
            r"sent +{failed}\n",
        ),
        Step(
            say="A redrive leaves the failed jobs as they were. They are dealt with now, so lay them to"
            " rest:",
            command="penstock bulk discard --queue shop --error KeyError --wait 60",
            sees=r"state +completed\nmatched +{failed}\ndone +{failed}$",
        ),
    ),
)
AFTER: Final = Part(
    "Afterwards",
    (
        Step(
            say="All {total} receipts are made, all {total} mails are sent, and nothing is failed any more.",
            command="penstock queues",
            sees=rf"email +{ZERO}{{total}} +0 +0\n(.*\n)*shop +{ZERO}{{total}} +0 +{{failed}}",
            pictured=True,
        ),
        Step(
            say="How it was before the repair can be asked for as long as the log is kept.",
            command="penstock replay at {mended}",
            sees=rf"shop +{ZERO}{{completed}} +{{failed}} +0",
        ),
        Step(
            say="Does all that stands beside the log say what the log says?",
            command="penstock replay verify; echo exit code $?",
            sees=r"shop: .* all as the log says\nexit code 0",
            pictured=True,
        ),
        Step(
            say="And the incident as a file for the post-mortem, without the addresses of the customers:",
            command="penstock replay export incident.ndjson.zst --queue shop --from {deploy} \\\n"
            "    --redact payload.to",
            sees=r"events +\d+\n(.*\n)*redacted +payload\.to",
        ),
    ),
)
STORY: Final = (WHAT, WHY, WOULD, MEND, RIGHT, AFTER)


class Otherwise(Exception):
    """Something else is seen than what the story tells."""


async def played(stage: Stage, orders: Orders) -> AsyncIterator[Told]:
    """Let it happen, and tell each step. Raises Otherwise."""
    await stage.release()
    await stage.order(orders.before)
    facts: dict[str, object] = {**orders.facts(), "deploy": await stage.next_second()}
    stage.commit(BROKEN, "Receipts show the sign of the currency")
    await stage.release()
    await stage.order(orders.after)
    for part in STORY:
        if part is MEND:
            stage.write(MENDED)
        if part is RIGHT:
            stage.commit(MENDED, "Currencies in lower case have signs too")
            await stage.release()
            facts["mended"] = await stage.next_second()
        for number, step in enumerate(part.steps):
            if part is AFTER and number == 0:
                await stage.settled(stage.orders + orders.facts()["failed"])
            told = await tell(stage, step, facts, "" if number else part.title)
            if step.command.startswith("penstock replay grep --event failed"):
                facts["job"] = _first_job(told.shown)
            yield told


async def tell(stage: Stage, step: Step, facts: Mapping[str, object], title: str) -> Told:
    """One step, with the gaps filled by `facts`. Raises Otherwise."""
    command = step.command.format(**facts)
    found = await asyncio.to_thread(shown, command, home=stage.home, environ=stage.environ)
    sees = step.sees.format(**facts)
    if not re.search(sees, found.text):
        raise Otherwise(f"$ {command}\n{found.text}\n\nThis is not there: {sees}")
    return Told(title, step.say.format(**facts), found, step.head, step.tail, step.pictured)


def _first_job(found: Shown) -> str:
    job = JOB.search(found.text)
    if job is None:
        raise Otherwise(f"no job is named:\n{found.text}")
    return job[0]
