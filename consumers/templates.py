"""Mail templates: `NAME.subject`, `NAME.txt` and `NAME.html`, filled by Jinja in its sandbox.

Own templates lie in the folder `templates` of the data directory and hide built-in ones of the same
name. A template needs a subject and one of the two bodies. Values are escaped in HTML, and a value that
the template uses and the job lacks is an error, never an empty place in somebody's mail.

Built in are `welcome` (name, product; message, action_url, action_label, footer may be given) and
`receipt` (name, number, items of name, amount and quantity, total; date and footer may be given).
"""

from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateNotFound
from jinja2.sandbox import SandboxedEnvironment

from penstock.core.errors import Permanent

BUILT_IN: Final = Path(__file__).parent / "static" / "templates"


class Rendered(msgspec.Struct, frozen=True):
    """A filled template; a body it does not have is empty."""

    subject: str
    text: str
    html: str


def render(name: str, data: dict[str, Any], own: Path) -> Rendered:
    """Fill template `name`. Raises Permanent: no such template, a missing value, a broken template."""
    environment = _environment(own)
    subject, text, html = (_load(environment, f"{name}.{part}") for part in ("subject", "txt", "html"))
    if subject is None or not (text or html):
        known = sorted({file.removesuffix(".subject") for file in environment.list_templates(["subject"])})
        raise Permanent(f"no mail template {name!r} with a subject and a body; there are: {', '.join(known)}")
    try:
        return Rendered(
            subject=" ".join(subject.render(data).split()),  # one line, whatever the values hold
            text=text.render(data) if text else "",
            html=html.render(data) if html else "",
        )
    except Exception as error:  # a template is code: anything may come, and the same again next time
        raise Permanent(f"mail template {name!r}: {error}") from error


def _load(environment: SandboxedEnvironment, file: str) -> Template | None:
    try:
        return environment.get_template(file)
    except TemplateNotFound:
        return None


@cache
def _environment(own: Path) -> SandboxedEnvironment:
    return SandboxedEnvironment(
        loader=FileSystemLoader([own, BUILT_IN]),
        autoescape=lambda file: file is not None and file.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
