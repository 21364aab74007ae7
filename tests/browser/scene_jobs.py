"""The jobs of the scene that pictures are taken of: a shop's, with the troubles that such a one has."""

import asyncio
import random

import msgspec

from penstock.consumers import Context, handler
from penstock.core import Backoff, Permanent, contract

CHAPTERS = ("orders", "refunds", "shipping", "stock", "customers", "summary")


@contract("orders.charge", queue="orders", attempts=4, backoff=Backoff(base=2.0, cap=30.0))
class Charge(msgspec.Struct):
    """Charge the card of an order."""

    order: str
    cents: int
    currency: str = "EUR"


class ProviderUnavailable(Exception):
    """The payment provider does not answer as it should."""


@handler(Charge)
async def charge(job: Charge, context: Context) -> dict[str, object]:
    await asyncio.sleep(random.uniform(0.02, 0.2))
    luck = random.random()
    if luck < 0.04:
        raise Permanent("the card was declined: insufficient funds")
    if luck < 0.12:
        raise ProviderUnavailable(f"POST /v1/charges answered 503 for order {job.order}")
    return {"order": job.order, "charged": job.cents, "receipt": f"rc_{random.randrange(16**8):08x}"}


@contract("orders.export", queue="orders", attempts=2, backoff=Backoff(base=3.0))
class Export(msgspec.Struct):
    """Export the orders of a day."""

    day: str


@handler(Export)
async def export(job: Export, context: Context) -> dict[str, object]:
    await asyncio.sleep(random.uniform(0.5, 1.5))
    if random.random() < 0.4:
        raise KeyError("vat_rate")
    return {"rows": random.randrange(800, 2_000), "file": f"orders-{job.day}.csv"}


@contract("search.index", queue="search", attempts=3, backoff=Backoff(base=1.0))
class Index(msgspec.Struct):
    """Put a product into the search index."""

    product: int
    fields: list[str] = []


@handler(Index)
async def index(job: Index, context: Context) -> dict[str, int]:
    await asyncio.sleep(random.expovariate(1 / 0.012))
    if random.random() < 0.001:
        raise ConnectionResetError("search-2:9200 closed the connection")
    return {"product": job.product, "tokens": random.randrange(40, 400)}


@contract("reports.build", queue="reports", attempts=3, backoff=Backoff(base=2.0), timeout=300.0)
class Report(msgspec.Struct):
    """Build a report, chapter by chapter; `pace`: seconds for each."""

    name: str
    pace: float = 1.0


@handler(Report)
async def report(job: Report, context: Context) -> dict[str, object]:
    for number, chapter in enumerate(CHAPTERS):
        context.progress(number / len(CHAPTERS), f"chapter {number + 1} of {len(CHAPTERS)}: {chapter}")
        context.log(f"{chapter}: {random.randrange(300, 9_000):,} rows read")
        await asyncio.sleep(job.pace)
        if chapter == "shipping" and context.attempt == 1 and random.random() < 0.5:
            raise TimeoutError("the warehouse did not answer within 5 s")
    return {"pages": random.randrange(8, 40), "chapters": list(CHAPTERS)}


@contract("reports.publish", queue="reports", attempts=2)
class Publish(msgspec.Struct):
    """Publish what the jobs before it made."""

    to: str


@handler(Publish)
async def publish(job: Publish, context: Context) -> dict[str, object]:
    await asyncio.sleep(1)
    return {"to": job.to, "parts": sorted(context.needs)}
