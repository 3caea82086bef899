"""The protocol, call by call: each helper sends one request and holds its answer to the status."""

from typing import Any

import httpx

Json = dict[str, Any]
JSON = {"Content-Type": "application/json"}
NOBODY = "0" * 32
"""A lease token that was never given out."""


class Api:
    """Calls that are meant to be taken. A test of a refusal sends its request itself."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def create(self, name: str = "resize", **fields: Any) -> Json:
        return ok(await self.http.post("/jobs", json={"name": name, **fields}), 201)

    async def claim(self, worker_id: str = "w", **fields: Any) -> Json:
        return ok(await self.try_claim(worker_id, **fields))

    async def try_claim(self, worker_id: str = "w", **fields: Any) -> httpx.Response:
        return await self.http.post("/jobs/claim", json={"worker_id": worker_id, **fields})

    async def nothing_to_claim(self, worker_id: str = "w", **fields: Any) -> bool:
        answer = await self.try_claim(worker_id, **fields)
        assert answer.status_code in (200, 204)
        return answer.status_code == 204

    async def started(self, **fields: Any) -> Json:
        """A job that was created and is running now: what the claim answered."""
        job = await self.create(**fields)
        lease = await self.claim(queues=[job["queue"]])
        assert lease["id"] == job["id"]
        return lease

    async def try_beat(self, lease: Json, **fields: Any) -> httpx.Response:
        return await self.http.post(
            f"/jobs/{lease['id']}/heartbeat", json={**proof(lease), **fields}
        )

    async def beat(self, lease: Json, **fields: Any) -> Json:
        return ok(await self.try_beat(lease, **fields))

    async def try_report(self, lease: Json, status: str, **fields: Any) -> httpx.Response:
        return await self.http.patch(
            f"/jobs/{lease['id']}/status", json={"status": status, **proof(lease), **fields}
        )

    async def report(self, lease: Json, status: str, **fields: Any) -> Json:
        return ok(await self.try_report(lease, status, **fields))

    async def cancel(self, job: Json, *, force: bool = False) -> Json:
        query = {"force": "true"} if force else {}
        return ok(await self.http.post(f"/jobs/{job['id']}/cancel", params=query))

    async def retry(self, job: Json, *, again: bool = False) -> Json:
        query = {"again": "true"} if again else {}
        return ok(await self.http.post(f"/jobs/{job['id']}/retry", params=query))

    async def get(self, job: Json) -> Json:
        return ok(await self.http.get(f"/jobs/{job['id']}"))

    async def jobs(self, **query: Any) -> list[Json]:
        return ok(await self.http.get("/jobs", params=query))["jobs"]

    async def events(self, job: Json) -> list[Json]:
        return ok(await self.http.get(f"/jobs/{job['id']}/events", params={"limit": 1000}))[
            "events"
        ]

    async def actions(self, job: Json) -> list[str]:
        return [event["action"] for event in await self.events(job)]

    async def pause(self, queue: str, *, paused: bool = True) -> Json:
        return ok(await self.http.patch(f"/queues/{queue}", json={"paused": paused}))


def proof(lease: Json) -> Json:
    """What a holder shows. The claimer is read from the job."""
    return {"worker_id": lease["locked_by"], "lease_token": lease["lease_token"]}


def told(answer: httpx.Response) -> str:
    """What was asked and what came, for a test that fails in the middle of many requests."""
    asked = answer.request
    return f"{asked.method} {asked.url} {asked.content[:200]!r} -> {answer.text}"


def ok(answer: httpx.Response, status: int = 200) -> Json:
    """The JSON of an answer with this status."""
    assert answer.status_code == status, told(answer)
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def problem(answer: httpx.Response, status: int, code: str) -> Json:
    """The problem of an answer with this status and code, in the shape of RFC 9457."""
    assert answer.status_code == status, told(answer)
    assert answer.headers["content-type"] == "application/problem+json"
    body: Json = answer.json()
    assert body["status"] == status
    assert body["code"] == code
    for member in ("type", "title", "detail"):
        assert isinstance(body[member], str)
        assert body[member]
    assert code in body["type"]
    return body


def refused(answer: httpx.Response) -> Json:
    """The problem of a request that is not valid, which says where and what."""
    body = problem(answer, 422, "validation-error")
    assert body["errors"]
    for fault in body["errors"]:
        assert set(fault) == {"where", "what"}
        assert all(isinstance(word, str) and word for word in fault.values())
    return body


def places(body: Json) -> set[str]:
    """Where a problem says that the request is wrong."""
    return {fault["where"] for fault in body["errors"]}
