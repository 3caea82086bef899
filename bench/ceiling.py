"""The no-store ceiling: our endpoints' bodies and answers in plain FastAPI, and nothing behind.

Written as a good FastAPI user would write it: models for the bodies, the answer's type as the
response model, async functions. It checks its input, remembers nothing, and answers at once.
"""

import itertools
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bench.conversations import NAME, PAYLOAD, TAGS

LEASE = timedelta(seconds=60)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RetryPolicy(Body):
    base_seconds: float = 1
    factor: float = 2
    max_seconds: float = 3600
    jitter: float = 0.2


class NewJob(Body):
    name: str = Field(min_length=1, max_length=200)
    queue: str = Field(default="default", min_length=1, max_length=200)
    payload: JsonValue = None
    priority: int = Field(default=0, ge=-100, le=100)
    max_retries: int = Field(default=3, ge=0, le=1000)
    lease_seconds: float | None = Field(default=None, ge=1, le=86400)
    timeout_seconds: float | None = Field(default=None, ge=1, le=86400)
    run_at: datetime | None = Field(default=None, strict=False)
    run_in_seconds: float | None = Field(default=None, ge=0)
    tags: list[str] = Field(default=[], max_length=20)
    retry: RetryPolicy = RetryPolicy()


class NewClaim(Body):
    worker_id: str = Field(min_length=1, max_length=200)
    queues: list[str] = Field(default=["default"], min_length=1, max_length=32)
    lease_seconds: float | None = Field(default=None, ge=1, le=86400)
    request_id: str | None = Field(default=None, min_length=1, max_length=200)


class NewReport(Body):
    status: Literal["succeeded", "failed", "queued", "cancelled"]
    worker_id: str = Field(min_length=1, max_length=200)
    lease_token: str
    result: JsonValue = None
    error: dict[str, JsonValue] | None = None
    retryable: bool = True
    retry_in_seconds: float | None = Field(default=None, ge=0)
    run_in_seconds: float | None = Field(default=None, ge=0)


class Job(BaseModel):
    id: int
    queue: str = "default"
    name: str
    payload: JsonValue
    priority: int = 0
    status: Literal["queued", "running", "succeeded", "failed", "exhausted", "cancelled"]
    attempt: int = 0
    retry_count: int = 0
    max_retries: int = 3
    release_count: int = 0
    run_at: datetime
    lease_seconds: float | None = None
    timeout_seconds: float | None = None
    retry: RetryPolicy = RetryPolicy()
    locked_by: str | None = None
    locked_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    lease_expires_at: datetime | None = None
    cancel_requested: bool = False
    progress: JsonValue = None
    checkpoint: JsonValue = None
    result: JsonValue = None
    error: dict[str, JsonValue] | None = None
    tags: list[str] = []
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class ClaimedJob(Job):
    lease_token: str


app = FastAPI()
job_ids = itertools.count(1)


@app.get("/readyz")
async def readyz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/jobs", status_code=201)
async def create_job(new: NewJob, response: Response) -> Job:
    now = datetime.now(UTC)
    job = Job(
        id=next(job_ids),
        status="queued",
        run_at=now,
        created_at=now,
        updated_at=now,
        **new.model_dump(exclude={"run_at", "run_in_seconds"}),
    )
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@app.post("/jobs/claim")
async def claim_job(claim: NewClaim) -> ClaimedJob:
    now = datetime.now(UTC)
    return ClaimedJob(
        id=next(job_ids),
        name=NAME,
        payload=PAYLOAD,
        tags=TAGS,
        status="running",
        attempt=1,
        locked_by=claim.worker_id,
        locked_at=now,
        lease_expires_at=now + LEASE,
        lease_token=secrets.token_hex(16),
        run_at=now,
        created_at=now,
        updated_at=now,
    )


@app.patch("/jobs/{job_id}/status")
async def report_status(job_id: int, report: NewReport) -> Job:
    now = datetime.now(UTC)
    return Job(
        id=job_id,
        name=NAME,
        payload=PAYLOAD,
        tags=TAGS,
        status="succeeded",
        attempt=1,
        locked_by=report.worker_id,
        locked_at=now,
        result=report.result,
        run_at=now,
        created_at=now,
        updated_at=now,
        finished_at=now,
    )
