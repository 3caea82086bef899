"""What a lease holder reports: how its attempt ended."""

from dataclasses import dataclass
from typing import assert_never

from compute_orchestrator.domain.lease import LeaseKey
from compute_orchestrator.domain.lifecycle import Action
from compute_orchestrator.domain.retry import Failed, Obeyed, Released
from compute_orchestrator.domain.values import JsonText


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt ended well. Nothing is left to decide."""

    result: JsonText | None = None


DecidedOutcome = Failed | Released | Obeyed
ReportedOutcome = Succeeded | DecidedOutcome


@dataclass(frozen=True, slots=True)
class Report:
    """How the attempt under this lease ended. `error` goes with a failure."""

    key: LeaseKey
    worker_id: str
    outcome: ReportedOutcome
    error: JsonText | None = None

    @property
    def action(self) -> Action:
        """The step that the trail shows for it."""
        match self.outcome:
            case Succeeded():
                return Action.SUCCEED
            case Failed():
                return Action.FAIL
            case Released():
                return Action.RELEASE
            case Obeyed():
                return Action.OBEY
            case _:
                assert_never(self.outcome)
