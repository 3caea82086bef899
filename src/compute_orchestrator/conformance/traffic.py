"""What a worker and its server said to each other, as the duties speak of it.

A sync carries many messages in one HTTP exchange: here each of them is a `Call` of its own, so that
a check need not know which way a worker speaks.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, cast

T = TypeVar("T")

_HEARTBEAT = re.compile(r"/jobs/(\d+)/heartbeat")
_REPORT = re.compile(r"/jobs/(\d+)/status")
_SYNC = re.compile(r"/workers/([^/]+)/sync")


class Kind(StrEnum):
    CLAIM = "claim"
    HEARTBEAT = "heartbeat"
    REPORT = "report"


@dataclass
class Exchange:
    """One request, and its answer if the worker was given one. Times are the event loop's."""

    method: str
    path: str
    sent: Mapping[str, Any]
    at: float
    calls: "list[Call]" = field(default_factory=list["Call"])
    status: int | None = None
    problem: str = ""
    answered_at: float | None = None

    @property
    def is_sync(self) -> bool:
        return _SYNC.fullmatch(self.path) is not None

    def carries(self, kind: Kind, job_id: int | None = None) -> bool:
        return any(call.is_for(kind, job_id) for call in self.calls)


@dataclass
class Call:
    """One message of the worker: a claim, a heartbeat or a report."""

    kind: Kind
    exchange: Exchange = field(repr=False)
    sent: Mapping[str, Any]
    worker_id: str | None
    job_id: int | None = None
    status: int | None = None
    """As the server answered; of an item that it refused, the problem's."""
    answer: Mapping[str, Any] = field(default_factory=dict[str, Any])
    jobs: Sequence[Mapping[str, Any]] = ()
    """What a claim was given."""

    @property
    def at(self) -> float:
        return self.exchange.at

    @property
    def answered_at(self) -> float | None:
        return self.exchange.answered_at

    @property
    def request_id(self) -> str | None:
        return self.sent.get("request_id")

    @property
    def token(self) -> str | None:
        return self.sent.get("lease_token")

    def is_for(self, kind: Kind, job_id: int | None = None) -> bool:
        return self.kind is kind and (job_id is None or self.job_id == job_id)


class Traffic:
    """All exchanges of one worker, the oldest first."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._changed = asyncio.Event()

    def begin(self, method: str, path: str, body: bytes) -> Exchange:
        """A request came in."""
        now = asyncio.get_running_loop().time()
        exchange = Exchange(method, path, _object(body), now)
        exchange.calls = calls_of(exchange)
        self.exchanges.append(exchange)
        self._tell()
        return exchange

    def read_answer(self, exchange: Exchange, status: int, body: bytes) -> None:
        """The server answered; whether the worker hears of it is another matter."""
        answer = _object(body)
        exchange.status = status
        exchange.problem = str(answer.get("detail", "")) if status >= 400 else ""
        settle(exchange, status, answer)
        self._tell()

    def end(self, exchange: Exchange) -> None:
        """The answer is on its way to the worker."""
        exchange.answered_at = asyncio.get_running_loop().time()
        self._tell()

    def calls(self, kind: Kind, job_id: int | None = None) -> list[Call]:
        return [
            call
            for exchange in self.exchanges
            for call in exchange.calls
            if call.is_for(kind, job_id)
        ]

    def claim_of(self, job_id: int) -> Call | None:
        """The claim that brought the job last, once the worker was told."""
        told = (
            call
            for call in reversed(self.calls(Kind.CLAIM))
            if call.answered_at is not None and any(job["id"] == job_id for job in call.jobs)
        )
        return next(told, None)

    async def until(self, look: Callable[[], T], seconds: float) -> T | None:
        """What `look` finds as soon as it finds something; None when the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (found := look()):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        return None

    def _tell(self) -> None:
        self._changed.set()


def calls_of(exchange: Exchange) -> list[Call]:
    """The messages that a request carries; none where it is of no worker's."""
    sent = exchange.sent
    if found := _SYNC.fullmatch(exchange.path):
        return _calls_of_sync(exchange, found[1])
    worker_id = sent.get("worker_id")
    if exchange.path == "/jobs/claim":
        return [Call(Kind.CLAIM, exchange, sent, worker_id)]
    if found := _HEARTBEAT.fullmatch(exchange.path):
        return [Call(Kind.HEARTBEAT, exchange, sent, worker_id, int(found[1]))]
    if exchange.method == "PATCH" and (found := _REPORT.fullmatch(exchange.path)):
        return [Call(Kind.REPORT, exchange, sent, worker_id, int(found[1]))]
    return []


def _calls_of_sync(exchange: Exchange, worker_id: str) -> list[Call]:
    sent = exchange.sent
    calls = [
        Call(kind, exchange, item, worker_id, item.get("id"))
        for kind, name in ((Kind.REPORT, "reports"), (Kind.HEARTBEAT, "heartbeats"))
        for item in _objects(sent.get(name))
    ]
    if isinstance(claim := sent.get("claim"), dict):
        calls.append(Call(Kind.CLAIM, exchange, cast("dict[str, Any]", claim), worker_id))
    return calls


def settle(exchange: Exchange, status: int, answer: Mapping[str, Any]) -> None:
    """Give each message its own answer."""
    if not (exchange.is_sync and status == 200):
        for call in exchange.calls:
            call.status, call.answer = status, answer
            if call.kind is Kind.CLAIM and status == 200:
                call.jobs = [answer]
        return
    items = [*_objects(answer.get("reports")), *_objects(answer.get("heartbeats"))]
    for call in exchange.calls:
        if call.kind is Kind.CLAIM:
            call.status, call.jobs = status, _objects(answer.get("jobs"))
        elif items:
            call.answer = items.pop(0)
            call.status = (call.answer.get("problem") or {"status": status}).get("status")


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body, or an empty one: what is no JSON is the server's to refuse."""
    with suppress(ValueError):
        found = json.loads(body)
        if isinstance(found, dict):
            return cast("dict[str, Any]", found)
    return {}


def _objects(value: object) -> list[dict[str, Any]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
