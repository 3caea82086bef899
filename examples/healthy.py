"""Whether the servers have heard of this host's worker lately: a healthcheck for its container.

A worker's id begins with its host's name, unless it was given another one.
"""

import json
import os
import socket
from datetime import UTC, datetime
from urllib.request import urlopen

LONGEST_SILENCE_SECONDS = 90  # a worker that waits for work is silent for up to a minute

with urlopen(os.environ["JOB_SERVER"] + "/workers", timeout=4) as answer:  # noqa: S310 - http
    workers = json.load(answer)["workers"]
seen = [
    datetime.fromisoformat(worker["last_seen_at"])
    for worker in workers
    if worker["worker_id"].startswith(f"{socket.gethostname()}-")
]
if not seen:
    raise SystemExit("the servers have not heard of it")
silence = datetime.now(UTC) - max(seen)
if silence.total_seconds() > LONGEST_SILENCE_SECONDS:
    raise SystemExit(f"the servers have heard nothing of it for {silence}")
