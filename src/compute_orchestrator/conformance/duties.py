"""What a worker owes, numbered along its life. docs/workers.md says the same with the reasons."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duty:
    """`name` is how everybody calls it: W1, W2, ..."""

    number: int
    title: str

    @property
    def name(self) -> str:
        return f"W{self.number}"


QUEUES = Duty(1, "It takes only from queues whose jobs it knows")
CLAIM = Duty(2, "A claim that got no answer is repeated with its request_id")
IDLE = Duty(3, "It waits for work")
UNKNOWN = Duty(4, "A job whose name it does not know goes back for later")
HEARTBEAT = Duty(5, "It heartbeats at least every third of the lease")
TOKEN = Duty(6, "Each heartbeat and report carries the lease's token")
OUTCOME = Duty(7, "It reports what came of the attempt")
REPEAT = Duty(8, "A report is repeated until it has a definite answer")
REFUSED = Duty(9, "A refused report is final")
LOST = Duty(10, "When the lease is lost it stops, and reports nothing")
CANCEL = Duty(11, "It obeys a cancel request")
PATIENCE = Duty(12, "It is patient with a server in trouble")
STOP = Duty(13, "At SIGTERM it ends in good order")
TOLERANCE = Duty(14, "It ignores fields that it does not know")
SYNC = Duty(15, "A busy worker syncs, and reads each item's own answer")

DUTIES = (
    QUEUES,
    CLAIM,
    IDLE,
    UNKNOWN,
    HEARTBEAT,
    TOKEN,
    OUTCOME,
    REPEAT,
    REFUSED,
    LOST,
    CANCEL,
    PATIENCE,
    STOP,
    TOLERANCE,
    SYNC,
)
