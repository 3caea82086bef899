"""Claim: queued -> running, one lease each. Holds promises 2 and 7.

The index `jobs_claimable` holds only what may be taken now, in the order in which it is taken, so
a claim is a walk along it, whatever else is delayed or finished.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from compute_orchestrator.db.clock import seconds_between
from compute_orchestrator.db.sessions import Statement, WriteSession
from compute_orchestrator.db.statements.rows import (
    CLOCK_POSTGRESQL,
    EXTENDED_LEASE_POSTGRESQL,
    EXTENDED_LEASE_SQLITE,
    JOB_COLUMNS,
    QUALIFIED_JOB_COLUMNS,
    alone_with_postgresql,
    batch,
    job_from,
)
from compute_orchestrator.domain.job import Job
from compute_orchestrator.domain.lease import ClaimRequest
from compute_orchestrator.domain.lifecycle import Action, Status, Step
from compute_orchestrator.domain.values import LeaseToken

# What of a job makes its answer long.
_BYTES_POSTGRESQL = " + ".join(
    f"coalesce(octet_length(CAST({field} AS text)), 0)"
    for field in ("payload", "checkpoint", "error")
)
_BYTES_SQLITE = " + ".join(  # characters: of ASCII that is bytes
    f"coalesce(length(head.{field}), 0)" for field in ("payload", "checkpoint", "error")
)

# The n-th job goes to the n-th slot. Each queue gives its best n, of which the best n over all are
# taken. On SQLite CROSS JOIN keeps the queues outside of the walk. On PostgreSQL others may hold
# some of them, so each queue gives `window` jobs, and those that are held are passed over, one by
# one, until there are n. `status` and `delayed` are literals: as parameters they would hide the
# index from a plan that is kept. The lock says in other words that a job is queued still: by its
# status the planner, where it has no statistics yet, would look for it in the whole backlog. The
# ANY at the end says that few are updated: a plan that is kept does not know how many `n` will be,
# and would go through the whole table for them.
CLAIM = Statement(
    sqlite=f"""
        UPDATE jobs
           SET status = 'running',
               attempt = attempt + 1,
               lease_token = pick.slot ->> 'lease_token',
               locked_by = pick.slot ->> 'worker_id',
               request_id = pick.slot ->> 'request_id',
               request_slot = pick.slot ->> 'request_slot',
               held_seconds = pick.held_seconds,
               locked_at = :now,
               last_heartbeat_at = :now,
               lease_expires_at = :now + CAST(round(pick.held_seconds * 1000000) AS INTEGER),
               updated_at = :now
          FROM (SELECT numbered.id, numbered.slot, numbered.bytes_so_far,
                       min(coalesce(numbered.slot ->> 'lease_seconds',
                                    numbered.lease_seconds, :default_lease_seconds),
                           coalesce(numbered.timeout_seconds, 1e9)) AS held_seconds
                  FROM (SELECT head.id, head.lease_seconds, head.timeout_seconds,
                               {_BYTES_SQLITE} AS bytes,
                               sum({_BYTES_SQLITE}) OVER in_line AS bytes_so_far,
                               json_extract(:slots, '$[' || (row_number() OVER in_line - 1) || ']')
                                   AS slot
                          FROM json_each(:queues) AS wanted
                         CROSS JOIN jobs AS head
                            ON head.id IN (SELECT id FROM jobs
                                            WHERE status = 'queued' AND delayed = 0
                                              AND queue = wanted.value
                                            ORDER BY priority DESC, run_at, id LIMIT :n)
                         WHERE NOT EXISTS (SELECT 1 FROM queues
                                            WHERE name = wanted.value AND paused = 1)
                        WINDOW in_line AS (ORDER BY head.priority DESC, head.run_at, head.id)
                         ORDER BY head.priority DESC, head.run_at, head.id
                         LIMIT :n) AS numbered
                 WHERE bytes_so_far - bytes < :largest) AS pick
         WHERE jobs.id = pick.id
        RETURNING {JOB_COLUMNS}
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             head AS (
            SELECT its.id
              FROM jsonb_array_elements_text(CAST(:queues AS jsonb)) AS wanted(queue)
             CROSS JOIN LATERAL (SELECT id, priority, run_at FROM jobs
                                  WHERE status = 'queued' AND delayed = 0
                                    AND jobs.queue = wanted.queue
                                  ORDER BY priority DESC, run_at, id LIMIT :window) AS its
             WHERE NOT EXISTS (SELECT 1 FROM queues WHERE name = wanted.queue AND paused = 1)
             ORDER BY its.priority DESC, its.run_at, its.id
        ),
             due AS MATERIALIZED (
            SELECT free.* FROM head
             CROSS JOIN LATERAL (SELECT id, priority, run_at, lease_seconds, timeout_seconds,
                                        {_BYTES_POSTGRESQL} AS bytes
                                   FROM jobs
                                  WHERE jobs.id = head.id AND delayed = 0
                                    AND lease_token IS NULL AND finished_at IS NULL
                                    FOR UPDATE SKIP LOCKED) AS free
             LIMIT :n
        ),
             pick AS (
            SELECT numbered.id, slot.value AS slot, numbered.bytes_so_far,
                   least(coalesce(CAST(slot.value ->> 'lease_seconds' AS float8),
                                  numbered.lease_seconds, CAST(:default_lease_seconds AS float8)),
                         numbered.timeout_seconds) AS held_seconds
              FROM (SELECT due.*,
                           row_number() OVER in_line AS n,
                           sum(bytes) OVER in_line AS bytes_so_far
                      FROM due
                    WINDOW in_line AS (ORDER BY priority DESC, run_at, id)) AS numbered
              JOIN jsonb_array_elements(CAST(:slots AS jsonb)) WITH ORDINALITY AS slot(value, n)
             USING (n)
             WHERE bytes_so_far - bytes < :largest
        )
        UPDATE jobs
           SET status = 'running',
               attempt = attempt + 1,
               lease_token = pick.slot ->> 'lease_token',
               locked_by = pick.slot ->> 'worker_id',
               request_id = pick.slot ->> 'request_id',
               request_slot = CAST(pick.slot ->> 'request_slot' AS integer),
               held_seconds = pick.held_seconds,
               locked_at = clock.now,
               last_heartbeat_at = clock.now,
               lease_expires_at = clock.now + pick.held_seconds * interval '1 second',
               updated_at = clock.now
          FROM pick, clock
         WHERE jobs.id = pick.id AND jobs.id = ANY (ARRAY(SELECT id FROM due))
        RETURNING {QUALIFIED_JOB_COLUMNS}
    """,
)

# Two copies of a request look one after the other, where there is more than one writer: else both
# find nothing, and the one that loses takes its whole batch with it.
ALONE_WITH_REQUESTS = Statement(
    sqlite="SELECT 1",
    postgresql=alone_with_postgresql(
        "'claim ' || worker_id || '/' || request_id", "worker_id text, request_id text"
    ),
)

# A repeated request finds its leases again, and counts as their heartbeat.
CLAIMED_BEFORE = Statement(
    sqlite=f"""
        UPDATE jobs
           SET lease_expires_at = {EXTENDED_LEASE_SQLITE},
               last_heartbeat_at = :now,
               updated_at = :now
         WHERE id IN (SELECT held.id
                        FROM json_each(:requests) AS request
                       CROSS JOIN jobs AS held
                          ON held.status = 'running' AND held.request_id IS NOT NULL
                         AND held.locked_by = request.value ->> 'worker_id'
                         AND held.request_id = request.value ->> 'request_id')
        RETURNING {JOB_COLUMNS}, request_id, request_slot
    """,
    postgresql=f"""
        WITH {CLOCK_POSTGRESQL},
             found AS (
            SELECT jobs.id, jobs.locked_by, jobs.request_id
              FROM jsonb_to_recordset(CAST(:requests AS jsonb))
                   AS its(worker_id text, request_id text)
              JOIN jobs ON jobs.status = 'running' AND jobs.request_id IS NOT NULL
                       AND jobs.locked_by = its.worker_id
                       AND jobs.request_id = its.request_id
             ORDER BY jobs.id
        ),
             held AS (
            SELECT mine.id FROM found
             CROSS JOIN LATERAL (SELECT id FROM jobs
                                  WHERE jobs.id = found.id AND jobs.status = 'running'
                                    AND jobs.locked_by = found.locked_by
                                    AND jobs.request_id = found.request_id
                                    FOR UPDATE) AS mine
        )
        UPDATE jobs
           SET lease_expires_at = {EXTENDED_LEASE_POSTGRESQL},
               last_heartbeat_at = clock.now,
               updated_at = clock.now
          FROM held, clock
         WHERE jobs.id = held.id AND jobs.status = 'running'
        RETURNING {QUALIFIED_JOB_COLUMNS}, jobs.request_id, jobs.request_slot
    """,
)


WINDOWS = (64, 4_096)
"""How many jobs of a queue may be held by others before the claim looks farther, or gives up."""
LARGEST_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""What one claim may bring over a network, and one job more: a slow one would never bring more."""


async def claim_jobs(
    session: WriteSession,
    requests: Sequence[ClaimRequest],
    queues: Sequence[str],
    default_lease_seconds: float,
) -> list[list[Job]]:
    """Give each request, in their order, the best jobs of these queues, at most its limit.

    `queues` has no duplicates: a queue named twice would give its jobs twice to the inner walk.
    """
    answers = [_Answer(request) for request in requests]
    windows = list(WINDOWS)
    while windows and (slots := [slot for answer in answers for slot in answer.slots_left()]):
        rows = await session.fetch(
            CLAIM,
            slots=batch(slots),
            queues=batch(queues),
            n=len(slots),
            window=len(slots) + windows[0],
            largest=LARGEST_ANSWER_BYTES,
            default_lease_seconds=default_lease_seconds,
        )
        jobs = {job.lease_token: job for job in map(job_from, rows)}
        session.record([_step(job) for job in jobs.values()])
        for answer in answers:
            answer.take(jobs)
        # An answer that is large enough only tells that there may be more. Where others may hold
        # jobs, a short one may only tell that they hold the whole window.
        if sum(map(_bytes_of, jobs.values())) < LARGEST_ANSWER_BYTES:
            if session.alone:
                break
            del windows[0]
    return [answer.jobs for answer in answers]


class _Answer:
    """What a request was given so far."""

    def __init__(self, request: ClaimRequest) -> None:
        self.jobs: list[Job] = []
        self._request = request
        self._bytes = 0
        self._asked: Sequence[LeaseToken] = ()

    def slots_left(self) -> Sequence[Mapping[str, object]]:
        """The places that are still to be filled; none once it is large enough."""
        if self._bytes >= LARGEST_ANSWER_BYTES:
            self._asked = ()
            return ()
        numbers = range(len(self.jobs), self._request.limit)
        # Random, never derived from the id, or one claimer could forge another's.
        self._asked = [LeaseToken(secrets.token_hex(16)) for _ in numbers]
        request = self._request
        return [
            {
                "worker_id": request.worker_id,
                "lease_seconds": request.lease_seconds,
                "request_id": request.request_id,
                "request_slot": None if request.request_id is None else number,
                "lease_token": token,
            }
            for number, token in zip(numbers, self._asked, strict=True)
        ]

    def take(self, jobs: Mapping[LeaseToken | None, Job]) -> None:
        """Those that came into its places: the first ones of them, since places are filled in
        their order.
        """
        for token in self._asked:
            if token in jobs:
                self.jobs.append(jobs[token])
                self._bytes += _bytes_of(jobs[token])


def _bytes_of(job: Job) -> int:
    """As the statement counts them."""
    return sum(
        len(text) if text.isascii() else len(text.encode())
        for text in (job.payload, job.checkpoint, job.error)
        if text is not None
    )


async def claimed_before(
    session: WriteSession, requests: Sequence[ClaimRequest]
) -> dict[tuple[str, str], list[Job]]:
    """The leases that these requests were given before and still hold, extended.

    Keyed by (worker_id, request_id), each in the order of its claim.
    """
    asked = batch(
        {"worker_id": request.worker_id, "request_id": request.request_id} for request in requests
    )
    if not session.alone:
        await session.fetch(ALONE_WITH_REQUESTS, its=asked)
    rows = await session.fetch(CLAIMED_BEFORE, requests=asked)
    found: dict[tuple[str, str], list[Job]] = {}
    for row in sorted(rows, key=lambda row: row[-1]):
        job = job_from(row[:-2])
        found.setdefault((job.locked_by or "", row[-2]), []).append(job)
    return found


def _step(job: Job) -> Step:
    at = job.updated_at
    return Step(
        job_id=job.id,
        queue=job.queue,
        action=Action.CLAIM,
        from_status=Status.QUEUED,
        to_status=Status.RUNNING,
        actor=job.locked_by or "",
        at=at,
        attempt=job.attempt,
        lease_token=job.lease_token,
        waited_seconds=max(0.0, seconds_between(max(job.run_at, job.created_at), at)),
    )
