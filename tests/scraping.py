"""/metrics as tests read it: what stands there, by name and labels."""

from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.telemetry import Instrument
from processes import eventually

PATIENCE_S: Final = 60.0


class Scrape:
    """What one process told."""

    def __init__(self, text: str) -> None:
        self.families: Final = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples: Final = [it for family in self.families.values() for it in family.samples]

    def value(self, instrument: Instrument, suffix: str = "", **labels: str) -> float:
        """The sum of what it says of these labels."""
        name = instrument.prometheus + suffix
        return sum(
            it.value for it in self._samples if it.name == name and labels.items() <= it.labels.items()
        )

    def labels(self, instrument: Instrument, label: str) -> set[str]:
        """What values a label has."""
        return {it.labels[label] for it in self.of(instrument)}

    def of(self, instrument: Instrument) -> list[Any]:
        """All samples of an instrument."""
        name = instrument.prometheus
        return [it for it in self._samples if it.name in (name, f"{name}_bucket")]


async def scraped(port: int) -> Scrape:
    """What the process on this port tells, as soon as it does."""

    async def told() -> Scrape | None:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
                answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        except httpx.TransportError:
            return None
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)

    found: Scrape = await eventually(told, PATIENCE_S, f"metrics on port {port}")
    return found
