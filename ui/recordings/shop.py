"""The receipts of a shop."""

import msgspec

from penstock.consumers import Context, handler
from penstock.core import Backoff, contract
from penstock.core.jobs.email import SendEmail


@contract("receipt.send", queue="shop", attempts=2, backoff=Backoff(kind="fixed", base=1.0, jitter=0))
class Receipt(msgspec.Struct):
    """Send the receipt of an order."""

    order: str
    to: str
    cents: int
    currency: str
    note: str = ""


@handler(Receipt, pure=True)  # the mail is a job of its own
async def receipt(job: Receipt, context: Context) -> dict[str, str]:
    total = f"{job.cents / 100:.2f} {job.currency.upper()}"
    text = f"{job.note}\n\nThank you for your order {job.order}: {total}.".strip()
    mail = SendEmail(to=(job.to,), subject=f"Your receipt for {job.order}", text=text)
    await context.jobs.submit(mail, key=f"receipt:{context.job_id}")
    return {"order": job.order}
