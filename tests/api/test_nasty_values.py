"""Values that break job servers, in every field of every call, as raw bytes on a real socket: each
is refused as a problem that says where, nothing is written, and the queue goes on (section 1).

A case is a value in a place. The tables are values by name, and places with the values that are
wrong there; the API's own description says whether a place is missing.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import pytest

from tests.api.calls import Api, Json
from tests.api.listening import Answer, Connection, Listening
from tests.stores import only_sqlite

new_store = only_sqlite

Values = dict[str, bytes]


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def text(word: str) -> bytes:
    """JSON of a string, in UTF-8 where it need not be escaped."""
    return json.dumps(word, ensure_ascii=False).encode()


# Values that no place of any body takes.

NO_TEXT: Final[Values] = {
    "NUL": rb'"gpu\u0000evil"',
    "NUL alone": rb'"\u0000"',
    "lone high surrogate": rb'"\ud800"',
    "lone low surrogate": rb'"a\udfff"',
    "surrogates the wrong way round": rb'"\udc00\ud800"',
    "surrogate and text": rb'"\ud83d smile"',
    "escape cut short": rb'"\u00"',
    "escape that is none": rb'"\x41"',
    "raw NUL": b'"a\0b"',
    "raw line break": b'"a\r\nb"',
    "raw tab": b'"a\tb"',
    "raw escape character": b'"\x1b[31m"',
    "byte that is no UTF-8": b'"\xff"',
    "UTF-8 cut short": b'"\xc3"',
    "UTF-8 of a surrogate": b'"\xed\xa0\x80"',
    "UTF-8 of NUL in two bytes": b'"\xc0\x80"',
    "UTF-8 beyond Unicode": b'"\xf4\x90\x80\x80"',
    "single quotes": b"'a'",
}
UNSTORABLE: Final[Values] = NO_TEXT | {
    "NaN": b"NaN",
    "-NaN": b"-NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "1e400": b"1e400",
    "-1e400": b"-1e400",
    "1E+00400": b"1E+00400",
    "2e308": b"2e308",
    "1e400 without an exponent": b"1" + b"0" * 400 + b".5",
    "2^63": str(2**63).encode(),
    "-2^63 - 1": str(-(2**63) - 1).encode(),
    "2^64": str(2**64).encode(),
    "10^30": b"1" + b"0" * 30,
    "5,000 digits": b"9" * 5_000,
    "100 levels in the body's own": nested(100),
    "150 levels": nested(150),
    "5,000 levels": nested(5_000),
    "100 levels of objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "levels without an end": b"[" * 9_000,
    "NUL in an array": rb'[["\u0000"]]',
    "1e400 in an object": b'{"a": [1e309]}',
    "2^63 in an object": b'{"a": {"b": 9223372036854775808}}',
}
NO_DOCUMENT: Final[Values] = {f"key with {name}": b"{%s: 1}" % key for name, key in NO_TEXT.items()}
NO_JSON: Final[Values] = {
    "01": b"01",
    "1.": b"1.",
    ".5": b".5",
    "+1": b"+1",
    "0x10": b"0x10",
    "comma at an array's end": b"[1,]",
    "comma at an object's end": b'{"a": 1,}',
    "no comma": b"[1 2]",
    "comment": b"/* no */ 1",
    "undefined": b"undefined",
    "True": b"True",
}
UNPARSED: Final = UNSTORABLE | NO_DOCUMENT | NO_JSON
"""Refused before a field is looked at: the answer names the body."""

# Values that are JSON, and wrong in a place of this kind.

NUMBERS: Final[Values] = {"0": b"0", "1.5": b"1.5", "2^63 - 1": str(2**63 - 1).encode()}
CONTAINERS: Final[Values] = {"array": b'["a"]', "object": b'{"a": "a"}', "empty object": b"{}"}
SWITCHES: Final[Values] = {"true": b"true", "false": b"false"}
WORDS: Final[Values] = {"empty text": b'""', "text": b'"no"', "digits as text": b'"5"'}

SHORT: Final[Values] = (
    NUMBERS
    | SWITCHES
    | CONTAINERS
    | {"empty text": b'""', "201 bytes": text("x" * 201), "202 bytes in 101": text("é" * 101)}
)
NAME: Final[Values] = SHORT | {
    "CRLF": rb'"a\r\nb"',
    "header after CRLF": rb'"\r\nX-Evil: 1"',
    "CR": rb'"a\rb"',
    "LF": rb'"a\nb"',
    "LF at the end": rb'"a\n"',
    "tab": rb'"a\tb"',
    "0x01": rb'"\u0001"',
    "escape character": rb'"\u001b[31m"',
    "0x1f": rb'"a\u001fb"',
    "DEL": b'"a\x7fb"',
    "DEL escaped": rb'"\u007f"',
    "C1": text("a\x80b"),
    "C1 escaped": rb'"a\u009fb"',
    "next line": text("\x85"),
}
SEGMENT: Final[Values] = NAME | {
    "slash": b'"/"',
    "slash inside": b'"a/b"',
    "slash escaped": rb'"a\/b"',
    "dot": b'"."',
    "two dots": b'".."',
    "way up": b'"../jobs"',
}
NO_NUMBER: Final[Values] = (
    WORDS
    | SWITCHES
    | CONTAINERS
    | {"NaN as text": b'"NaN"', "1e400 as text": b'"1e400"', "number in an array": b"[1]"}
)
BEYOND: Final[Values] = {
    "2^63 - 1": str(2**63 - 1).encode(),
    "-2^63": str(-(2**63)).encode(),
    "1e308": b"1e308",
    "-1e308": b"-1e308",
}
DURATION: Final[Values] = NO_NUMBER | BEYOND | {"-1": b"-1", "less than none": b"-5e-324"}
LENGTH: Final[Values] = DURATION | {"0": b"0", "-0.0": b"-0.0", "5e-324": b"5e-324", "1e5": b"1e5"}
WHOLE: Final[Values] = (
    NO_NUMBER | BEYOND | {"1.5": b"1.5", "1.0": b"1.0", "1e0": b"1e0", "-0.0": b"-0.0"}
)
SWITCH: Final[Values] = NUMBERS | WORDS | CONTAINERS | {"true as text": b'"true"'}
CHOICE: Final[Values] = NUMBERS | SWITCHES | WORDS | CONTAINERS | {"NAME": b'"SUCCEEDED"'}
OBJECT: Final[Values] = NUMBERS | SWITCHES | WORDS | {"array": b"[1]", "no member": b"[]"}
NAMES: Final[Values] = NUMBERS | SWITCHES | WORDS | {"object": b"{}"}
NO_TIMES: Final = [
    "2030-01-02T03:04:05",
    "2030-01-02",
    "03:04:05Z",
    "2030-01-02T03:04Z",
    "2030-01-02T03:04:05.Z",
    "2030-01-02T03:04:05+0200",
    "2030-01-02T03:04:05+02",
    "2030-01-02T03:04:05 Z",
    "2030-02-30T00:00:00Z",
    "2031-02-29T00:00:00Z",
    "2030-13-01T00:00:00Z",
    "2030-01-02T24:00:00Z",
    "2030-01-02T03:60:00Z",
    "2030-01-02T03:04:05+24:00",
    "10000-01-01T00:00:00Z",
    "2030-W01-1T00:00:00Z",
    "20300102T030405Z",
    " 2030-01-02T03:04:05Z",
    "2030-01-02T03:04:05Z\n",
    "\uff12\uff10\uff13\uff10-01-02T03:04:05Z",
    "now",
    "",
    "2030-01-02T03:04:05Z\r\nX-Evil: 1",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-00:01",
    "NaN",
]
TIME: Final[Values] = (
    NUMBERS | SWITCHES | CONTAINERS | {f"time {time!r}": text(time) for time in NO_TIMES}
)
ANY: Final[Values] = NO_DOCUMENT | NO_JSON
"""Any JSON is right here."""

# The places. A dot leads into an object, a number into an array.


class Body(NamedTuple):
    """A call's body: the fields that it always has, and the kind of every place."""

    call: str
    always: Mapping[str, bytes]
    places: Mapping[str, Values]


HOLDER: Final = {"worker_id": b'"w"', "lease_token": b'"{token}"'}


def document(name: str) -> dict[str, Values]:
    """Places at several depths of a field that takes any JSON."""
    return dict.fromkeys([name, f"{name}.0.a", f"{name}{'.a.0' * 20}"], ANY)


JOB: Final[Mapping[str, Values]] = {
    "name": NAME,
    "queue": SEGMENT,
    **document("payload"),
    "priority": WHOLE,
    "max_retries": WHOLE,
    "lease_seconds": LENGTH,
    "timeout_seconds": LENGTH,
    "run_at": TIME,
    "run_in_seconds": DURATION,
    "tags": NAMES,
    "tags.0": NAME | {"null": b"null"},
    "retry": OBJECT,
    "retry.base_seconds": DURATION,
    "retry.factor": DURATION,
    "retry.max_seconds": DURATION,
    "retry.jitter": DURATION,
}
CLAIM: Final[Mapping[str, Values]] = {
    "queues": NAMES,
    "queues.0": SEGMENT | {"null": b"null"},
    "lease_seconds": LENGTH,
    "request_id": SHORT,
    "wait_seconds": DURATION | {"60.001": b"60.001", "1e5": b"1e5"},
}
BODIES: Final = (
    Body("POST /jobs", {"name": b'"a"'}, JOB),
    Body(
        "POST /jobs/bulk",
        {"jobs": b'[{"name": "a"}]'},
        {"jobs": NAMES, "jobs.0": OBJECT, **{f"jobs.0.{name}": its for name, its in JOB.items()}},
    ),
    Body(
        "POST /workers/{worker_id}/sync",
        {"heartbeats": b"[]"},
        {
            "about": OBJECT,
            **{f"about.{name}": SHORT for name in ("host", "sdk", "code")},
            "about.pid": WHOLE,
            "reports": NAMES,
            "heartbeats": NAMES,
            "claim": OBJECT,
            "claim.limit": WHOLE,
            **{f"claim.{name}": its for name, its in CLAIM.items()},
        },
    ),
    Body(
        "POST /jobs/claim",
        {"worker_id": b'"w"'},
        {"worker_id": SEGMENT, **CLAIM},
    ),
    Body(
        "POST /jobs/{id}/heartbeat",
        HOLDER,
        {
            "worker_id": SEGMENT,
            "lease_token": SHORT,
            **document("progress"),
            **document("checkpoint"),
        },
    ),
    Body(
        "PATCH /jobs/{id}/status",
        {"status": b'"succeeded"', **HOLDER},
        {
            "status": CHOICE,
            "worker_id": SEGMENT,
            "lease_token": SHORT,
            **document("result"),
        },
    ),
    Body(
        "PATCH /jobs/{id}/status",
        {"status": b'"failed"', **HOLDER},
        {
            "error": OBJECT,
            "error.message": ANY,
            "error.data.0.a": ANY,
            "retryable": SWITCH,
            "retry_in_seconds": DURATION,
        },
    ),
    Body(
        "PATCH /jobs/{id}/status",
        {"status": b'"queued"', **HOLDER},
        {"run_in_seconds": DURATION},
    ),
    Body("PATCH /queues/{name}", {"paused": b"true"}, {"paused": SWITCH}),
)
"""Every field of every body."""

FIELDS: Final = {
    f"field with {name}": b'{%s: 1, "name": "a"}' % key for name, key in NO_TEXT.items()
}
NO_BODY: Final[Values] = FIELDS | {
    "UTF-8 mark": b'\xef\xbb\xbf{"name": "a"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "UTF-32": '{"name": "a"}'.encode("utf-32-le"),
    "object cut short": b'{"name": "a"',
    "one brace more": b'{"name": "a"}}',
    "two objects": b'{"name": "a"} {"name": "b"}',
    "form": b"name=a",
    "NUL byte": b"\0",
    "NUL after an object": b'{"name": "a"}\0',
}
"""What is no body of any call, whatever its fields are."""

# Values in a URL, as they stand in it.

NO_UTF_8: Final = {
    "byte that is no UTF-8": "%FF",
    "UTF-8 cut short": "a%C3",
    "UTF-8 of a surrogate": "%ED%A0%80",
    "UTF-8 of NUL in two bytes": "%C0%80",
}
CONTROLS: Final = {
    "NUL": "a%00b",
    "CRLF": "a%0D%0Ab",
    "header after CRLF": "%0D%0AX-Evil:%201",
    "LF at the end": "a%0A",
    "escape character": "%1B%5B31m",
    "DEL": "%7F",
    "C1": "%C2%80",
}
LONG: Final = {"201 bytes": "x" * 201, "202 bytes in 101": "%C3%A9" * 101}
NO_INTEGER: Final = {
    "-1": "-1",
    "plus": "%2B1",
    "fraction": "1.0",
    "exponent": "1e3",
    "1e400": "1e400",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "hexadecimal": "0x1",
    "underscore": "1_0",
    "space": "%20",
    "space before": "%201",
    "Arabic digit": "%D9%A1",
    "superscript": "%C2%B2",
    "2^63": str(2**63),
    "-2^63 - 1": str(-(2**63) - 1),
    "5,000 digits": "9" * 5_000,
    "word": "a",
    "array": "[1]",
    "SQL": "1%20OR%201=1",
}
OUTSIDE: Final = {"empty": "", "0": "0", "1001": "1001"}
IN_QUERY_NAME: Final = NO_UTF_8 | CONTROLS | LONG | {"empty": ""}
IN_QUERY_COUNT: Final = NO_UTF_8 | CONTROLS | NO_INTEGER | OUTSIDE
IN_QUERY_SECONDS: Final = {
    name: value
    for name, value in (NO_UTF_8 | CONTROLS | NO_INTEGER | {"empty": "", "61": "61"}).items()
    if name != "fraction"
}
IN_QUERY_CHOICE: Final = NO_UTF_8 | CONTROLS | LONG | {"empty": "", "word": "no", "1": "1"}
IN_QUERY_TIME: Final = (
    NO_UTF_8
    | CONTROLS
    | NO_INTEGER
    | {f"time {time!r}": quote(time) for time in NO_TIMES if time != "NaN"}
)
IN_QUERY_CURSOR: Final = (
    NO_UTF_8
    | CONTROLS
    | NO_INTEGER
    | {
        "empty": "",
        "5,000 letters": "A" * 5_000,
        "newest:-1": "bmV3ZXN0Oi0x",
        "newest:9999999999999999999": "bmV3ZXN0Ojk5OTk5OTk5OTk5OTk5OTk5OTk",
        "padding alone": "%3D%3D%3D",
    }
)
QUERIES: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "GET /jobs": {
        "status": IN_QUERY_CHOICE,
        "queue": IN_QUERY_NAME,
        "name": IN_QUERY_NAME,
        "tag": IN_QUERY_NAME,
        "worker_id": IN_QUERY_NAME,
        "created_after": IN_QUERY_TIME,
        "created_before": IN_QUERY_TIME,
        "order": IN_QUERY_CHOICE,
        "include": IN_QUERY_CHOICE,
        "limit": IN_QUERY_COUNT,
        "cursor": IN_QUERY_CURSOR,
    },
    "GET /jobs/{id}": {"wait_seconds": IN_QUERY_SECONDS},
    "GET /jobs/{id}/events": {"limit": IN_QUERY_COUNT, "cursor": IN_QUERY_CURSOR},
    "POST /jobs/{id}/cancel": {"force": IN_QUERY_CHOICE},
    "POST /jobs/{id}/retry": {"again": IN_QUERY_CHOICE},
}
IN_PATH_ID: Final = NO_UTF_8 | CONTROLS | NO_INTEGER
IN_PATH_SEGMENT: Final = (
    NO_UTF_8
    | CONTROLS
    | LONG
    | {
        "raw dot": ".",
        "raw dots": "..",
        "slash": "a/b",
        "dot": "%2e",
        "two dots": "%2E%2e",
        "slash escaped": "a%2Fb",
        "none": "",
    }
)
PATHS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "GET /jobs/{id}": ("id", IN_PATH_ID),
    "GET /jobs/{id}/events": ("id", IN_PATH_ID),
    "POST /jobs/{id}/heartbeat": ("id", IN_PATH_ID),
    "PATCH /jobs/{id}/status": ("id", IN_PATH_ID),
    "POST /jobs/{id}/cancel": ("id", IN_PATH_ID),
    "POST /jobs/{id}/retry": ("id", IN_PATH_ID),
    "PATCH /queues/{name}": ("name", IN_PATH_SEGMENT),
    "POST /workers/{worker_id}/sync": ("worker_id", IN_PATH_SEGMENT),
}
GOOD_BODIES: Final = {
    one.call: b"{%s}" % b",".join(b'"%s":%s' % (k.encode(), v) for k, v in one.always.items())
    for one in BODIES
}

# Values in a header, as bytes. Line breaks and NUL are no header at all: see the last test.

NO_KEY: Final[Values] = {
    "empty": b"",
    "space alone": b"   ",
    "201 bytes": b"k" * 201,
    "202 bytes in 101": "é".encode() * 101,
    "tab inside": b"a\tb",
    "byte that is no UTF-8": b"\xff",
    "UTF-8 cut short": b"a\xc3",
    "UTF-8 of a surrogate": b"\xed\xa0\x80",
    "UTF-8 of NUL in two bytes": b"\xc0\x80",
    "C1": "a\x80b".encode(),
    "next line": "\x85".encode(),
}
HEADERS: Final[Mapping[str, tuple[str, Values]]] = {
    "POST /jobs": ("idempotency-key", NO_KEY),
    "POST /jobs/bulk": ("idempotency-key", NO_KEY),
}


class Case(NamedTuple):
    """One request that must be refused. `{id}` and `{token}` are those of a lease that holds."""

    call: str
    place: str
    value: str
    target: str
    body: bytes = b""
    header: str = "Accept: */*"
    named: str = ""
    """The one place that the answer names; none where it is the value's own."""


def filled(body: Body, place: str, value: bytes) -> bytes:
    """The call's body with this value in this place."""
    field, *inner = place.split(".")
    for step in reversed(inner):
        value = b"[%s]" % value if step.isdigit() else b'{"%s": %s}' % (step.encode(), value)
    fields = {**body.always, field: value}
    return b"{%s}" % b", ".join(b'"%s": %s' % (name.encode(), fields[name]) for name in fields)


def in_general(call: str) -> str:
    return call.split(" ")[1].replace("{name}", "a").replace("{worker_id}", "w")


def in_bodies() -> Iterator[Case]:
    for body in BODIES:
        target = in_general(body.call)
        for place, wrong_here in body.places.items():
            for name, value in (UNSTORABLE | wrong_here).items():
                named = "body" if name in UNPARSED else ""
                sent = filled(body, place, value)
                yield Case(body.call, f"body.{place}", name, target, sent, named=named)
    for call in GOOD_BODIES:
        target = in_general(call)
        for name, value in NO_BODY.items():
            yield Case(call, "body", name, target, value, named="body")


def in_targets() -> Iterator[Case]:
    for call, parameters in QUERIES.items():
        path = call.split(" ")[1]
        for parameter, values in parameters.items():
            for name, value in values.items():
                named = "query" if name in NO_UTF_8 else ""
                yield Case(
                    call, f"query.{parameter}", name, f"{path}?{parameter}={value}", named=named
                )
        for name, value in (NO_UTF_8 | CONTROLS | {"empty": ""}).items():
            yield Case(call, "query", f"parameter: {name}", f"{path}?{value}=1")
    for call, (parameter, values) in PATHS.items():
        path = call.split(" ")[1]
        for name, value in values.items():
            target = path.replace(f"{{{parameter}}}", value)
            named = "path" if name in NO_UTF_8 else ""
            yield Case(
                call, f"path.{parameter}", name, target, GOOD_BODIES.get(call, b""), named=named
            )


def in_headers() -> Iterator[Case]:
    for call, (header, values) in HEADERS.items():
        for name, value in values.items():
            line = f"{header}: {value.decode('latin-1')}"
            yield Case(
                call, f"header.{header}", name, call.split(" ")[1], GOOD_BODIES[call], line,
                named="header.Idempotency-Key",
            )  # fmt: skip


CASES: Final = [*in_bodies(), *in_targets(), *in_headers()]


# What the refusals are held to


class Standing(NamedTuple):
    """What must be there as before when all was refused."""

    server: Listening
    lease: Json
    waiting: Json

    async def goes_on(self) -> None:
        """The lease holds, the queue gives the next job, and jobs are taken in."""
        api = Api(self.server.world.http)
        await api.beat(self.lease, progress=1)
        assert (await api.report(self.lease, "succeeded", result=1))["status"] == "succeeded"
        assert (await api.claim())["id"] == self.waiting["id"]
        fresh = await api.started(name="fresh")
        await api.beat(fresh)
        await api.report(fresh, "failed", error={"message": "no"}, retry_in_seconds=0)
        assert (await api.claim())["id"] == fresh["id"]


@pytest.fixture
async def standing(server: Listening) -> Standing:
    """A job that runs, one that waits, one that ended, a queue that is paused."""
    api = Api(server.world.http)
    await api.cancel(await api.create(queue="over"))
    await api.pause("over")
    lease = await api.started(tags=["t"], payload={"a": 1})
    await api.beat(lease, checkpoint=1)
    return Standing(server, lease, await api.create())


async def send(connection: Connection, case: Case, lease: Json) -> Answer:
    target = case.target.replace("{id}", str(lease["id"]))
    body = case.body.replace(b"{token}", lease["lease_token"].encode())
    return await connection.ask(case.call.split(" ")[0], target, case.header, body=body)


def fault_of(answer: Answer, case: Case) -> str | None:
    """What is wrong with this answer to a case, if anything."""
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{answer.status} is no problem"
    problem: dict[str, Any] = answer.json()
    if case.place.startswith("path.") and (answer.status, problem["code"]) == (404, "not-found"):
        return None
    if (answer.status, problem["code"]) != (422, "validation-error"):
        return f"{answer.status} {problem['code']}"
    named = {error["where"] for error in problem["errors"]}
    if case.named:
        fits = named == {case.named}
    else:
        fits = any(f"{place}.".startswith(f"{case.place}.") for place in named)
    return None if fits else f"names {named}"


@pytest.mark.parametrize("call", sorted({case.call for case in CASES}))
async def test_a_nasty_value_is_refused_anywhere_and_the_queue_goes_on(
    standing: Standing, call: str
) -> None:
    server = standing.server
    connection = await server.connect()
    before = server.world.database.everything()
    for case in CASES:
        if case.call != call:
            continue
        answer = await send(connection, case, standing.lease)
        said = f"{case.value} in {case.place} of {call}: {answer.body[:300]!r}"
        assert fault_of(answer, case) is None, f"{fault_of(answer, case)}: {said}"
        assert server.world.database.everything() == before, f"written: {said}"
    await standing.goes_on()


def test_there_are_300_values_in_bodies_and_300_elsewhere() -> None:
    for same in (itemgetter(0, 1, 2), itemgetter(0, 3, 4, 5)):
        twice = [case for case, times in Counter(map(same, CASES)).items() if times > 1]
        assert twice == []
    in_a_body = [case for case in CASES if case.place.startswith("body")]
    assert len(in_a_body) >= 300
    assert len(CASES) - len(in_a_body) >= 300


async def test_every_field_and_parameter_of_every_call_is_a_place(server: Listening) -> None:
    api: Json = server.world.app.openapi()
    described: set[tuple[str, str]] = set()
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            call = f"{method.upper()} {path}"
            for parameter in operation.get("parameters", []):
                described.add((call, f"{parameter['in']}.{parameter['name'].lower()}"))
            for place in fields_of(api, operation.get("requestBody", {})):
                described.add((call, f"body.{place}"))
    places = {(case.call, case.place) for case in CASES}
    assert len(described) > 40
    items = ("body.reports.0", "body.heartbeats.0")  # each is refused by itself: see below
    assert {(call, place) for call, place in described - places if not place.startswith(items)} == (
        set()
    )


SINGLE: Final = {
    "heartbeats": "POST /jobs/{id}/heartbeat",
    "reports": "PATCH /jobs/{id}/status",
}


@pytest.mark.parametrize("part", SINGLE)
async def test_a_nasty_value_in_an_item_of_a_sync_is_that_items_problem(
    standing: Standing, part: str
) -> None:
    world = standing.server.world
    before = world.database.everything()
    cases = [
        (case, json.loads(case.body.replace(b"{token}", standing.lease["lease_token"].encode())))
        for case in CASES
        if case.call == SINGLE[part] and case.place.startswith("body.") and case.named != "body"
    ]
    items = [
        {"id": standing.lease["id"], **{k: v for k, v in body.items() if k != "worker_id"}}
        for case, body in cases
        if case.place != "body.worker_id"
    ]
    assert len(items) > 10
    for start in range(0, len(items), 100):
        some = items[start : start + 100]
        answer = await world.http.post("/workers/w/sync", json={part: some})
        assert answer.status_code == 200, answer.text
        for item, answered in zip(some, answer.json()[part], strict=True):
            assert answered["problem"]["code"] == "validation-error", (item, answered)
    assert world.database.everything() == before
    await standing.goes_on()


def fields_of(api: Json, schema: Any) -> Iterator[str]:
    """The fields of the objects that a schema leads to, dotted, array items as 0."""
    match schema:
        case {"$ref": str(reference)}:
            yield from fields_of(api, api["components"]["schemas"][reference.split("/")[-1]])
        case {"properties": properties}:
            for name, field in properties.items():
                yield name
                yield from (f"{name}.{inner}" for inner in fields_of(api, field))
        case {"items": items}:
            yield "0"
            yield from (f"0.{inner}" for inner in fields_of(api, items))
        case {"anyOf": choices}:
            for choice in choices:
                yield from fields_of(api, choice)
        case {"content": {"application/json": {"schema": inner}}}:
            yield from fields_of(api, inner)
        case _:
            return


NO_LEASE: Final = {
    "CRLF": "a\r\nb",
    "escape character": "\x1b[31m",
    "space": " ",
    "SQL": "' OR '1'='1",
    "wildcard": "%",
    "JSON": '{"a": 1}',
    "200 bytes": "é" * 100,
}


async def test_a_token_of_any_characters_is_no_lease(standing: Standing) -> None:
    http = standing.server.world.http
    before = standing.server.world.database.everything()
    path = f"/jobs/{standing.lease['id']}"
    for name, token in NO_LEASE.items():
        body = {"worker_id": "w", "lease_token": token}
        beat = await http.post(f"{path}/heartbeat", json=body)
        report = await http.patch(f"{path}/status", json={**body, "status": "succeeded"})
        for answer in (beat, report):
            assert (answer.status_code, answer.json()["code"]) == (409, "lease-lost"), name
    assert standing.server.world.database.everything() == before
    await standing.goes_on()


# What HTTP itself does not carry never becomes a value: its parser says 400, or the API does.

RAW: Final = {
    "NUL": b"a\0b",
    "CR": b"a\rb",
    "LF": b"a\nb",
    "CRLF": b"a\r\nb",
    "0x01": b"a\x01b",
    "escape character": b"\x1b[31m",
    "DEL": b"a\x7fb",
    "byte that is no UTF-8": b"\xff",
}
REQUESTS: Final = {
    "path id": b"POST /jobs/%s/cancel HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "path name": b"PATCH /queues/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b'Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{"paused": true}',
    "query value": b"GET /jobs?queue=%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "query name": b"GET /jobs?%s=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "header": b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: %s\r\n"
    b'Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{"name": "a"}',
    "header name": b"POST /jobs/reap HTTP/1.1\r\nHost: 127.0.0.1\r\nX-%s: 1\r\n\r\n",
    "method": b"GET%s /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "version": b"GET /jobs HTTP/1.1%s\r\nHost: 127.0.0.1\r\n\r\n",
}


async def test_raw_control_bytes_in_a_request_are_refused(standing: Standing) -> None:
    server = standing.server
    before = server.world.database.everything()
    for (place, request), (name, value) in itertools.product(REQUESTS.items(), RAW.items()):
        connection = await server.connect()
        await connection.send(request % value)
        answer = await connection.answer()
        said = f"{name} in {place}: {answer.status} {answer.body[:300]!r}"
        assert 400 <= answer.status < 500, said
        assert server.world.database.everything() == before, f"written: {said}"
        await connection.close()
    await standing.goes_on()
