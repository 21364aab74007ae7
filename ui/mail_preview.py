"""The mail of a job as it looks: a page that can run nothing and load nothing, for a frame of the dashboard.

The page has a policy of its own, because a frame that is written into a page takes over that page's policy,
under which the mail's own styles would vanish. A mail from a template is filled as a worker would fill it
now, with the templates that this process finds.
"""

import asyncio
from html import escape
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response
from litestar.params import QueryParameter

from penstock.consumers.templates import render
from penstock.core.errors import NotFound, Permanent
from penstock.core.jobs.email import SendEmail
from penstock.core.settings import Settings

Part = Annotated[Literal["html", "text"], QueryParameter(description="Which of its two bodies.")]

MAIL: Final = "email.send"
SAFETY: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The mail's own rules count more than these. A link would open a window, which the sandbox forbids: else
# it would lead this frame away.
_HEAD: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<base target="_blank">
<style>
:where(html) { color-scheme: light; background: #fff; color: #1b1f24; }
:where(body) { margin: 16px; font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
:where(img, table) { max-width: 100%; }
:where(img:not([src^="data:"]):not([alt])) { visibility: hidden; }
.plain { white-space: pre-wrap; }
</style>
"""


async def mail_page(job: dict[str, Any], part: Part, settings: Settings) -> Response[bytes]:
    """The page of a job's mail: its HTML, or its text where that is asked for or all there is; or why it
    cannot be shown, where it is sealed or its template cannot be filled here. Raises NotFound: no mail."""
    if job["type"] != MAIL:
        raise NotFound("this job sends no mail")
    try:
        mail = msgspec.convert(job["payload"], SendEmail)
        html, text = mail.html, mail.text
        if mail.template is not None:
            # In a thread: a template is code, and may take its time.
            own = settings.data_dir.absolute() / "templates"
            filled = await asyncio.to_thread(render, mail.template, mail.data, own)
            html, text = filled.html, filled.text
    except (msgspec.ValidationError, Permanent) as error:
        html, text = "", f"The mail cannot be shown: {error}"
    body = html if html and (part == "html" or not text) else f'<div class="plain">{escape(text)}</div>'
    return Response((_HEAD + body).encode(errors="replace"), media_type="text/html", headers=SAFETY)
