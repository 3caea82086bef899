"""Any walk of calls goes as the protocol tells it: Hypothesis draws what workers, producers and
operators do while time travels, the real server does it, and a model says what must be seen then.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.api.calls import NOBODY, Json, ok, problem
from tests.api.lifecycle_model import FINAL, Job, Model, Refusal
from tests.clocks import START, ManualClock
from tests.conftest import World, running_world, settings_for
from tests.promises.records import PATHS, faults_of_trails

T = TypeVar("T")
Rule = TypeVar("Rule", bound=Callable[..., None])

MOST_JOBS = 8
REAPER_INTERVAL = 2
LEASE_SECONDS = 10

PICK = st.integers(0, 99)
"""Which one of those that are there."""
LOST = st.booleans()
"""Whether the first answer is lost on its way, so that the caller asks again."""
WORKER = st.sampled_from(["w1", "w2", "w3"])
QUEUES = st.sampled_from([["default"], ["images"], ["default", "images"], ["images", "default"]])
LENGTH = st.sampled_from([None, 6, 12])
REQUEST_ID = st.sampled_from(["r1", "r2", "r3"])
JSON = st.sampled_from([None, 0, 0.5, "half", {"done": [1, 2]}])
ERROR = st.sampled_from([None, {}, {"data": 5}])
DELAY = st.sampled_from([None, 0, 1.5, 7])
POLICY = st.sampled_from(
    [
        {"base_seconds": base, "factor": factor, "max_seconds": most, "jitter": 0}
        for base, factor, most in ((0, 1, 0), (1, 2, 3600), (3, 4, 10))
    ]
)
JOB = st.fixed_dictionaries(
    {"name": st.just("resize"), "retry": POLICY, "max_retries": st.sampled_from([1, 2, 0])},
    optional={
        "queue": st.just("images"),
        "payload": st.just({"width": 640}),
        "priority": st.sampled_from([-5, 5]),
        "lease_seconds": st.sampled_from([6, 20]),
        "timeout_seconds": st.sampled_from([5, 15.5]),
        "run_in_seconds": st.sampled_from([0, 3, 20]),
        "tags": st.just(["blue", "red"]),
    },
)
SUCCESS = st.fixed_dictionaries({"status": st.just("succeeded"), "result": JSON})
FAILURE = st.fixed_dictionaries(
    {"status": st.just("failed"), "error": ERROR},
    optional={"retryable": st.booleans(), "retry_in_seconds": DELAY},
)
RELEASE = st.fixed_dictionaries({"status": st.just("queued"), "run_in_seconds": DELAY})
OBEDIENCE = st.fixed_dictionaries({"status": st.just("cancelled")})
REPORT = st.one_of(SUCCESS, FAILURE, RELEASE, OBEDIENCE)
SIGN = st.fixed_dictionaries({"worker_id": WORKER, "progress": JSON, "checkpoint": JSON})


def picked(things: Sequence[T], pick: int) -> T:
    return things[pick % len(things)]


def when(holds: Callable[["Walk"], object]) -> Callable[[Rule], Rule]:
    """Steps that would find nothing to do are not taken."""
    return precondition(lambda walk: bool(holds(walk)))


class Walk(RuleBasedStateMachine):
    """One server on a store of its own, and the model of what it should be like."""

    def __init__(self, store_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.world = self.runner.run(self.opened(store_url))
        self.model = Model(
            datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START),
            lease_seconds=LEASE_SECONDS,
            reaper_interval=REAPER_INTERVAL,
        )
        self.leases: list[tuple[Job, str]] = []
        """Every lease that was ever told, by its token."""
        self.addressed: set[int] = set()
        """The jobs that were called about in this step."""
        self.read: dict[int, list[Json]] = {}
        """The trails, as they were read last."""

    async def opened(self, store_url: str) -> World:
        settings = settings_for(
            store_url,
            lease_seconds=LEASE_SECONDS,
            reaper_interval_seconds=REAPER_INTERVAL,
        )
        return await self.exits.enter_async_context(running_world(settings, ManualClock()))

    def teardown(self) -> None:
        with self.runner:
            self.runner.run(self.exits.aclose())

    @property
    def jobs(self) -> list[Job]:
        return list(self.model.jobs.values())

    @property
    def over(self) -> list[Job]:
        return [job for job in self.jobs if job.status in FINAL]

    @property
    def stale(self) -> list[tuple[Job, str]]:
        return [(job, token) for job, token in self.leases if token != job.lease_token]

    # How calls are sent, and what their answers are held to

    def ask(self, method: str, path: str, *, lost: bool = False, **request: Any) -> httpx.Response:
        """One call. Where its answer is lost the caller sends it once more, and that one counts."""
        for _ in range(lost):
            self.runner.run(self.world.http.request(method, path, **request))
        return self.runner.run(self.world.http.request(method, path, **request))

    def ask_about(self, job: Job, call: str, **request: Any) -> httpx.Response:
        self.addressed.add(job.id)
        return self.ask(
            "PATCH" if call == "status" else "POST", f"/jobs/{job.id}/{call}", **request
        )

    def judge(self, answer: httpx.Response, job: Job, refusal: Refusal) -> None:
        """The job as it stands, or the refusal that the model tells."""
        if refusal is None:
            assert ok(answer) == job.shown()
        else:
            problem(answer, 409, refusal)

    # Producers

    @initialize(wishes=st.lists(JOB, min_size=4, max_size=6), worker=WORKER)
    def begin(self, wishes: list[Json], worker: str) -> None:
        """Some jobs wait and some run, or the first steps would find nothing to do."""
        for wish in wishes:
            self.create(wish, keyed=False, lost=False)
        for request_id in (None, "r1", None):
            self.claim(worker, ["default", "images"], None, request_id)

    @when(lambda walk: len(walk.jobs) < MOST_JOBS)
    @rule(wishes=JOB, keyed=st.booleans(), lost=LOST)
    def create(self, wishes: Json, keyed: bool, lost: bool) -> None:
        key = f"key {len(self.jobs)}" if keyed else None
        lost = lost and keyed
        answer = self.send_create(wishes, key, lost=lost)
        job = self.model.create(len(self.jobs) + 1, wishes, key)
        assert ok(answer, 200 if lost else 201) == job.shown()

    @when(lambda walk: walk.model.keys)
    @rule(pick=PICK, changed=st.booleans())
    def create_again(self, pick: int, changed: bool) -> None:
        key = picked(list(self.model.keys), pick)
        job, wishes = self.model.keys[key]
        if changed:
            answer = self.send_create({**wishes, "priority": 1}, key)
            problem(answer, 422, "idempotency-mismatch")
        else:
            assert ok(self.send_create(wishes, key)) == job.shown()

    def send_create(self, wishes: Json, key: str | None, *, lost: bool = False) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.ask("POST", "/jobs", json=wishes, headers=headers, lost=lost)

    # Workers

    @when(lambda walk: walk.model.claimable)
    @rule(worker=WORKER, queues=QUEUES, length=LENGTH, request_id=REQUEST_ID, lost=LOST)
    def claim_repeatably(
        self, worker: str, queues: list[str], length: float | None, request_id: str, lost: bool
    ) -> None:
        self.claim(worker, queues, length, request_id, lost)

    @rule(worker=WORKER, queues=QUEUES, length=LENGTH)
    def claim(
        self,
        worker: str,
        queues: list[str],
        length: float | None,
        request_id: str | None = None,
        lost: bool = False,
    ) -> None:
        job = self.model.claim(worker, queues, length, request_id)
        body = {
            "worker_id": worker,
            "queues": queues,
            "lease_seconds": length,
            "request_id": request_id,
        }
        answer = self.ask("POST", "/jobs/claim", json=body, lost=lost)
        if job is None:
            assert answer.status_code == 204
        else:
            self.hold(job, ok(answer))

    def hold(self, job: Job, lease: Json) -> None:
        """The job that the model tells, under a token that nobody had before, or the same again."""
        token = lease.pop("lease_token")
        assert lease == job.shown()
        if job.lease_token is None:
            assert token not in [known for _, known in self.leases]
            self.leases.append((job, token))
            job.lease_token = token
        assert token == job.lease_token

    @when(lambda walk: walk.model.repeatable)
    @rule(pick=PICK, queues=QUEUES, length=LENGTH)
    def claim_again(self, pick: int, queues: list[str], length: float | None) -> None:
        job = picked(self.model.repeatable, pick)
        self.claim(job.locked_by or "", queues, length, job.request_id)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, sign=SIGN, lost=LOST)
    def beat(self, pick: int, sign: Json, lost: bool) -> None:
        job = picked(self.model.running, pick)
        self.send_beat(job, job.lease_token or "", sign, lost=lost)

    def send_beat(self, job: Job, token: str, sign: Json, *, lost: bool = False) -> None:
        refusal = self.model.heartbeat(job, token, sign["progress"], sign["checkpoint"])
        answer = self.ask_about(job, "heartbeat", json={**sign, "lease_token": token}, lost=lost)
        if refusal is None:
            names = ("id", "lease_expires_at", "cancel_requested")
            assert ok(answer) == {name: job.shown()[name] for name in names}
        else:
            body = problem(answer, 409, refusal)
            for name in ("locked_by", "locked_at", "last_heartbeat_at"):
                now = job.shown()[name] if job.running else None
                assert body["holder" if name == "locked_by" else name] == now

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, worker=WORKER, report=REPORT, lost=LOST)
    def report(self, pick: int, worker: str, report: Json, lost: bool) -> None:
        job = picked(self.model.running, pick)
        self.send_report(job, job.lease_token or "", worker, report, lost=lost)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, worker=WORKER, report=FAILURE, lost=LOST)
    def report_a_failure(self, pick: int, worker: str, report: Json, lost: bool) -> None:
        job = picked(self.model.running, pick)
        self.send_report(job, job.lease_token or "", worker, report, lost=lost)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, worker=WORKER)
    def hand_around(self, pick: int, worker: str) -> None:
        """From the third time on a job that is handed back waits."""
        job = picked(self.model.running, pick)
        for _ in range(3):
            if job.running:
                self.send_report(job, job.lease_token or "", worker, {"status": "queued"})
                self.claim(worker, [job.queue], None)

    def send_report(
        self, job: Job, token: str, worker: str, report: Json, *, lost: bool = False
    ) -> None:
        refusal = self.model.report(job, token, worker, report)
        body = {**report, "worker_id": worker, "lease_token": token}
        self.judge(self.ask_about(job, "status", json=body, lost=lost), job, refusal)

    @when(lambda walk: walk.stale)
    @rule(pick=PICK, worker=WORKER, sign=SIGN, report=REPORT)
    def use_a_stale_token(self, pick: int, worker: str, sign: Json, report: Json) -> None:
        job, token = picked(self.stale, pick)
        self.send_beat(job, token, sign)
        self.send_report(job, token, worker, report)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, other=PICK, worker=WORKER, sign=SIGN, report=REPORT)
    def use_a_foreign_token(
        self, pick: int, other: int, worker: str, sign: Json, report: Json
    ) -> None:
        job = picked(self.model.running, pick)
        token = picked([NOBODY, *(token for owner, token in self.leases if owner != job)], other)
        self.send_beat(job, token, sign)
        self.send_report(job, token, worker, report)

    # Operators

    @when(lambda walk: walk.jobs)
    @rule(pick=PICK, force=st.booleans(), lost=LOST)
    def cancel(self, pick: int, force: bool, lost: bool) -> None:
        self.send_cancel(picked(self.jobs, pick), force=force, lost=lost)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, lost=LOST)
    def ask_a_holder_to_stop(self, pick: int, lost: bool) -> None:
        self.send_cancel(picked(self.model.running, pick), force=False, lost=lost)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, worker=WORKER, report=REPORT, lost=LOST)
    def ask_a_holder_to_stop_and_hear(
        self, pick: int, worker: str, report: Json, lost: bool
    ) -> None:
        """Nothing but a success takes such a job elsewhere than to its end as cancelled."""
        job = picked(self.model.running, pick)
        self.send_cancel(job, force=False, lost=lost)
        self.send_report(job, job.lease_token or "", worker, report, lost=lost)

    def send_cancel(self, job: Job, *, force: bool, lost: bool) -> None:
        refusal = self.model.cancel(job, force=force)
        query = {"force": "true"} if force else {}
        self.judge(self.ask_about(job, "cancel", params=query, lost=lost), job, refusal)

    @when(lambda walk: walk.jobs)
    @rule(pick=PICK, again=st.booleans(), lost=LOST)
    def retry(self, pick: int, again: bool, lost: bool) -> None:
        self.send_retry(picked(self.over or self.jobs, pick), again=again, lost=lost)

    @when(lambda walk: walk.model.running)
    @rule(pick=PICK, worker=WORKER, failure=FAILURE, lost=LOST)
    def fail_and_begin_anew(self, pick: int, worker: str, failure: Json, lost: bool) -> None:
        """What the failure spent is given back, wherever it left the job."""
        job = picked(self.model.running, pick)
        self.send_report(job, job.lease_token or "", worker, failure, lost=lost)
        self.send_cancel(job, force=True, lost=lost)
        self.send_retry(job, again=False, lost=lost)

    def send_retry(self, job: Job, *, again: bool, lost: bool) -> None:
        refusal = self.model.retry(job, again=again)
        query = {"again": "true"} if again else {}
        self.judge(self.ask_about(job, "retry", params=query, lost=lost), job, refusal)

    @when(lambda walk: walk.model.claimable or walk.model.paused)
    @rule(queue=st.sampled_from(["default", "images"]), lost=LOST)
    def pause_or_resume(self, queue: str, lost: bool) -> None:
        """One queue at a time, so that there is work to be had."""
        paused = not self.model.paused
        queue = queue if paused else min(self.model.paused)
        self.model.pause(queue, paused=paused)
        answer = self.ask("PATCH", f"/queues/{queue}", json={"paused": paused}, lost=lost)
        assert ok(answer)["paused"] is paused

    # Time

    @when(lambda walk: walk.model.waiting_for_time)
    @rule(seconds=st.sampled_from([0.5, 2, 5, 9, 13]))
    def pass_time(self, seconds: float) -> None:
        taken = self.model.pass_time(seconds)
        done = self.runner.run(self.world.pass_time(seconds))
        assert (done.requeued, done.exhausted, done.cancelled) == outcomes(taken)

    @when(lambda walk: walk.model.running)
    @rule(seconds=st.sampled_from([3, 5, 30, 3600]))
    def jump(self, seconds: float) -> None:
        """Nobody was awake meanwhile: the server was down, or frozen, or the clock was moved. Over
        three seconds two passes of the reaper are no further apart than they may be.
        """
        self.model.now += timedelta(seconds=seconds)
        self.world.clock.move(seconds)
        self.runner.run(self.world.promoter.promote_once())
        self.reap()

    @when(lambda walk: walk.model.running)
    @rule(lost=LOST)
    def reap(self, lost: bool = False) -> None:
        taken = self.model.reap()
        done = ok(self.ask("POST", "/jobs/reap", lost=lost))
        if lost:
            taken.clear()  # a second pass finds nothing more
        assert (done["requeued"], done["exhausted"], done["cancelled"]) == outcomes(taken)

    # What is true after each step

    def events_of(self, job: Job) -> list[Json]:
        return ok(self.ask("GET", f"/jobs/{job.id}/events", params={"limit": 1000}))["events"]

    @invariant()
    def every_job_is_as_the_model_tells(self) -> None:
        query = {"order": "oldest", "include": ["payload", "checkpoint", "result"]}
        jobs = ok(self.ask("GET", "/jobs", params=query))["jobs"]
        for job, seen in zip(self.jobs, jobs, strict=True):
            assert seen == job.shown()
            assert seen["retry_count"] <= seen["max_retries"]

    @invariant()
    def its_trail_is_a_path_and_the_models(self) -> None:
        for job in self.jobs:
            if job.id in self.addressed or job.events != self.read.get(job.id):
                events = self.events_of(job)
                follow(events, job.status)
                self.read[job.id] = told(events, job.events)
                assert self.read[job.id] == job.events
        self.addressed.clear()

    @invariant()
    def the_store_tells_no_other_story(self) -> None:
        assert faults_of_trails(self.world.database) == []


def follow(events: Sequence[Json], end: str) -> None:
    """From its creation, step by step along the picture, to where the job stands; under one lease
    at a time, since `claim` is no step from `running`.
    """
    status = None
    for event in events:
        assert event["from_status"] == status
        status = event["to_status"]
        if event["action"] == "create":
            assert (event["from_status"], status) == (None, "queued")
        else:
            origins, ends = PATHS[event["action"]]
            assert event["from_status"] in origins.split()
            assert status in ends
    assert status == end


def told(events: Sequence[Json], expected: Sequence[Json]) -> list[Json]:
    """Of each event what the model says of it: the protocol leaves the rest open."""
    assert len(events) == len(expected)
    return [
        {name: event[name] for name in fields}
        for event, fields in zip(events, expected, strict=True)
    ]


def outcomes(taken: Counter[str]) -> tuple[int, int, int]:
    """What a pass of the reaper tells of the jobs that it took."""
    return taken["queued"], taken["exhausted"], taken["cancelled"]


# Ten walks a run: from the eleventh on Hypothesis goes ways again that it went before.
WALKS = settings(
    max_examples=10,
    stateful_step_count=35,
    deadline=None,
    print_blob=True,
    phases=(Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
FEW_WALKS = settings(WALKS, max_examples=3)
SLOW = [pytest.param(WALKS, id=f"run {number}", marks=pytest.mark.slow) for number in range(1, 9)]


@pytest.mark.timeout(400)  # a walk that fails is made shorter first, for five minutes at most
@pytest.mark.parametrize("walks", [pytest.param(FEW_WALKS, id="few"), *SLOW])
def test_every_walk_of_calls_goes_as_the_protocol_tells(
    new_store: Callable[[], str], walks: settings
) -> None:
    class WalkOnANewStore(Walk):
        def __init__(self) -> None:
            super().__init__(new_store())

    run_state_machine_as_test(WalkOnANewStore, settings=walks)
