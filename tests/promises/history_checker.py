"""The checker of histories: what contradicts the promises in a run whose jobs all came to an end.
Pure, and ignorant of how the server works: it compares what callers were told with what stands in
the store, and both with the table of moves.

A lease is certainly held from the `locked_at` that was answered to the latest `lease_expires_at`
that was answered, or to the moment in which its first report was sent. A call that got no answer,
or 503, may have had its effect or not, and late.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import Any, Final

from compute_orchestrator.domain.lifecycle import FINAL, Action, Status, allows
from tests.promises.evidence import REPORTED, Evidence, Lease, StoredJob, action
from tests.promises.history import Call
from tests.promises.records import Event, micros

Faults = Iterator[str]

ANSWERS: Final = {
    "create": {200, 201, 503},
    "claim": {200, 204, 503},
    "heartbeat": {200, 409, 503},
    "report": {200, 409, 503},
    "cancel": {200, 409, 503},
    "force": {200, 409, 503},
}


def faults(evidence: Evidence) -> list[str]:
    """Each fault as a sentence; none, if the promises held."""
    return [fault for rule in RULES for fault in rule(evidence)]


def clock_never_went_back(evidence: Evidence) -> Faults:
    """Else no time in the history means anything."""
    for by, calls in groupby(evidence.calls, lambda call: call.by):
        times = [at for call in calls for at in (call.sent, call.answered) if at is not None]
        if times != sorted(times):
            yield f"the clock went back while {by} looked"


def every_answer_is_one_of_the_protocol(evidence: Evidence) -> Faults:
    for call in evidence.calls:
        if call.status is not None and call.status not in ANSWERS[call.ask.kind]:
            yield f"{call.by} was answered {call.status}: {call}"


def each_key_made_one_job(evidence: Evidence) -> Faults:
    """Promises 1 and 8: what was answered exists, once; and nothing that nobody asked for."""
    by_key: defaultdict[str | None, list[Call]] = defaultdict(list)
    for call in evidence.of("create"):
        by_key[call.ask.key].append(call)
    for key, calls in by_key.items():
        told = {call.answer["id"] for call in calls if call.taken}
        if len(told) > 1 or [call.status for call in calls].count(201) > 1:
            yield f"{key} was created more than once: {sorted(told)}"
        for job_id in told - evidence.jobs.keys():
            yield f"job {job_id}: was answered to {key}, and is gone"
    owners: dict[str | None, int] = {}
    for job in evidence.jobs.values():
        key = _json(job.payload)
        if key not in by_key:
            yield f"job {job.id}: nobody created it"
        elif owners.setdefault(key, job.id) != job.id:
            yield f"job {job.id}: {key} had made job {owners[key]} before"
        else:
            yield from _create_in_its_time(evidence.trails[job.id], by_key[key])
        if any(call.taken and call.answer["id"] != job.id for call in by_key[key]):
            yield f"job {job.id}: was made by {key}, which was answered another one"


def _create_in_its_time(trail: list[Event], calls: list[Call]) -> Faults:
    answered = [call.answered for call in calls if call.taken and call.answered is not None]
    sent = min(call.sent for call in calls)
    if trail and not sent <= trail[0].at <= min(answered, default=trail[0].at):
        yield f"job {trail[0].job_id}: was created before it was sent, or after it was answered"


def each_trail_is_a_path_to_the_end(evidence: Evidence) -> Faults:
    """Promises 5 and 6."""
    for job_id in evidence.trails.keys() - evidence.jobs.keys():
        yield f"job {job_id}: has a trail and no row"
    for job in evidence.jobs.values():
        trail = evidence.trails[job.id]
        if job.status not in FINAL:
            yield f"job {job.id}: is {job.status} in the end"
        if not trail or trail[-1].to_status != job.status:
            yield f"job {job.id}: is {job.status}, and its trail does not end there"
        yield from (f"job {job.id}: {fault}" for fault in _path(trail))
        yield from (f"job {job.id}: {fault}" for fault in _counts(job, trail))


def _path(trail: list[Event]) -> Faults:
    place, token, at = None, None, 0
    for event in trail:
        origin = None if event.from_status is None else Status(event.from_status)
        if event.from_status != place:
            yield f"{event.action} starts from {event.from_status}, but it was {place}"
        if not allows(origin, Action(event.action), Status(event.to_status)):
            yield f"{event.action} from {event.from_status} to {event.to_status} is no move"
        if origin is Status.RUNNING and event.lease_token != token:
            yield f"{event.action} ends the lease {event.lease_token}, but {token} was held"
        if event.at < at:
            yield f"{event.action} is earlier than the step before it"
        place, at = event.to_status, event.at
        token = event.lease_token if event.action == Action.CLAIM else None


def _counts(job: StoredJob, trail: list[Event]) -> Faults:
    attempt = retries = 0
    for event in trail:
        attempt += event.action == Action.CLAIM
        if event.attempt != attempt:
            yield f"{event.action} counts attempt {event.attempt}, after {attempt} claims"
        if event.action in ("fail", "lose"):
            retries += event.to_status == Status.QUEUED
            if event.to_status == Status.EXHAUSTED and retries < job.max_retries:
                yield f"exhausted after {retries} retries of {job.max_retries}"
    if job.attempt != attempt:
        yield f"counts {job.attempt} attempts, after {attempt} claims"
    if job.retry_count != retries or retries > job.max_retries:
        yield f"counts {job.retry_count} retries of {job.max_retries}, its trail {retries}"


def leases_begin_as_answered(evidence: Evidence) -> Faults:
    """Promise 2, seen from the claims."""
    for lease in evidence.leases:
        if len(lease.begins) != 1:
            yield f"{lease} begins {len(lease.begins)} times in the trail"
            continue
        (begin,) = lease.begins
        for call in lease.claims:
            told = call.answer
            if (told["id"], told["attempt"], told["locked_by"], micros(told["locked_at"])) != (
                *(begin.job_id, begin.attempt, begin.actor, begin.at),
            ):
                yield f"{lease} is another one than was answered: {call}"
        if not _asked(evidence.may_have_begun(lease), begin):
            yield f"{lease} began, and nobody had asked for it"


def heartbeats_are_true(evidence: Evidence) -> Faults:
    """Promise 3: taken while the lease is held, refused after; and as long as was asked for."""
    for lease in evidence.leases:
        end = lease.ends[0].at if lease.ends else None
        for call in lease.beats:
            if call.taken and end is not None and end < call.sent:
                yield f"{lease} had ended, and a heartbeat was taken: {call}"
            if call.refused and (end is None or end > (call.answered or 0)):
                yield f"{lease} was held, and a heartbeat was refused: {call}"
        length = evidence.length(lease)
        for call in [*lease.claims, *(beat for beat in lease.beats if beat.taken)]:
            since = micros(call.answer["locked_at"]) if call in lease.claims else call.sent
            if micros(call.answer["lease_expires_at"]) < since + length:
                yield f"{lease} is shorter than was asked for: {call}"


def reports_are_true(evidence: Evidence) -> Faults:
    """Promises 3 and 8: taken once, and told so each time; refused where the lease was lost."""
    for lease in evidence.leases:
        if len(lease.ends) > 1:
            yield f"{lease} ends {len(lease.ends)} times: {[end.action for end in lease.ends]}"
        end = lease.ends[0] if lease.ends else None
        for call in lease.reports:
            same = end is not None and end.action == action(call)
            in_time = end is not None and end.at <= (call.answered or end.at)
            if call.taken and not (same and in_time):
                yield f"{lease} has a report that was taken and is not in the trail: {call}"
            if call.refused and end and same and end.at < call.sent:
                yield f"{lease} was reported, and that was refused later: {call}"
            lost = call.refused and call.answer["code"] == "lease-lost"
            if lost and not (end and in_time and end.action not in REPORTED):
                yield f"{lease} was not lost, and a report was told so: {call}"


def leases_end_for_a_reason(evidence: Evidence) -> Faults:
    """Promises 4 and 9: reported, handed back, cancelled by force, or its time was over."""
    for lease in evidence.leases:
        for end in lease.ends[:1]:
            if end.action == Action.LOSE:
                yield from _lost_in_its_time(evidence, lease, end)
            elif not _asked(evidence.may_have_ended(lease), end):
                yield f"{lease} ends by {end.action}, which nobody asked for"
            cancels = evidence.about(end.job_id, "cancel", "force")
            if end.action == Action.OBEY and not _asked(cancels, end):
                yield f"{lease} obeys, and nobody had asked to cancel"


def _lost_in_its_time(evidence: Evidence, lease: Lease, end: Event) -> Faults:
    length = evidence.length(lease)
    begin = lease.begins[0].at if lease.begins else 0
    until = max(lease.told_until, begin + length)
    if end.at < until:
        yield f"{lease} was taken {(until - end.at) / 1e6} s early"
    for outage in evidence.outages:
        if outage.since <= end.at < outage.until + length:
            late = (end.at - outage.until) / 1e6
            yield f"{lease} was taken {late} s after the store was back: less than its length"


def cancels_are_kept(evidence: Evidence) -> Faults:
    """One-way: a job that is asked to stop is not run again."""
    for call in evidence.of("cancel", "force"):
        job = evidence.jobs.get(call.ask.job_id or 0)
        if job is None or call.status not in (200, 409):
            continue
        ends = {"cancelled"} if call.status == 200 else FINAL - {"cancelled"}
        if call.taken and call.ask.kind == "cancel" and call.answer["status"] == "running":
            ends = {"cancelled", "succeeded"}
        later = [step for step in evidence.trails[job.id] if step.at > (call.answered or 0)]
        if job.status not in ends or any(step.action == Action.CLAIM for step in later):
            yield f"job {job.id}: is {job.status}, against what its cancel was answered: {call}"
    for trail in evidence.trails.values():
        for event in trail:
            if (event.from_status, event.action) == (Status.QUEUED, Action.CANCEL):
                if not _asked(evidence.about(event.job_id, "cancel", "force"), event):
                    yield f"job {event.job_id}: nobody asked to cancel it"
            elif event.action == Action.RETRY:
                yield f"job {event.job_id}: nobody asked to retry it"


def no_two_leases_overlap(evidence: Evidence) -> Faults:
    """Promise 2, as the holders were told, whatever stands in the trail."""
    told: defaultdict[int | None, list[tuple[int, int, Lease]]] = defaultdict(list)
    for lease in evidence.leases:
        if lease.claims:
            begin = micros(lease.claims[0].answer["locked_at"])
            let_go = [call.sent for call in lease.reports]
            told[lease.job_id].append((begin, min([lease.told_until, *let_go]), lease))
    for held in told.values():
        for (_, until, one), (begin, _, other) in pairwise(sorted(held, key=lambda it: it[0])):
            if begin < until:
                yield f"{other} began {(until - begin) / 1e6} s before the end of {one.token[:8]}"


def what_was_refused_left_no_trace(evidence: Evidence) -> Faults:
    """Promise 3: the result is the reported one, the checkpoint is one that was not refused."""
    written: defaultdict[int | None, set[Any]] = defaultdict(set)
    for call in evidence.of("heartbeat"):
        if not call.refused:
            written[call.ask.job_id].add(call.ask.body["checkpoint"])
    results = {
        (lease.ends[0].job_id, call.ask.body.get("result"))
        for lease in evidence.leases
        for call in lease.reports
        if lease.ends and not call.refused and call.ask.body["status"] == "succeeded"
    }
    for job in evidence.jobs.values():
        if job.checkpoint is not None and _json(job.checkpoint) not in written[job.id]:
            yield f"job {job.id}: nobody's heartbeat left its checkpoint {job.checkpoint}"
        if job.status == "succeeded" and (job.id, _json(job.result)) not in results:
            yield f"job {job.id}: nobody reported its result {job.result}"


def _asked(calls: list[Call], step: Event) -> bool:
    """Whether one of these calls may have made this step."""
    return any(not call.refused and call.sent <= step.at for call in calls)


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


RULES: Final[tuple[Callable[[Evidence], Faults], ...]] = (
    clock_never_went_back,
    every_answer_is_one_of_the_protocol,
    each_key_made_one_job,
    each_trail_is_a_path_to_the_end,
    leases_begin_as_answered,
    heartbeats_are_true,
    reports_are_true,
    leases_end_for_a_reason,
    cancels_are_kept,
    no_two_leases_overlap,
    what_was_refused_left_no_trace,
)
