"""The dashboard's server: the web app, sessions, and the API behind them.

    GET  /app/session   who is here, as what, and the token for changes
    POST /app/login     a password for a session
    POST /app/logout    the end of it
    GET  /app/feed      what changes, live
    GET  /app/mail/...  the mail of a job, for a frame
    *    /app/api/...   the API's own paths, with the dashboard's key
    GET  /...           the web app

Without a password whoever is on this machine is in, as with the API without keys; then, too, no page of
another origin is. Whoever may only read is refused any method that could change something.
"""

import asyncio
import hmac
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar, Response, get, post, route
from litestar.datastructures import Cookie, State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.core.errors import Misconfigured, NotFound
from penstock.core.settings import Settings
from penstock.producer.auth import LocalOnly, client_address, is_loopback, pick_headers
from penstock.producer.bodies import AnyRequest, media_type, whole
from penstock.producer.refusals import Forbidden, Malformed, Unauthorized
from penstock.projections.feed_events import following
from penstock.projections.feed_routes import After, EventStream, LastId, Watch
from penstock.ui.http_metrics import Measured
from penstock.ui.lifeline import StopSignals
from penstock.ui.mail_preview import Part, mail_page
from penstock.ui.passthrough import PREFIX, Passthrough
from penstock.ui.problems import EXCEPTION_HANDLERS
from penstock.ui.remote import ANY_ADDRESS, api_headers, api_url
from penstock.ui.serving import serve
from penstock.ui.sessions import COOKIE, LIFE_S, Session, Sessions, Tries
from penstock.ui.webapp import WebApp

if TYPE_CHECKING:
    from penstock.ui.metrics import Metrics

MAX_LOGIN: Final = 4096
SAFE: Final = ("GET", "HEAD")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]+)?", re.ASCII)
_FRESH: Final = {"Cache-Control": "no-store"}

_log: Final = logging.getLogger(__name__)


class Api(msgspec.Struct):
    """Where programs reach the API, and whether it asks for a key."""

    url: str
    key: bool


class Here(msgspec.Struct):
    """Who is here. `notice`: something that people should know, if there is; `api`: for who is in."""

    user: str | None
    role: str
    login_needed: bool
    csrf: str
    version: str
    notice: str | None
    api: Api | None


class Login(msgspec.Struct):
    """What is sent to come in."""

    password: str


class Door:
    """Knows who comes, and what he may."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured: an address that others can reach, without a password."""
        self.sessions: Final = Sessions(settings)
        self.tries: Final = Tries()
        self._proxies: Final = settings.trusted_proxies
        if not self.sessions.login_needed and not is_loopback(settings.host):
            raise Misconfigured(
                f"PENSTOCK_HOST={settings.host} can be reached by others, and the dashboard has no password: "
                "set PENSTOCK_DASHBOARD_PASSWORD, or PENSTOCK_HOST=127.0.0.1"
            )

    def session(self, request: AnyRequest) -> Session | None:
        """The session that a request comes with. Raises Forbidden for what comes from elsewhere."""
        headers = pick_headers(request.scope["headers"])
        if not self.sessions.login_needed:
            LocalOnly().admit(headers, _peer(request))
        if request.method not in SAFE:
            _same_origin(headers)
        return self.sessions.read(request.cookies.get(COOKIE, ""))

    def enter(self, request: AnyRequest) -> Session:
        """The same, for who must have one, and for a change the right to it. Raises Unauthorized,
        Forbidden."""
        session = self.session(request)
        if session is None:
            raise Unauthorized("log in first")
        if request.method not in SAFE:
            if session.role != "operate":
                raise Forbidden("with this password one may look, and change nothing")
            self.check_token(request, session)
        return session

    def check_token(self, request: AnyRequest, session: Session) -> None:
        """Raises Forbidden where a page of another origin might have sent this."""
        token = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(token.encode(), session.csrf.encode()):
            raise Forbidden("X-CSRF-Token is missing or not that of this session: load the page again")

    def address(self, request: AnyRequest) -> str:
        """Whose tries are counted."""
        return client_address(_peer(request), pick_headers(request.scope["headers"]), self._proxies)

    def cookie(self, request: AnyRequest, value: str, life: int) -> Cookie:
        """The session's cookie; `Secure` where the request came over TLS, here or at a proxy of ours."""
        told = request.headers.get("x-forwarded-proto", "") if self._proxies else ""
        secure = request.url.scheme == "https" or told == "https"
        return Cookie(
            COOKIE, value=value, max_age=life, path="/", httponly=True, samesite="strict", secure=secure
        )


class Guide:
    """Tells where the API is. It is told to people, so where it listens on all addresses of its machine,
    it is at the one by which they reach the dashboard."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._url: Final = url or api_url(settings)
        self._port: Final = settings.api_port if settings.host in ANY_ADDRESS and not url else 0
        self._key: Final = bool(api_headers(settings))

    def api(self, request: AnyRequest) -> Api:
        """For who asks by this request."""
        host = _HOST.fullmatch(request.headers.get("host", ""))
        there = f"http://{host[1]}:{self._port}" if self._port and host else self._url
        return Api(there, self._key)


def create_dashboard(settings: Settings, *, api: str = "", files: WebApp | None = None) -> Litestar:
    """The dashboard as an ASGI app; `api`: where the API is, if not where the settings say.
    Raises Misconfigured."""
    door, through, web = Door(settings), Passthrough(settings, api), files or WebApp()

    @asynccontextmanager
    async def life(_: Litestar) -> AsyncIterator[None]:
        yield
        await through.close()

    return Litestar(
        [*_session_routes(door, Guide(settings, api)), *_api_routes(door, through, settings), _files(web)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[life],
        state=State({"through": through}),
        request_max_body_size=None,  # counted where bodies are read
        openapi_config=None,
        logging_config=None,
        debug=False,
    )


async def serve_dashboard(
    settings: Settings,
    *,
    api: str = "",
    stop: asyncio.Event | None = None,
    metrics: "Metrics | None" = None,
) -> None:
    """Serve it until `stop` is set, or until a signal asks for it. Raises Misconfigured, OSError."""
    app = create_dashboard(settings, api=api)
    asked = stop or StopSignals(second_exits=True).first
    leaving = asyncio.Event()

    async def leave() -> None:
        await asked.wait()
        app.state.through.end()
        leaving.set()

    guarded = settings.dashboard_password or settings.dashboard_read_password
    who = "with a password" if guarded else "for this machine alone, without a password"
    _log.info("dashboard on http://%s:%d, %s", settings.host, settings.dashboard_port, who)
    leaver = asyncio.create_task(leave())
    try:
        measured = app if metrics is None else Measured(app, metrics)
        await serve(measured, settings, leaving, port=settings.dashboard_port)
    finally:
        leaver.cancel()


def _session_routes(door: Door, guide: Guide) -> list[HTTPRouteHandler]:
    sessions = door.sessions

    @get("/app/session")
    async def here(request: AnyRequest) -> Response[Here]:
        session = door.session(request)
        if session is None and not sessions.login_needed:
            return opened(request, "local", "operate")
        return Response(_here(sessions, session, guide.api(request)), headers=_FRESH)

    @post("/app/login", status_code=200)
    async def login(request: AnyRequest) -> Response[Here]:
        door.session(request)  # refuses other origins
        media_type(request, "application/json")  # and no form of theirs can send this
        door.tries.count(door.address(request))
        try:
            told = msgspec.json.decode(await whole(request, MAX_LOGIN, "login"), type=Login)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Malformed('the body is not {"password": "..."}') from None
        role = sessions.role_of(told.password)
        if role is None:
            raise Unauthorized("this is not the password")
        door.tries.forget(door.address(request))
        return opened(request, "operator" if role == "operate" else "reader", role)

    @post("/app/logout", status_code=200)
    async def logout(request: AnyRequest) -> Response[Here]:
        session = door.session(request)
        if session is not None:
            door.check_token(request, session)
        gone = door.cookie(request, "", 0)
        return Response(_here(sessions, None, None), headers=_FRESH, cookies=[gone])

    def opened(request: AnyRequest, user: str, role: Any) -> Response[Here]:
        value, session = sessions.open(user, role)
        kept = door.cookie(request, value, LIFE_S)
        return Response(_here(sessions, session, guide.api(request)), headers=_FRESH, cookies=[kept])

    return [here, login, logout]


def _api_routes(door: Door, through: Passthrough, settings: Settings) -> list[HTTPRouteHandler]:
    @route([PREFIX + "/{path:path}"], http_method=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    async def api(request: AnyRequest, path: FromPath[str]) -> Response[Any]:
        door.enter(request)
        return await through.request(request)

    @get("/app/feed")
    async def feed(
        request: AnyRequest, watch: Watch = "", after: After = "", last: LastId = ""
    ) -> Response[Any]:
        door.enter(request)
        following("", "", "", "", "", watch)  # refused here: on the stream it would be too late
        return EventStream(through.feed(watch, last or after))

    @get("/app/mail/{job_id:str}")
    async def mail(request: AnyRequest, job_id: FromPath[str], part: Part = "html") -> Response[bytes]:
        door.enter(request)
        return await mail_page(await through.job(job_id), part, settings)

    return [api, feed, mail]


def _files(web: WebApp) -> HTTPRouteHandler:
    @route(["/", "/{path:path}"], http_method=["GET", "HEAD"])
    async def page(request: AnyRequest, path: FromPath[str] = "") -> Response[bytes]:
        headers = request.headers
        asked = path.strip("/")
        told = (headers.get("accept-encoding", ""), headers.get("if-none-match", ""))
        answer = None if asked.split("/")[0] == "app" else web.answer(asked, *told)
        if answer is None:
            raise NotFound("no such page")
        return answer

    return page


def _here(sessions: Sessions, session: Session | None, api: Api | None) -> Here:
    notice = None if sessions.login_needed else "No password is set: whoever uses this machine may operate."
    return Here(
        user=session.user if session else None,
        role=session.role if session else "read",
        login_needed=sessions.login_needed and session is None,
        csrf=session.csrf if session else "",
        version=version("penstock"),
        notice=notice,
        api=api if session else None,
    )


def _same_origin(headers: dict[str, str]) -> None:
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Forbidden("pages of other origins are not served")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise Forbidden("pages of other origins are not served")


def _peer(request: AnyRequest) -> str:
    return request.client.host if request.client else ""
