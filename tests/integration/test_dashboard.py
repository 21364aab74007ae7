"""The dashboard's server in front of a real API: who gets in, what he may, and what comes through."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from apis import KEY, api_settings, partition, running_api
from histories import Author
from penstock.core.connection import connect
from penstock.core.errors import Misconfigured
from penstock.core.settings import Secret, Settings
from penstock.projections.rebuild import rebuild
from penstock.ui.dashboard import create_dashboard, serve_dashboard
from penstock.ui.sessions import COOKIE, Sessions
from penstock.ui.webapp import WebApp
from servers import RealServer, free_port
from sse import following

OPERATE = "open sesame"
READ = "let me see"
GUARDED: dict[str, Any] = {
    "dashboard_password": Secret(OPERATE),
    "dashboard_read_password": Secret(READ),
    "api_keys": Secret(f"dashboard:{KEY}"),
}


@pytest.fixture
def real_server(make_server: Callable[..., RealServer]) -> RealServer:
    return make_server("redis")


@pytest.fixture
def settings(real_server: RealServer, namespace: str, tmp_path: Path) -> Settings:
    return api_settings(real_server, namespace, tmp_path, dashboard_port=free_port())


@asynccontextmanager
async def running_dashboard(
    settings: Settings, stop: asyncio.Event | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the dashboard as `penstock dashboard` does; answers a browser without cookies yet."""
    stop = stop or asyncio.Event()
    serving = asyncio.create_task(serve_dashboard(settings, stop=stop))
    base = f"http://127.0.0.1:{settings.dashboard_port}"
    try:
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            async with asyncio.timeout(15):
                while True:
                    try:
                        await client.get("/app/none")
                    except httpx.ConnectError:
                        await asyncio.sleep(0.01)
                    else:
                        break
            yield client
    finally:
        stop.set()
        await asyncio.wait_for(serving, 15)


@asynccontextmanager
async def both(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API, and a browser of the dashboard in front of it."""
    async with running_api(settings), running_dashboard(settings) as browser:
        yield browser


async def enter(browser: httpx.AsyncClient, password: str = "") -> dict[str, Any]:
    """Come in, and keep the token for changes as a page does."""
    if password:
        answer = await browser.post("/app/login", json={"password": password})
    else:
        answer = await browser.get("/app/session")
    assert answer.status_code == 200, answer.text
    browser.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return dict(answer.json())


async def test_on_this_machine_it_opens_directly_and_says_so(settings: Settings) -> None:
    async with both(settings) as browser:
        refused = await browser.get("/app/api/queues")
        assert refused.status_code == 401
        here = await enter(browser)
        assert (here["user"], here["role"], here["login_needed"]) == ("local", "operate", False)
        assert "No password" in here["notice"]
        [cookie] = browser.cookies.jar
        assert (cookie.name, cookie.path, cookie.secure) == (COOKIE, "/", False)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "strict"
        assert (cookie.expires or 0) > 0
        assert (await browser.get("/app/api/queues")).json() == {"queues": []}
    key = settings.data_dir / "dashboard.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


async def test_a_job_goes_through_to_the_api_and_its_answer_comes_back(settings: Settings) -> None:
    async with both(settings) as browser:
        await enter(browser)
        job = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
        accepted = await browser.post("/app/api/jobs/ai", json=job, headers={"Idempotency-Key": "one"})
        assert accepted.status_code == 202
        assert accepted.headers["location"] == f"/app/api/jobs/ai/{accepted.json()['id']}"
        again = await browser.post("/app/api/jobs/ai", json=job, headers={"Idempotency-Key": "one"})
        assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
        found = await browser.get(accepted.headers["location"])
        assert found.json()["payload"] == {"text": "Guten Tag"}
        wrong = await browser.post("/app/api/jobs/ai", json={"type": "ai.language", "payload": {}})
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")


async def test_files_come_through_whole_and_can_do_nothing_here(settings: Settings) -> None:
    async with both(settings) as browser:
        await enter(browser)
        page = b"<script>alert(1)</script>" * 50_000
        stored = await browser.post("/app/api/artifacts", content=page, headers={"Content-Type": "text/html"})
        assert stored.status_code == 201
        found = await browser.get(stored.headers["location"])
        assert found.content == page
        assert "sandbox" in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"
        known = await browser.get(
            stored.headers["location"], headers={"If-None-Match": found.headers["etag"]}
        )
        assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"X-Forwarded-For": "192.0.2.1"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing(settings: Settings, headers: dict[str, str]) -> None:
    async with both(settings) as browser:
        await enter(browser)
        body = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
        refused = await browser.post("/app/api/jobs/ai", json=body, headers=headers)
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await browser.get("/app/api/queues")).json() == {"queues": []}


async def test_with_passwords_there_is_a_login_and_two_roles(settings: Settings) -> None:
    settings = msgspec.structs.replace(settings, **GUARDED)
    async with both(settings) as browser:
        here = (await browser.get("/app/session")).json()
        assert (here["user"], here["login_needed"], here["csrf"], here["notice"]) == (None, True, "", None)
        for path in ("/app/api/queues", "/app/feed"):
            assert (await browser.get(path)).status_code == 401
        for wrong in ("", "open", KEY):
            refused = await browser.post("/app/login", json={"password": wrong})
            assert refused.status_code == 401
            assert "set-cookie" not in refused.headers

        job = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
        assert (await enter(browser, READ))["role"] == "read"
        assert (await browser.get("/app/api/queues")).status_code == 200
        refused = await browser.post("/app/api/jobs/ai", json=job)
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")

        assert (await enter(browser, OPERATE))["role"] == "operate"
        assert (await browser.post("/app/api/jobs/ai", json=job)).status_code == 202
        kept = dict(browser.cookies)
        out = await browser.post("/app/logout")
        assert out.json()["user"] is None
        assert not browser.cookies
        assert (await browser.get("/app/api/queues")).status_code == 401
        assert KEY not in str(kept)


async def test_passwords_cannot_be_guessed_at_speed(settings: Settings) -> None:
    settings = msgspec.structs.replace(settings, **GUARDED)
    async with running_dashboard(settings) as browser:
        answers = [await browser.post("/app/login", json={"password": f"guess {it}"}) for it in range(8)]
        assert [it.status_code for it in answers] == [401] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
        refused = await browser.post("/app/login", json={"password": OPERATE})
        assert refused.status_code == 429


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"password=open+sesame", "application/x-www-form-urlencoded", 415),
        (b'{"password":"open sesame"}', "text/plain", 415),
        (b"open sesame", "application/json", 400),
        (b'{"password":7}', "application/json", 400),
        (b'{"password":"' + b"x" * 5000 + b'"}', "application/json", 413),
    ],
)
async def test_a_login_that_is_none_is_refused(
    settings: Settings, body: bytes, kind: str, status: int
) -> None:
    settings = msgspec.structs.replace(settings, **GUARDED)
    async with running_dashboard(settings) as browser:
        refused = await browser.post("/app/login", content=body, headers={"Content-Type": kind})
        assert refused.status_code == status


def test_a_session_is_signed_and_ends_with_the_password(settings: Settings) -> None:
    guarded = msgspec.structs.replace(settings, **GUARDED)
    sessions = Sessions(guarded)
    cookie, session = sessions.open("operator", "operate")
    assert sessions.read(cookie) == session
    assert Sessions(guarded).read(cookie) == session  # after a restart
    body, rest = cookie.split(".", 1)
    for other in (
        body[:8] + ("A" if body[8] != "A" else "B") + body[9:],
        Sessions(guarded).open("x", "read")[0],
    ):
        assert sessions.read(f"{other.split('.')[0]}.{rest}") is None
    assert sessions.read("") is None
    changed = msgspec.structs.replace(guarded, dashboard_password=Secret("another one"))
    assert Sessions(changed).read(cookie) is None
    assert sessions.open("operator", "operate")[1].csrf != session.csrf


def test_an_address_that_others_reach_needs_a_password(settings: Settings) -> None:
    public = msgspec.structs.replace(settings, host="0.0.0.0")  # noqa: S104 (this is the point)
    with pytest.raises(Misconfigured, match="PENSTOCK_DASHBOARD_PASSWORD"):
        create_dashboard(public)
    create_dashboard(msgspec.structs.replace(public, **GUARDED))


@pytest.mark.parametrize(
    ("changes", "api", "told"),
    [
        ({}, "", {"url": "http://127.0.0.1:3001", "key": False}),
        ({}, "http://elsewhere:1", {"url": "http://elsewhere:1", "key": False}),
        ({"host": "0.0.0.0", **GUARDED}, "", {"url": "http://[::1]:3001", "key": True}),  # noqa: S104
    ],
)
async def test_a_page_is_told_where_programs_reach_the_api(
    settings: Settings, changes: dict[str, Any], api: str, told: dict[str, Any]
) -> None:
    here = msgspec.structs.replace(settings, api_port=3001, **changes)
    through = httpx.ASGITransport(create_dashboard(here, api=api), client=("::1", 5000))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=through, base_url="http://[::1]:3000") as browser:
        if changes:
            assert (await browser.get("/app/session")).json()["api"] is None
        assert (await enter(browser, OPERATE if changes else ""))["api"] == told


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/app/api/none", 404),
        ("/app/api/jobs/none", 404),
        ("/app/api/../app/session", 404),
        ("/app/api/%2e%2e/health/live", 404),
        ("/app/api//health/live", 404),
        ("/app/api", 404),
        ("/app/none", 404),
        ("/app", 404),
        ("/none", 404),
        ("/assets/none.js", 404),
        ("/app/feed?watch=nonsense", 404),
    ],
)
async def test_what_is_not_there_is_404(settings: Settings, path: str, status: int) -> None:
    async with both(settings) as browser:
        await enter(browser)
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.dashboard_port)
        cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
        head = f"Host: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        writer.write(f"GET {path} HTTP/1.1\r\n{head}".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert b"application/problem+json" in answer


async def test_while_the_api_is_away_the_answer_is_503(settings: Settings) -> None:
    async with running_dashboard(settings) as browser:
        await enter(browser)
        answer = await browser.get("/app/api/queues")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_the_feed_goes_on_over_a_restart_of_the_api_without_a_gap(settings: Settings) -> None:
    keys = partition(settings, "mail")
    async with connect(settings) as redis, running_dashboard(settings) as browser:
        author = Author(redis, keys)
        await author.enter()
        await redis.sadd(keys.queues, "mail")
        await enter(browser)
        async with following(browser, "/app/feed") as follower:
            async with running_api(settings):
                await follower.until(lambda it: any(m.event == "changes" for m in it))
                await author.submit(2)
                await rebuild(redis, keys)
                await follower.until(lambda it: rows(it) == set(author.jobs))
            await follower.until(lambda it: it[-1].event == "link" and not it[-1].data["up"])
            await author.submit(3)
            await rebuild(redis, keys)
            async with running_api(settings):
                await follower.until(lambda it: rows(it) == set(author.jobs))
                assert any(m.event == "link" and m.data["up"] for m in follower.messages)
            assert not any(m.event == "reset" for m in follower.messages)


def rows(messages: list[Any]) -> set[str]:
    """The jobs that were told, by position."""
    return {
        row["id"].rsplit(".", 1)[1] for it in messages if it.event == "changes" for row in it.data["jobs"]
    }


async def test_feeds_end_when_the_dashboard_leaves(settings: Settings) -> None:
    stop = asyncio.Event()
    async with running_api(settings), running_dashboard(settings, stop) as browser:
        await enter(browser)
        async with following(browser, "/app/feed") as follower:
            await follower.count(1)
            stop.set()
            await follower.end()
            assert not follower.cut


async def test_the_web_app_is_served_with_a_strict_policy(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>one</title>")
    (tmp_path / "assets" / "main-1a2b.js").write_text("export const answer = 42;\n" * 100)
    web = WebApp(tmp_path)
    page = web.answer("", "", "")
    assert page is not None
    assert page.content == b"<!doctype html><title>one</title>"
    assert page.headers["Cache-Control"] == "no-cache"
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    deep = web.answer("jobs/mail/mail.0.1-1", "", "")
    assert deep is not None
    assert deep.content == page.content
    script = web.answer("assets/main-1a2b.js", "gzip, br", "")
    assert script is not None
    assert script.headers["Content-Encoding"] == "gzip"
    assert "immutable" in script.headers["Cache-Control"]
    assert len(script.content) < 200
    again = web.answer("assets/main-1a2b.js", "", script.headers["ETag"])
    assert again is not None
    assert again.status_code == 304
    for path in ("none", "assets/other.js", "../index.html", "assets/../../secret", "none.js"):
        assert web.answer(path, "", "") is None


async def test_an_app_that_was_not_built_says_how(tmp_path: Path) -> None:
    page = WebApp(tmp_path).answer("", "", "")
    assert page is not None
    assert page.status_code == 503
    assert b"make dashboard" in page.content


async def test_a_page_says_its_encoding_once(settings: Settings) -> None:
    async with running_dashboard(settings) as browser:
        assert (await browser.get("/")).headers["content-type"] == "text/html; charset=utf-8"


WILD: dict[str, Any] = {
    "to": ["ada@example.org"],
    "subject": "Wild",
    "text": "a < b & c",
    "html": "<style>p{color:#c00}</style><p style='font-weight:700'>Hi</p><script>parent.x=1</script>",
}


async def mail_job(browser: httpx.AsyncClient, payload: dict[str, Any]) -> str:
    """A mail that is sent much later; where its page is."""
    job = {"type": "email.send", "payload": payload, "delay": 3600}
    made = await browser.post("/app/api/jobs/email", json=job)
    assert made.status_code == 202, made.text
    return f"/app/mail/{made.json()['id']}"


async def test_a_mail_is_shown_under_a_policy_of_its_own(settings: Settings) -> None:
    async with both(settings) as browser:
        await enter(browser)
        where = await mail_job(browser, WILD)
        page = await browser.get(where)
        policy = page.headers["content-security-policy"]
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert {"sandbox", "default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= {
            *policy.split("; ")
        }
        assert "script-src" not in policy
        assert WILD["html"] in page.text
        text = await browser.get(where, params={"part": "text"})
        assert "a &lt; b &amp; c" in text.text
        assert "<script>" not in text.text
        assert text.headers["content-security-policy"] == policy
        browser.cookies.clear()
        assert (await browser.get(where)).status_code == 401


async def test_a_mail_from_a_template_is_filled_and_what_is_no_mail_is_not_there(settings: Settings) -> None:
    async with both(settings) as browser:
        await enter(browser)
        data = {"name": "<Ada>", "product": "Engine"}
        mail = {"to": ["ada@example.org"], "template": "welcome", "data": data}
        page = await browser.get(await mail_job(browser, mail))
        assert (page.status_code, "&lt;Ada&gt;" in page.text, "Engine" in page.text) == (200, True, True)
        short = await browser.get(await mail_job(browser, {**mail, "data": {}}))
        assert (short.status_code, "cannot be shown" in short.text) == (200, True)
        job = {"type": "ai.language", "payload": {"text": "Guten Tag"}}
        made = (await browser.post("/app/api/jobs/ai", json=job)).json()
        for id in (made["id"], "email.0.1-1", "nonsense", ".."):
            assert (await browser.get(f"/app/mail/{id}")).status_code == 404
