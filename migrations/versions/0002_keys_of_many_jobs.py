"""Keys of many jobs: a call's jobs are kept as runs of consecutive ids, a row each."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint("idempotency_keys_pkey", type_="primary")
        table.add_column(sa.Column("part", sa.Integer(), nullable=False, server_default="0"))
        table.create_primary_key("idempotency_keys_pkey", ["key", "part"])


def downgrade() -> None:
    """The store refuses it where a key has jobs in several runs: 0001 can't keep them."""
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint("idempotency_keys_pkey", type_="primary")
        table.drop_column("part")
        table.create_primary_key("idempotency_keys_pkey", ["key"])
