"""The checks, by the part of a worker's life that they are about. A duty may have two."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from compute_orchestrator.conformance import duties
from compute_orchestrator.conformance.checks import claims, leases, reports, stopping, trouble
from compute_orchestrator.conformance.duties import Duty
from compute_orchestrator.conformance.stage import Stage


@dataclass(frozen=True, slots=True)
class Check:
    """`run` returns where the duty was done, and raises Failed or NotTested."""

    duty: Duty
    run: Callable[[Stage], Awaitable[None]]


# The longest first: they are done side by side.
CHECKS = (
    Check(duties.STOP, stopping.ends_in_good_order_while_busy),
    Check(duties.STOP, stopping.ends_in_good_order_with_a_claim_on_its_way),
    Check(duties.PATIENCE, trouble.is_patient),
    Check(duties.LOST, leases.stops_when_the_lease_is_lost),
    Check(duties.HEARTBEAT, leases.heartbeats_in_time),
    Check(duties.REPEAT, reports.repeats_until_answered),
    Check(duties.CANCEL, leases.obeys_a_cancel),
    Check(duties.REFUSED, reports.takes_a_refusal_as_final),
    Check(duties.TOKEN, leases.carries_the_token),
    Check(duties.IDLE, claims.waits_for_work),
    Check(duties.CLAIM, claims.repeats_a_claim_that_was_not_answered),
    Check(duties.TOLERANCE, trouble.ignores_unknown_fields),
    Check(duties.QUEUES, claims.takes_only_from_its_queues),
    Check(duties.UNKNOWN, claims.hands_back_unknown_names),
    Check(duties.OUTCOME, reports.says_what_came_out),
    Check(duties.SYNC, reports.reads_each_answer_of_a_sync),
)
