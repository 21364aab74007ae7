"""Both feeds of a process, over one reading of the logs."""

from typing import Final

from penstock.core.settings import Settings
from penstock.projections.feed import Feed
from penstock.projections.feed_condensed import Condensed
from penstock.projections.feed_hub import Hub


class Feeds:
    """The exact feed and the condensed one. Opens no connection before somebody follows."""

    def __init__(self, settings: Settings) -> None:
        """Raises Misconfigured."""
        self._hub: Final = Hub(settings)
        self.exact: Final = Feed(self._hub)
        self.condensed: Final = Condensed(self._hub)

    def end(self) -> None:
        """End all streams, now, before the server that carries them stops."""
        self.exact.close()
        self.condensed.close()

    async def close(self) -> None:
        """End all streams and stop reading."""
        self.end()
        await self.condensed.stop()
        await self._hub.close()
