"""The recorded incident is what happens: played again with fewer orders, each step goes as its page tells it;
and page and pictures are made of the record."""

import re
from pathlib import Path
from typing import Final

import pytest

from penstock.ui.recordings.incident import STORY, Orders, Otherwise, Step, Told, played, tell
from penstock.ui.recordings.pages import HERE, PAGE, PICTURES, THEMES, page, picture, read
from penstock.ui.recordings.stage import Stage, staged

FEWER: Final = Orders(before=12, after=9)
FAILED: Final = 3
MOMENT: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
STEPS: Final = [step for part in STORY for step in part.steps]


def shows(told: list[Told], command: str) -> list[Told]:
    """The steps whose command has this."""
    found = [it for it in told if command in it.shown.command]
    assert found, command
    return found


async def failed_of(stage: Stage) -> int:
    """How many jobs of the shop are failed, by the API."""
    return (await stage.counts())["shop"]["failed"]


@pytest.mark.timeout(300)  # eighteen commands, each a process, on a machine that may be busy
async def test_it_goes_as_the_page_tells_it(tmp_path: Path) -> None:
    told: list[Told] = []
    failed: list[int] = []
    async with staged(tmp_path) as stage:
        async for it in played(stage, FEWER):
            told.append(it)
            failed.append(await failed_of(stage))
        assert await stage.mails() == FEWER.before + FEWER.after
        last = await stage.ask("GET", "/jobs/shop?state=completed&limit=1")
        copy = await stage.ask("GET", f"/jobs/shop/{last['jobs'][0]['id']}")
    assert told[0].shown.command == "penstock failures"
    assert (
        told[1].say
        == f"All {FAILED} of one error, and all of them jobs that make receipts. No mail is failed."
    )
    discarded = told.index(shows(told, "bulk discard")[0])
    assert failed[:discarded] == [FAILED] * discarded, "a look changes nothing, a redrive no original"
    assert failed[-1] == 0
    assert [it.shown.code for it in told] == [0] * len(STEPS)

    before, after = shows(told, "rehearse")
    assert before.shown.text.endswith("No: 4 of 12 jobs fail now that had completed.\nexit code 1")
    assert after.shown.text.endswith("Yes: of 21 jobs none fails that had completed.\nexit code 0")
    [dry] = shows(told, "--dry-run")
    assert re.search(rf"^count +{FAILED}$", dry.shown.text, re.MULTILINE)
    assert dry.shown.text.count('note: (none) → "Sorry for the delay."') == FAILED
    first, second = shows(told, "--follow")
    for redrive in (first, second):
        facts = [" ".join(line.split()) for line in redrive.shown.text.splitlines()[1:]]
        assert facts[1:] == ["state completed", f"sent {FAILED}", "known 0", "refused 0", "gone 0"]
    assert second.shown.text.startswith("Redrive 'late-receipts' was complete already")
    assert (copy["payload"]["note"], copy["state"]) == ("Sorry for the delay.", "completed")
    [verify] = shows(told, "verify")
    assert verify.shown.text.count("all as the log says") == len(verify.shown.lines) - 1
    assert verify.shown.text.endswith("exit code 0")


async def test_a_step_that_shows_something_else_is_no_record(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    step = Step(say="{n}", command="echo one; exit 3", sees="^one$")
    assert (await tell(stage, step, {"n": 1}, "")).shown.code == 3
    with pytest.raises(Otherwise, match="This is not there: two"):
        await tell(stage, Step(say="", command="echo one", sees="two"), {}, "")


def test_page_and_pictures_are_made_of_the_record() -> None:
    record = read()
    assert page(record) == PAGE.read_text()
    for theme in THEMES:
        drawn = (HERE / PICTURES.format(theme=theme)).read_text()
        assert picture(record, theme) == drawn
        assert set(re.findall(r"https?://[^\"]+", drawn)) == {"http://www.w3.org/2000/svg"}, (
            "it loads nothing"
        )


def test_the_page_has_the_commands_that_are_run_and_no_others() -> None:
    blocks = re.findall(r"^```console\n\$ ((?:.*\\\n)*.*)\n", PAGE.read_text(), re.MULTILINE)
    assert len(blocks) == len(STEPS)
    for typed, step in zip(blocks, STEPS, strict=True):
        command = re.escape(step.command.format(deploy="DEPLOY", mended="MENDED", job="JOB"))
        pattern = re.sub("DEPLOY|MENDED", lambda _: MOMENT, command).replace("JOB", r"shop\.0\.\d+-\d+")
        assert re.fullmatch(pattern, typed), typed


def test_the_record_tells_nothing_of_the_machine_it_was_made_on() -> None:
    text = PAGE.read_text()
    assert not re.findall(r"(?<![\w.])/(?:tmp|home|root|Users|work|opt|usr)\b|127\.0\.0\.1|localhost", text)
    assert set(re.findall(r"attempt \d on (\w+)-", text)) == {"host"}
