"""`orc submit --file`: each line becomes a job, in bulk calls that can be repeated.

A call's idempotency key is made of the batch's name and of how many jobs come before it. So a
repeat finds what was made before, whatever cut it off. What is in the call is not in its key, on
purpose: under one name a changed line is refused by the server, where another key would make its
jobs a second time. Without a name the batch is called by the SHA-256 of the file.
"""

import hashlib
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, Final, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from compute_orchestrator.cli import output
from compute_orchestrator.cli.bar import Bar
from compute_orchestrator.cli.connection import LONG_PATIENCE_SECONDS, ask
from compute_orchestrator.cli.exits import CONFLICT, INTERRUPTED, MISUSED, ending_of, stop
from compute_orchestrator.cli.values import STDIN, moment_of, parse_json
from compute_orchestrator.client import ClientError, NewJob
from compute_orchestrator.client.jobs import JobOptions
from compute_orchestrator.client.models import Json

if TYPE_CHECKING:
    from compute_orchestrator.client import OrchestratorClient

# Of one call. The first is the protocol's; the second is half of what a server takes by default.
# Both are part of what a key stands for: with others, a repeat would not find what was made.
MOST_JOBS: Final = 1_000
MOST_BYTES: Final = 8 * 1024 * 1024

PART_BYTES: Final = 1024 * 1024

FIELDS: Final = frozenset({"name", "payload", *JobOptions.__annotations__})

_FULL_STOP: Final = re.compile(r"(?<=[\w)])\.$")
_ITEM: Final = re.compile(r"(?:^|(?<=; ))jobs\.(\d+)(?:\.|: )")


class BadLine(Exception):
    """A line that is no job; the words say which and why."""


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: bytes

    def job(self) -> NewJob:
        """Raises BadLine."""
        try:
            return job_of(parse_json(self.text))
        except ValueError as error:
            raise BadLine(f"line {self.number}: {error}") from None


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a file once it was read and checked."""

    jobs: int
    sha256: str


@dataclass(slots=True)
class Batch:
    """What became of it so far."""

    name: str
    jobs: int
    made: int = 0
    already_there: int = 0
    sent: int = 0
    """Lines that were answered. A job that was deleted since has no id any more."""
    ids: list[int] = field(default_factory=list[int])

    def next_key(self) -> str:
        """Of the call that comes after those that were answered."""
        name = hashlib.sha256(self.name.encode()).hexdigest()
        return f"batch-{name}-after-{self.sent}"

    def add(
        self, made: "list[tuple[int, datetime | None]]", started: datetime, *, sent: int
    ) -> None:
        """Jobs that are older than this run were made by one before."""
        self.sent += sent
        self.already_there += sent - len(made)
        for job_id, created_at in made:
            self.ids.append(job_id)
            if created_at is not None and created_at < started:
                self.already_there += 1
            else:
                self.made += 1


class SubmitView(Bar):
    """How far it is, on standard error."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        super().__init__(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True, highlight=False, quiet=quiet),
        )

    def show(self, batch: Batch) -> None:
        words = f"jobs, {batch.already_there:,} there already" if batch.already_there else "jobs"
        if self.move(done=batch.sent, total=batch.jobs, words=words):
            self.say(f"{batch.sent:,} of {batch.jobs:,} {words}")


def submit_file(path: str, name: str | None, *, as_json: bool, url: str | None) -> None:
    """The whole command, from the file to the last word."""
    with open_source(path) as source:
        try:
            survey = look_through(source)
        except BadLine as error:
            stop(f"{error}; nothing was made", code=MISUSED)
        batch = Batch(name or survey.sha256, survey.jobs)
        view = SubmitView(quiet=as_json)
        try:
            with view:
                ask(
                    url,
                    lambda client: create_all(client, source, batch, view),
                    patience_seconds=LONG_PATIENCE_SECONDS,
                )
        except BadLine as error:
            stop(f"the file was changed meanwhile: {error}; {how_to_go_on(batch, path, MISUSED)}")
        except KeyboardInterrupt:
            stop(f"stopped; {how_to_go_on(batch, path, INTERRUPTED)}", code=INTERRUPTED)
        except ChunkRefused as refused:
            stop(f"{refused}; {how_to_go_on(batch, path, refused.code)}", code=refused.code)
    tell(batch, as_json=as_json)


def tell(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        fields = ("name", "jobs", "made", "already_there", "ids")
        output.write_json({name: getattr(batch, name) for name in fields})
    else:
        said = f"{batch.made:,} jobs made"
        if batch.already_there:
            said += f", {batch.already_there:,} were there already"
        output.write(said)


def how_to_go_on(batch: Batch, path: str, code: int) -> str:
    """The name is told: with the default one, a line that is mended would make a new batch."""
    if code == CONFLICT:
        return "a batch of this name has other lines there: give these another --batch-name"
    if not batch.sent and code == MISUSED:
        return "nothing was made"
    said = f"{batch.sent:,} of {batch.jobs:,} jobs are made"
    if batch.already_there:
        said += f", {batch.already_there:,} of them before this run"
    file, name = shlex.quote(path), shlex.quote(batch.name)
    return f"{said}. To go on: orc submit --file {file} --batch-name {name}"


class ChunkRefused(Exception):
    """One call failed: its jobs are not made, except that where no answer came they may be."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(_FULL_STOP.sub("", sentence))
        self.code = code


def refusal(lines: list[Line], error: ClientError | ValueError) -> ChunkRefused:
    """It names the lines, where the server did, else all that it was given at once."""
    if isinstance(error, ValueError):  # the client's own check
        return ChunkRefused(f"{span(lines)}: {error}", MISUSED)
    ending = ending_of(error)

    def line(item: re.Match[str]) -> str:
        return f"line {lines[int(item[1])].number}: "

    said = _ITEM.sub(line, ending.sentence)
    is_told = said != ending.sentence
    return ChunkRefused(said if is_told else f"{span(lines)}: {said}", ending.code)


def span(lines: list[Line]) -> str:
    first, last = lines[0].number, lines[-1].number
    return f"line {first}" if first == last else f"lines {first} to {last}"


async def create_all(
    client: "OrchestratorClient", source: IO[bytes], batch: Batch, view: SubmitView
) -> None:
    """Chunk after chunk; the batch tells how far it came."""
    started = (await client.stats()).now  # by the clock that dates the jobs
    source.seek(0)
    looked_through = islice(read_lines(source), batch.jobs)  # it may grow meanwhile
    for lines in chunks(looked_through):
        jobs = [line.job() for line in lines]
        try:
            made = await client.create_many(jobs, idempotency_key=batch.next_key())
        except (ClientError, ValueError) as error:
            raise refusal(lines, error) from error
        batch.add([(job.id, job.created_at) for job in made], started, sent=len(lines))
        view.show(batch)


def open_source(path: str) -> IO[bytes]:
    """A file that can be read twice: what is piped in is kept in one of ours."""
    try:
        given = sys.stdin.buffer if path == STDIN else open(path, "rb")  # noqa: PTH123, SIM115 - the caller's `with` closes it
        if path != STDIN and given.seekable():
            return given
        kept = tempfile.TemporaryFile()  # noqa: SIM115 - the same
        shutil.copyfileobj(given, kept)
    except OSError as error:
        stop(f"can't read {path}: {error.strerror}", code=MISUSED)
    kept.seek(0)
    return kept


def look_through(source: IO[bytes]) -> Survey:
    """Read it once, before anything is made. Raises BadLine."""
    jobs = 0
    for line in read_lines(source):
        line.job()
        jobs += 1
    source.seek(0)
    sha256 = hashlib.sha256()
    while part := source.read(PART_BYTES):
        sha256.update(part)
    return Survey(jobs, sha256.hexdigest())


def read_lines(source: Iterable[bytes]) -> Iterator[Line]:
    """Those that are not empty."""
    for number, text in enumerate(source, start=1):
        if not text.isspace():
            yield Line(number, text)


def chunks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for line in lines:
        if chunk and (len(chunk) == MOST_JOBS or size + len(line.text) > MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line.text)
    if chunk:
        yield chunk


def job_of(fields: Json) -> NewJob:
    """Raises ValueError. What its values may be is the server's to say."""
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a line is read, no argument checked
    options = dict(cast("dict[str, Json]", fields))
    if unknown := options.keys() - FIELDS:
        raise ValueError(f"there is no field {min(unknown)!r}")
    name, payload = options.pop("name", None), options.pop("payload", None)
    if not isinstance(name, str):
        raise ValueError("it has no name")  # noqa: TRY004 - the same
    if isinstance(run_at := options.get("run_at"), str):
        options["run_at"] = moment_of(run_at)
    return NewJob(name, payload, **cast("JobOptions", options))
