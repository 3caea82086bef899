"""Every ORC_ setting, once: its name, its unit, its default, and why."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB


class Settings(BaseSettings):
    """Read from the environment, each with the prefix ORC_."""

    model_config = SettingsConfigDict(env_prefix="ORC_", extra="ignore", frozen=True)

    database_url: str = Field(
        default="sqlite+aiosqlite:///orc.db", description="Where the store is: an SQLAlchemy URL."
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names, besides loopback, by which the server may be called, with commas.",
    )
    insecure_open: bool = Field(
        default=False,
        description="Let any peer call, not only this machine. There are no keys yet: only inside "
        "a private network.",
    )
    sqlite_synchronous: Literal["FULL", "NORMAL", "EXTRA", "OFF"] = Field(
        default="FULL",
        description="How SQLite syncs a commit. Below FULL a power cut loses acknowledged jobs.",
    )
    sqlite_readers: int = Field(
        default=4, ge=1, le=64, description="Connections that read an SQLite file."
    )
    postgres_pool_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Connections of each server to PostgreSQL; one more carries messages.",
    )
    lease_seconds: float = Field(
        default=60,
        ge=1,
        le=86_400,
        description="A lease's length where neither claim nor job says one.",
    )
    reaper_interval_seconds: float = Field(
        default=2,
        gt=0,
        le=3600,
        description="Time between two passes of the reaper. A living worker is safe over any gap "
        "if its lease is at least three of them.",
    )
    retention_seconds: float | None = Field(
        default=None, ge=0, description="How long finished jobs are kept; off keeps them for ever."
    )
    max_body_bytes: int = Field(default=16 * MIB, ge=1, description="The largest request body.")
    max_payload_bytes: int = Field(
        default=1 * MIB, ge=1, description="The largest payload of a job."
    )
    max_result_bytes: int = Field(default=1 * MIB, ge=1, description="The largest result of a job.")
    max_checkpoint_bytes: int = Field(
        default=256 * KIB, ge=1, description="The largest checkpoint."
    )
    max_error_bytes: int = Field(default=64 * KIB, ge=1, description="The largest error.")
    max_progress_bytes: int = Field(default=16 * KIB, ge=1, description="The largest progress.")
    max_waiting_calls: int = Field(
        default=2_000,
        ge=1,
        description="Calls that may wait for the store before new ones get 503.",
    )
    max_waiting_seconds: float = Field(
        default=5,
        gt=0,
        description="How old the oldest waiting call may be before new ones get 503.",
    )
    receive_timeout_seconds: float = Field(
        default=30, gt=0, description="How long a request's body may take to arrive."
    )
    shutdown_seconds: float = Field(
        default=10, ge=0, description="How long open requests may take to end at shutdown."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe line that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="How a log line is written."
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip().lower() for name in value.split(",") if name.strip())
        return value

    @field_validator("retention_seconds", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if value in ("", "off") else value

    @field_validator("sqlite_synchronous", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value
