"""The one picture of the data: tables, checks and indexes. The statements rely on all of them.

Times are INTEGER microseconds on SQLite, whose date functions know only milliseconds. JSON is
text: it goes out as it came in. Every index is paid for on each create and each change of status,
so there are no more than these.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER by itself
Instant = BigInteger().with_variant(TIMESTAMP(timezone=True), "postgresql")
# json, not jsonb, which reorders keys and refuses \u0000.
JsonText = Text().with_variant(JSON, "postgresql")
Flag = Integer().with_variant(SmallInteger, "postgresql")

CLAIMABLE = "status = 'queued' AND delayed = 0"
DELAYED = "status = 'queued' AND delayed = 1"
RUNNING = "status = 'running'"
RUNNING_BY_REQUEST = "status = 'running' AND request_id IS NOT NULL"
FINISHED = "finished_at IS NOT NULL"

# Room in each page for the next version of its rows: without it a heartbeat moves the row, and then
# it writes to every index.
UPDATED_OFTEN = {"fillfactor": 70}
# A share of the whole table would let a long past decide how many dead versions the claim walks
# over; with these a vacuum comes after so many, however many jobs are kept.
VACUUMED_OFTEN = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 2_000,
    "autovacuum_analyze_scale_factor": 0.02,
}

STATUSES = "('queued', 'running', 'succeeded', 'failed', 'exhausted', 'cancelled')"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "pk": "%(table_name)s_pkey",
        }
    )


class JobRecord(Base):
    """One job. `lease_seconds` is its own wish, `held_seconds` the length of the present lease."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Number, Identity(), primary_key=True)
    queue: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    payload: Mapped[str | None] = mapped_column(JsonText)
    priority: Mapped[int] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(String(16))
    delayed: Mapped[int] = mapped_column(Flag)
    attempt: Mapped[int] = mapped_column(Integer)
    retry_count: Mapped[int] = mapped_column(Integer)
    max_retries: Mapped[int] = mapped_column(Integer)
    release_count: Mapped[int] = mapped_column(Integer)
    run_at: Mapped[int] = mapped_column(Instant)
    lease_seconds: Mapped[float | None] = mapped_column(Float)
    held_seconds: Mapped[float | None] = mapped_column(Float)
    timeout_seconds: Mapped[float | None] = mapped_column(Float)
    retry_base_seconds: Mapped[float] = mapped_column(Float)
    retry_factor: Mapped[float] = mapped_column(Float)
    retry_max_seconds: Mapped[float] = mapped_column(Float)
    retry_jitter: Mapped[float] = mapped_column(Float)
    locked_by: Mapped[str | None] = mapped_column(Text)
    locked_at: Mapped[int | None] = mapped_column(Instant)
    last_heartbeat_at: Mapped[int | None] = mapped_column(Instant)
    lease_expires_at: Mapped[int | None] = mapped_column(Instant)
    lease_token: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    request_slot: Mapped[int | None] = mapped_column(Integer)
    cancel_requested: Mapped[int] = mapped_column(Flag)
    progress: Mapped[str | None] = mapped_column(JsonText)
    checkpoint: Mapped[str | None] = mapped_column(JsonText)
    result: Mapped[str | None] = mapped_column(JsonText)
    error: Mapped[str | None] = mapped_column(JsonText)
    tags: Mapped[str] = mapped_column(JsonText)
    created_at: Mapped[int] = mapped_column(Instant)
    updated_at: Mapped[int] = mapped_column(Instant)
    finished_at: Mapped[int | None] = mapped_column(Instant)

    __table_args__ = (
        CheckConstraint(f"status IN {STATUSES}", name="status"),
        CheckConstraint("(status = 'running') = (lease_token IS NOT NULL)", name="token"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint("retry_count BETWEEN 0 AND max_retries", name="retries"),
        CheckConstraint("delayed = 0 OR status = 'queued'", name="delayed"),
        CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'running'))", name="finished"
        ),
        # The claim walks along this one.
        Index(
            "jobs_claimable",
            "queue",
            text("priority DESC"),
            "run_at",
            "id",
            sqlite_where=text(CLAIMABLE),
            postgresql_where=text(CLAIMABLE),
        ),
        Index("jobs_delayed", "run_at", sqlite_where=text(DELAYED), postgresql_where=text(DELAYED)),
        # Not (lease_expires_at): a heartbeat must touch no index.
        Index("jobs_running", "id", sqlite_where=text(RUNNING), postgresql_where=text(RUNNING)),
        Index(
            "jobs_request",
            "locked_by",
            "request_id",
            "request_slot",
            unique=True,
            sqlite_where=text(RUNNING_BY_REQUEST),
            postgresql_where=text(RUNNING_BY_REQUEST),
        ),
        Index(
            "jobs_finished",
            "finished_at",
            sqlite_where=text(FINISHED),
            postgresql_where=text(FINISHED),
        ),
        # Without it SQLite gives the id of a deleted job to a new one.
        {"sqlite_autoincrement": True, "postgresql_with": UPDATED_OFTEN | VACUUMED_OFTEN},
    )


class JobTagRecord(Base):
    """The index of the tags; the job's own `tags` are what is shown."""

    __tablename__ = "job_tags"
    __table_args__ = {"sqlite_with_rowid": False}

    tag: Mapped[str] = mapped_column(Text, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class JobEventRecord(Base):
    """The audit trail: one row for each change of status, pruned with its job."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(Number, Identity(), primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(16))
    from_status: Mapped[str | None] = mapped_column(String(16))
    to_status: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(Integer)
    at: Mapped[int] = mapped_column(Instant)
    lease_token: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("job_events_job", "job_id"), {"sqlite_autoincrement": True})


class IdempotencyKeyRecord(Base):
    """A key and a run of the jobs of its call, whose ids are consecutive; it goes with the last of
    them. A call's ids are one run, but where others took ids in between.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_job", "first_job_id"),)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    first_job_id: Mapped[int] = mapped_column(BigInteger)
    job_count: Mapped[int] = mapped_column(Integer)
    part: Mapped[int] = mapped_column(
        Integer, primary_key=True, autoincrement=False, server_default="0"
    )


class StatDeltaRecord(Base):
    """Counts not folded yet: one row a transaction, queue and move. Never updated, so no lock."""

    __tablename__ = "stat_deltas"
    __table_args__ = {"postgresql_with": VACUUMED_OFTEN}  # each row lives for a minute

    id: Mapped[int] = mapped_column(Number, Identity(), primary_key=True)
    at: Mapped[int] = mapped_column(Instant)
    queue: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(16))
    from_place: Mapped[str] = mapped_column(String(16))
    to_place: Mapped[str] = mapped_column(String(16))
    count: Mapped[int] = mapped_column(BigInteger)
    waited_seconds: Mapped[float] = mapped_column(Float)
    ran_seconds: Mapped[float] = mapped_column(Float)


class StatRecord(Base):
    """The folded counts. A read adds the deltas."""

    __tablename__ = "stats"
    __table_args__ = {"sqlite_with_rowid": False}

    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    action: Mapped[str] = mapped_column(String(16), primary_key=True)
    from_place: Mapped[str] = mapped_column(String(16), primary_key=True)
    to_place: Mapped[str] = mapped_column(String(16), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)
    waited_seconds: Mapped[float] = mapped_column(Float)
    ran_seconds: Mapped[float] = mapped_column(Float)


class WorkerRecord(Base):
    """When a worker was last seen. What it runs is read from the jobs."""

    __tablename__ = "workers"

    worker_id: Mapped[str] = mapped_column(Text, primary_key=True)
    last_seen_at: Mapped[int] = mapped_column(Instant)
    about: Mapped[str | None] = mapped_column(JsonText)


class QueueRecord(Base):
    """A queue on which something is set; all others need no row."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    paused: Mapped[int] = mapped_column(Flag)


class WatchRecord(Base):
    """One row: since when the reaper has been awake without a gap, and its last pass."""

    __tablename__ = "watch"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    since: Mapped[int] = mapped_column(Instant)
    last_pass_at: Mapped[int] = mapped_column(Instant)
