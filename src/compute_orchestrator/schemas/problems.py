"""RFC 9457 problems on the wire."""

from pydantic import ConfigDict, Field

from compute_orchestrator.schemas.values import Output, ShownMoment


class FaultOutput(Output):
    where: str = Field(examples=["body.queue"])
    what: str = Field(examples=["must have 1 to 200 bytes"])


class ProblemOutput(Output):
    """What went wrong. `code` is stable; `detail` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:compute-orchestrator:problem:job-not-found",
                    "title": "There is no such job",
                    "status": 404,
                    "detail": "There is no job 17.",
                    "code": "job-not-found",
                }
            ]
        }
    )

    type: str
    title: str
    status: int = Field(description="The HTTP status.")
    detail: str
    code: str
    errors: list[FaultOutput] | None = Field(None, description="With validation-error.")
    job_status: str | None = Field(None, description="With invalid-transition: where it stands.")
    holder: str | None = Field(None, description="With lease-lost: who holds the job now.")
    locked_at: ShownMoment | None = Field(None, description="With lease-lost.")
    last_heartbeat_at: ShownMoment | None = Field(None, description="With lease-lost.")
