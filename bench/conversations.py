"""What a connection says: each conversation yields its requests and is sent their answers.

A new kind of load is one more function here.
"""

import re
from collections.abc import Callable, Generator
from functools import partial
from typing import NamedTuple, TypeAlias

from pydantic import JsonValue

from bench.wire import encode, request


class Ask(NamedTuple):
    """One request: the name it is counted under, its bytes, the status of a good answer."""

    step: str
    data: bytes
    status: int


# Sent the body of each answer; after a bad one the conversation is dropped.
Conversation: TypeAlias = Generator[Ask, bytes, None]

NAME = "images.resize"
PAYLOAD: JsonValue = {"source": "s3://photos/2026/11/8f14e45f.jpg", "width": 640, "height": 480}
TAGS = ["photos"]
RESULT = {"target": "s3://thumbs/2026/11/8f14e45f.webp", "bytes": 48213, "took_seconds": 0.184}
WORKER = "bench-1"

_JOB = encode({"name": NAME, "payload": PAYLOAD, "tags": TAGS})
_CREATE = Ask("create", request("POST", "/jobs", _JOB), 201)
_CLAIM = Ask("claim", request("POST", "/jobs/claim", encode({"worker_id": WORKER})), 200)

_BULK = {
    number: Ask(
        "bulk",
        request("POST", "/jobs/bulk", b'{"jobs":[%s]}' % b",".join([_JOB] * number)),
        201,
    )
    for number in (100, 1_000)
}
_SYNC_REPORT = b'{"id":%s,"lease_token":"%s","status":"succeeded","result":' + encode(RESULT) + b"}"
_CLAIMED = re.compile(rb'"id": ?(\d+), ?"lease_token": ?"([^"]+)"')

_JOB_ID = re.compile(rb'"id": ?(\d+)')
_LEASE_TOKEN = re.compile(rb'"lease_token": ?"([^"]+)"')


def create() -> Conversation:
    yield _CREATE


def bulk(jobs: int) -> Conversation:
    """So many creates in one call."""
    yield _BULK[jobs]


def sync(jobs: int, rounds: int = 10) -> Conversation:
    """A busy worker: each call reports all that the one before it brought, and claims as many.

    Only a call between the first and the last does both: it is a step of its own.
    """
    claim = encode({"limit": jobs})
    brought: list[tuple[bytes, bytes]] = []
    for number in range(rounds + 1):
        reports = b",".join(_SYNC_REPORT % job for job in brought)
        body = b'{"reports":[%s]%s}' % (reports, b',"claim":' + claim if number < rounds else b"")
        step = "sync" if 0 < number < rounds else "first or last sync"
        answer = yield Ask(step, request("POST", f"/workers/{WORKER}/sync", body), 200)
        if answer.count(b'"status":"succeeded"') != len(brought):
            raise ValueError(f"a report was not taken: {answer[:300]!r}")
        brought = _CLAIMED.findall(answer) if number < rounds else []
        if number < rounds and len(brought) != jobs:
            raise ValueError(f"{len(brought)} of {jobs} jobs: the queue ran dry")


def claim_and_report(*, heartbeats: int = 0, looks: int = 0) -> Conversation:
    job = yield _CLAIM
    job_id, token = _JOB_ID.search(job), _LEASE_TOKEN.search(job)
    if job_id is None or token is None:
        raise ValueError(f"a claim's answer without id or lease_token: {job[:300]!r}")
    path = f"/jobs/{int(job_id[1])}"
    proof = {"worker_id": WORKER, "lease_token": token[1].decode()}
    for _ in range(heartbeats):
        yield Ask("heartbeat", request("POST", f"{path}/heartbeat", encode(proof)), 200)
    for _ in range(looks):
        yield Ask("look", request("GET", path, b""), 200)
    body = {**proof, "status": "succeeded", "result": RESULT}
    yield Ask("report", request("PATCH", f"{path}/status", encode(body)), 200)


def life(*, heartbeats: int = 0, looks: int = 0) -> Conversation:
    """A job from its create to its report; the claim takes the oldest, which may be another's."""
    yield from create()
    yield from claim_and_report(heartbeats=heartbeats, looks=looks)


CONVERSATIONS: dict[str, Callable[[], Conversation]] = {
    "create": create,
    "bulk 100": partial(bulk, 100),
    "bulk 1000": partial(bulk, 1_000),
    "sync 100": partial(sync, 100),
    "sync 500": partial(sync, 500),
    "claim+report": claim_and_report,
    "life": life,
    "life+heartbeat": partial(life, heartbeats=1),
    "life+heartbeat+look": partial(life, heartbeats=1, looks=1),
}
