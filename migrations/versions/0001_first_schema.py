"""The first schema: jobs, their tags, events and keys; counters, workers, queues, the watch."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
JSON_TEXT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
FLAG = sa.Integer().with_variant(sa.SmallInteger(), "postgresql")

# See db/models.py: room for the next version of a row, and a vacuum that does not wait for a share
# of a long past.
UPDATED_OFTEN = {"fillfactor": 70}
VACUUMED_OFTEN = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_threshold": 2_000,
    "autovacuum_analyze_scale_factor": 0.02,
}


def where(condition: str) -> dict[str, Any]:
    """A partial index, on either store."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.String(length=64), nullable=False),
        sa.Column("first_job_id", sa.BigInteger(), nullable=False),
        sa.Column("job_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("idempotency_keys_pkey")),
    )
    op.create_index("idempotency_keys_job", "idempotency_keys", ["first_job_id"])
    op.create_table(
        "job_events",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("from_status", sa.String(length=16), nullable=True),
        sa.Column("to_status", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("job_events_pkey")),
        sqlite_autoincrement=True,
    )
    op.create_index("job_events_job", "job_events", ["job_id"])
    op.create_table(
        "job_tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("tag", "job_id", name=op.f("job_tags_pkey")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jobs",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("payload", JSON_TEXT, nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("delayed", FLAG, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("release_count", sa.Integer(), nullable=False),
        sa.Column("run_at", INSTANT, nullable=False),
        sa.Column("lease_seconds", sa.Float(), nullable=True),
        sa.Column("held_seconds", sa.Float(), nullable=True),
        sa.Column("timeout_seconds", sa.Float(), nullable=True),
        sa.Column("retry_base_seconds", sa.Float(), nullable=False),
        sa.Column("retry_factor", sa.Float(), nullable=False),
        sa.Column("retry_max_seconds", sa.Float(), nullable=False),
        sa.Column("retry_jitter", sa.Float(), nullable=False),
        sa.Column("locked_by", sa.Text(), nullable=True),
        sa.Column("locked_at", INSTANT, nullable=True),
        sa.Column("last_heartbeat_at", INSTANT, nullable=True),
        sa.Column("lease_expires_at", INSTANT, nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("request_slot", sa.Integer(), nullable=True),
        sa.Column("cancel_requested", FLAG, nullable=False),
        sa.Column("progress", JSON_TEXT, nullable=True),
        sa.Column("checkpoint", JSON_TEXT, nullable=True),
        sa.Column("result", JSON_TEXT, nullable=True),
        sa.Column("error", JSON_TEXT, nullable=True),
        sa.Column("tags", JSON_TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'running'))",
            name=op.f("jobs_finished_check"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)",
            name=op.f("jobs_lease_check"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)",
            name=op.f("jobs_token_check"),
        ),
        sa.CheckConstraint("delayed = 0 OR status = 'queued'", name=op.f("jobs_delayed_check")),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'exhausted', 'cancelled')",
            name=op.f("jobs_status_check"),
        ),
        sa.CheckConstraint(
            "retry_count BETWEEN 0 AND max_retries", name=op.f("jobs_retries_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        sqlite_autoincrement=True,
        postgresql_with=UPDATED_OFTEN | VACUUMED_OFTEN,
    )
    op.create_index(
        "jobs_claimable",
        "jobs",
        ["queue", sa.text("priority DESC"), "run_at", "id"],
        **where("status = 'queued' AND delayed = 0"),
    )
    op.create_index(
        "jobs_delayed", "jobs", ["run_at"], **where("status = 'queued' AND delayed = 1")
    )
    op.create_index("jobs_finished", "jobs", ["finished_at"], **where("finished_at IS NOT NULL"))
    op.create_index(
        "jobs_request",
        "jobs",
        ["locked_by", "request_id", "request_slot"],
        unique=True,
        **where("status = 'running' AND request_id IS NOT NULL"),
    )
    op.create_index("jobs_running", "jobs", ["id"], **where("status = 'running'"))
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused", FLAG, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("queues_pkey")),
    )
    op.create_table(
        "stat_deltas",
        sa.Column("id", NUMBER, sa.Identity(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("from_place", sa.String(length=16), nullable=False),
        sa.Column("to_place", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("waited_seconds", sa.Float(), nullable=False),
        sa.Column("ran_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("stat_deltas_pkey")),
        postgresql_with=VACUUMED_OFTEN,
    )
    op.create_table(
        "stats",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("from_place", sa.String(length=16), nullable=False),
        sa.Column("to_place", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("waited_seconds", sa.Float(), nullable=False),
        sa.Column("ran_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "queue", "action", "from_place", "to_place", name=op.f("stats_pkey")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "watch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("last_pass_at", INSTANT, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("watch_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("watch_pkey")),
    )
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("about", JSON_TEXT, nullable=True),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("workers_pkey")),
    )


def downgrade() -> None:
    for table in (
        "workers",
        "watch",
        "stats",
        "stat_deltas",
        "queues",
        "jobs",
        "job_tags",
        "job_events",
        "idempotency_keys",
    ):
        op.drop_table(table)
