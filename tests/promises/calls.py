"""The protocol's calls, as plain HTTP: what is sent and answered is what a worker in any language
sends and is answered.
"""

import json
from typing import Any

import httpx

from tests.promises.servers import until

Job = dict[str, Any]

OK, CREATED, NOTHING = 200, 201, 204


async def create(http: httpx.AsyncClient, **wishes: Any) -> Job:
    answer = await http.post("/jobs", json={"name": "work", **wishes})
    assert answer.status_code == CREATED, answer.text
    return answer.json()


async def claim(http: httpx.AsyncClient, worker_id: str = "w", **wishes: Any) -> Job | None:
    """A job under its lease; None where there is nothing to do."""
    answer = await http.post("/jobs/claim", json={"worker_id": worker_id, **wishes})
    if answer.status_code == NOTHING:
        return None
    return ok(answer)


async def claimed(http: httpx.AsyncClient, worker_id: str = "w", **wishes: Any) -> Job:
    """A job under its lease, as soon as there is one."""
    job = await until(lambda: claim(http, worker_id, **wishes))
    assert job is not None
    return job


async def beat(http: httpx.AsyncClient, lease: Job, **signs: Any) -> httpx.Response:
    body = {"worker_id": lease["locked_by"], "lease_token": lease["lease_token"], **signs}
    return await http.post(f"/jobs/{lease['id']}/heartbeat", json=body)


async def report(http: httpx.AsyncClient, lease: Job, status: str, **more: Any) -> httpx.Response:
    body = {
        "status": status,
        "worker_id": lease["locked_by"],
        "lease_token": lease["lease_token"],
        **more,
    }
    return await http.patch(f"/jobs/{lease['id']}/status", json=body)


async def get(http: httpx.AsyncClient, job_id: int) -> Job:
    return ok(await http.get(f"/jobs/{job_id}"))


async def operate(http: httpx.AsyncClient, job_id: int, what: str) -> Job:
    """Cancel, cancel?force=true, retry, retry?again=true."""
    return ok(await http.post(f"/jobs/{job_id}/{what}"))


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == OK, answer.text
    return answer.json()


def code(answer: httpx.Response) -> str:
    """The code of a problem, or the status of a job that was answered."""
    body = answer.json()
    return body["code"] if answer.is_error else body["status"]


def raw(method: str, path: str, body: Job) -> bytes:
    """A request as bytes, to be sent in parts or by a bare connection."""
    content = json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
