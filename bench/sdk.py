"""A worker of the SDK in a process of its own: does a number of no-op tasks, or idles for a while.

One `Order` on stdin, one `Effort` on stdout.
"""

import asyncio
import sys
import time

from pydantic import BaseModel

from bench.conversations import NAME
from compute_orchestrator.client import Worker


class Order(BaseModel):
    """`jobs` no-op tasks as fast as they come; without any it is idle for `seconds`."""

    url: str
    concurrency: int
    jobs: int = 0
    seconds: float = 0


class Effort(BaseModel):
    """From the start of the worker on until it has stopped."""

    seconds: float
    cpu_seconds: float


async def work(order: Order) -> Effort:
    app = Worker(order.url, concurrency=order.concurrency)
    left = order.jobs

    @app.task(NAME)
    async def _resize(**_payload: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            app.stop()

    if not order.jobs:
        asyncio.get_running_loop().call_later(order.seconds, app.stop)
    start, cpu = time.perf_counter(), time.process_time()
    await app.serve()
    return Effort(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - cpu)


if __name__ == "__main__":
    order = Order.model_validate_json(sys.stdin.read())
    sys.stdout.write(asyncio.run(work(order)).model_dump_json())
