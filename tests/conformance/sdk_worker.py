"""The worker under test, written with the SDK: the vocabulary of conformance as tasks."""

import asyncio
import os
from contextlib import suppress
from typing import Any

from compute_orchestrator.client import Worker

app = Worker(
    os.environ["ORC_URL"],
    queues=os.environ["ORC_QUEUES"].split(","),
    worker_id=os.environ["ORC_WORKER_ID"],
    concurrency=4,
    shutdown_seconds=3,
)


@app.task("conformance.echo")
async def echo(value: Any) -> Any:
    return value


@app.task("conformance.sleep")
async def sleep(seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()


@app.task("conformance.fail")
async def fail(message: str) -> None:
    raise RuntimeError(message)


if __name__ == "__main__":
    app.run()
