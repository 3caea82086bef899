"""A worker process that claims one job and is killed by it: `python poisoned.py URL QUEUE`."""

import json
import os
import signal
import sys
import urllib.request


def main(url: str, queue: str) -> None:
    """The standard library is all that a worker needs."""
    wishes = {"worker_id": f"victim-{os.getpid()}", "queues": [queue], "lease_seconds": 1}
    request = urllib.request.Request(  # noqa: S310 - the test's own server
        f"{url}/jobs/claim", json.dumps(wishes).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - the test's own server
        if answer.status == 200:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
