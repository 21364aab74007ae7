"""What a look at a partition may find: something that is not as the log says, why, and what puts it right."""

from typing import Final

import msgspec

MAX_LISTED: Final = 1_000
MAX_KNOWN: Final = 100_000  # places that are known to have been told


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as the log says.

    `kind`: what sort of thing; `where`: which one; `found` and `expected`: what is there, and what should be;
    `cause`: how it probably came to that; `repair`: what would be done about it, empty where that is left to
    people.
    """

    kind: str
    where: str
    found: str
    expected: str
    cause: str
    repair: str = ""


class Findings:
    """Findings as they come: the first MAX_LISTED of them, and how many more. Each place is told and counted
    once; beyond MAX_KNOWN it may be counted twice."""

    def __init__(self) -> None:
        self.listed: Final[list[Finding]] = []
        self.more = 0
        self._known: Final[set[tuple[str, str]]] = set()

    def add(self, finding: Finding) -> None:
        name = (finding.kind, finding.where)
        if name in self._known:
            return
        if len(self._known) < MAX_KNOWN:
            self._known.add(name)
        if len(self.listed) < MAX_LISTED:
            self.listed.append(finding)
        else:
            self.more += 1
