"""/openapi.json and /docs: complete, valid, and true to what is answered."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from compute_orchestrator.routes.problems import MEDIA_TYPE
from tests.api.calls import NOBODY, Api, Json, ok
from tests.conftest import World
from tests.stores import only_sqlite

new_store = only_sqlite

OPERATIONS = {
    "post /jobs": "create_job",
    "post /jobs/bulk": "create_jobs",
    "post /workers/{worker_id}/sync": "sync",
    "get /jobs": "list_jobs",
    "post /jobs/claim": "claim_job",
    "post /jobs/reap": "reap_jobs",
    "get /jobs/{id}": "get_job",
    "get /jobs/{id}/events": "list_events",
    "post /jobs/{id}/heartbeat": "heartbeat",
    "patch /jobs/{id}/status": "report_job",
    "post /jobs/{id}/cancel": "cancel_job",
    "post /jobs/{id}/retry": "retry_job",
    "get /queues": "list_queues",
    "patch /queues/{name}": "set_queue",
    "get /workers": "list_workers",
    "get /stats": "get_stats",
    "get /livez": "livez",
    "get /readyz": "readyz",
    "get /health": "health",
}
BODIES = {
    "create_job": "name queue payload priority max_retries lease_seconds timeout_seconds run_at "
    "run_in_seconds tags retry",
    "create_jobs": "jobs",
    "sync": "about reports heartbeats claim",
    "claim_job": "worker_id queues lease_seconds request_id wait_seconds",
    "heartbeat": "worker_id lease_token progress checkpoint",
    "report_job": "status worker_id lease_token result error retryable retry_in_seconds "
    "run_in_seconds",
    "set_queue": "paused",
}
QUERIES = {
    "list_jobs": "status queue name tag worker_id created_after created_before order include limit "
    "cursor",
    "get_job": "wait_seconds",
    "list_events": "limit cursor",
    "cancel_job": "force",
    "retry_job": "again",
}
NOT_FOUND = {"get_job", "list_events", "heartbeat", "report_job", "cancel_job", "retry_job"}
CONFLICT = {"heartbeat", "report_job", "cancel_job", "retry_job"}

# JSON Schema 2020-12, as far as this document goes.
WORDS = """
    $ref $defs title description default examples type enum const anyOf allOf oneOf not format
    properties required additionalProperties propertyNames items prefixItems minItems maxItems
    uniqueItems minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum
    multipleOf deprecated readOnly writeOnly discriminator contentMediaType
"""
KEYWORDS = set(WORDS.split())
TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


class Document:
    """The document of a server, and the way through its references."""

    def __init__(self, document: Json) -> None:
        self.document = document

    def operations(self) -> Iterator[tuple[str, str, Json]]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method, path, operation

    def operation(self, name: str) -> Json:
        return next(one for _, _, one in self.operations() if one["operationId"] == name)

    def resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            found: Any = self.document
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        return schema

    def body(self, name: str) -> Json:
        """The schema of an operation's body."""
        return self.resolved(
            self.operation(name)["requestBody"]["content"]["application/json"]["schema"]
        )

    def answer(self, name: str, status: int = 200) -> Json:
        """The schema of an operation's answer."""
        content = self.operation(name)["responses"][str(status)]["content"]
        return self.resolved(content["application/json"]["schema"])

    def faults(self, schema: Json, where: str) -> Iterator[str]:
        """What is no JSON Schema in a schema."""
        yield from (f"{where}: {word}" for word in schema.keys() - KEYWORDS)
        kind = schema.get("type")
        if kind is not None and kind not in TYPES:
            yield f"{where}: type {kind}"
        if "$ref" in schema:
            assert isinstance(self.resolved(schema), dict)
        for name, inner in schema.get("properties", {}).items():
            yield from self.faults(inner, f"{where}.{name}")
        yield from (
            f"{where}: requires {name}"
            for name in schema.get("required", [])
            if name not in schema.get("properties", {})
        )
        for key in ("items", "additionalProperties", "propertyNames"):
            if isinstance(schema.get(key), dict):
                yield from self.faults(schema[key], f"{where}.{key}")
        for key in ("anyOf", "allOf", "oneOf"):
            for n, inner in enumerate(schema.get(key, [])):
                yield from self.faults(inner, f"{where}.{key}.{n}")

    def differences(self, value: Any, schema: Json, where: str = "$") -> Iterator[str]:
        """How a real value and its schema differ, in both directions for the names of fields."""
        schema = self.resolved(schema)
        if "anyOf" in schema:
            tried = [list(self.differences(value, one, where)) for one in schema["anyOf"]]
            yield from min(tried, key=len)
            return
        if not _is_of(value, schema.get("type")):
            yield f"{where}: {value!r} is no {schema.get('type')}"
        elif "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is none of {schema['enum']}"
        elif isinstance(value, dict):
            yield from self._members(value, schema, where)  # pyright: ignore[reportUnknownArgumentType] - JSON
        elif isinstance(value, list):
            for n, item in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - JSON
                yield from self.differences(item, schema.get("items", {}), f"{where}.{n}")
        elif schema.get("format") == "date-time":
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value), where

    def _members(self, value: Json, schema: Json, where: str) -> Iterator[str]:
        known: Json = schema.get("properties", {})
        other = schema.get("additionalProperties", True)
        if not known and not isinstance(other, dict):
            return  # any object
        for name in schema.get("required", []):
            if name not in value:
                yield f"{where}: {name} is missing"
        for name, inner in value.items():
            if name in known:
                yield from self.differences(inner, known[name], f"{where}.{name}")
            elif isinstance(other, dict):
                yield from self.differences(inner, other, f"{where}.{name}")  # pyright: ignore[reportUnknownArgumentType] - JSON
            else:
                yield f"{where}: {name} is not in the schema"


def _is_of(value: Any, kind: str | None) -> bool:
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "null": type(None),
    }
    match kind:
        case None:
            return True
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, kinds[kind])


@pytest.fixture
async def document(world: World) -> Document:
    return Document(ok(await world.http.get("/openapi.json")))


async def test_the_operations_are_these(document: Document) -> None:
    found = {f"{method} {path}": one["operationId"] for method, path, one in document.operations()}
    assert found == OPERATIONS


async def test_the_document_is_valid(document: Document) -> None:
    whole = document.document
    assert whole["openapi"].startswith("3.1")
    assert whole["info"]["title"]
    assert whole["info"]["version"]
    faults = [
        fault
        for name, schema in whole["components"]["schemas"].items()
        for fault in document.faults(schema, name)
    ]
    for _, path, operation in document.operations():
        name = operation["operationId"]
        placed = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert placed == set(re.findall(r"{(\w+)}", path))
        for parameter in operation.get("parameters", []):
            assert parameter["in"] in ("path", "query", "header")
            assert parameter.get("required", False) == (parameter["in"] == "path")
            faults += document.faults(parameter["schema"], f"{name}.{parameter['name']}")
        for answer in operation["responses"].values():
            assert answer["description"]
            for content in answer.get("content", {}).values():
                faults += document.faults(content["schema"], name)
    assert faults == []


async def test_every_operation_is_told_in_words(document: Document) -> None:
    for _, _, operation in document.operations():
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"]


async def test_bodies_and_queries_are_those_of_the_protocol(document: Document) -> None:
    for _, _, operation in document.operations():
        name = operation["operationId"]
        assert ("requestBody" in operation) == (name in BODIES)
        if name in BODIES:
            assert operation["requestBody"]["required"]
            schema = document.body(name)
            assert set(schema["properties"]) == set(BODIES[name].split())
            assert schema["additionalProperties"] is False
        query = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        assert query == set(QUERIES.get(name, "").split())
    headers = [
        one["name"].lower()
        for one in document.operation("create_job")["parameters"]
        if one["in"] == "header"
    ]
    assert headers == ["idempotency-key"]


async def test_every_operation_names_its_problems(document: Document) -> None:
    for method, _, operation in document.operations():
        name = operation["operationId"]
        answers = operation["responses"]
        expected = {"403", "421", "422", "500", "503"}
        if name in NOT_FOUND:
            expected.add("404")
        if name in CONFLICT:
            expected.add("409")
        if method != "get":
            expected |= {"408", "413", "415"}
        assert expected == {status for status in answers if status >= "400"}, name
        for status in expected:
            if name in ("readyz", "health") and status == "503":
                continue
            assert list(answers[status]["content"]) == [MEDIA_TYPE], (name, status)
            schema = answers[status]["content"][MEDIA_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemOutput"}
    assert (
        "idempotency-mismatch"
        in document.operation("create_job")["responses"]["422"]["description"]
    )


async def test_every_success_is_described(document: Document) -> None:
    for _, _, operation in document.operations():
        name = operation["operationId"]
        good = {status for status in operation["responses"] if status < "300"}
        other = {
            "create_job": {"200", "201"},
            "create_jobs": {"200", "201"},
            "claim_job": {"200", "204"},
        }
        assert good == other.get(name, {"200"}), name
        for status in good - {"204"}:
            assert list(operation["responses"][status]["content"]) == ["application/json"]
    assert "content" not in document.operation("claim_job")["responses"]["204"]


def examples(content: Json, document: Document) -> list[Any]:
    """The examples of a body or an answer, wherever they stand."""
    found = [one["value"] for one in content.get("examples", {}).values()]
    found += [content["example"]] if "example" in content else []
    return found + list(document.resolved(content["schema"]).get("examples", []))


async def test_every_body_and_every_answer_has_an_example_that_fits(document: Document) -> None:
    for _, _, operation in document.operations():
        name = operation["operationId"]
        contents = [
            answer["content"]["application/json"]
            for status, answer in operation["responses"].items()
            if status < "300" and "content" in answer
        ]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"]["application/json"])
        for content in contents:
            shown = examples(content, document)
            assert shown, name
            wrong = [list(document.differences(one, content["schema"])) for one in shown]
            assert wrong == [[] for _ in shown], name


async def test_the_examples_of_bodies_are_taken(document: Document, world: World) -> None:
    http = world.http
    shown = {name: document.body(name).get("examples", []) for name in BODIES}
    for body in shown["create_job"]:
        ok(await http.post("/jobs", json=body), 201)
    for body in shown["create_jobs"]:
        ok(await http.post("/jobs/bulk", json=body), 201)
    for body in shown["sync"]:
        ok(await http.post("/workers/w/sync", json=body))
    for body in shown["claim_job"]:
        assert (await http.post("/jobs/claim", json=body)).status_code in (200, 204)
    for body in shown["set_queue"]:
        ok(await http.patch("/queues/a", json=body))
    for body in shown["heartbeat"]:  # a lease that is nobody's, but a body that is understood
        assert (await http.post("/jobs/1/heartbeat", json=body)).status_code == 409
    for body in shown["report_job"]:
        assert (await http.patch("/jobs/1/status", json=body)).status_code == 409


async def real_answers(api: Api) -> Iterator[tuple[str, int, Any]]:
    """Answers of every operation, rich enough to show all of their fields."""
    http = api.http
    document = {"a": [1, None]}
    created = await api.create(payload=document, tags=["t"], lease_seconds=30, timeout_seconds=99)
    answers = [("create_job", 201, created)]
    headers = {"Idempotency-Key": "k"}
    keyed: Json = {"name": "b", "queue": "other"}
    ok(await http.post("/jobs", json=keyed, headers=headers), 201)
    repeated = ok(await http.post("/jobs", json=keyed, headers=headers))
    answers.append(("create_job", 200, repeated))
    many = {"jobs": [keyed]}
    for status in (201, 200):
        made = ok(
            await http.post("/jobs/bulk", json=many, headers={"Idempotency-Key": "m"}), status
        )
        answers.append(("create_jobs", status, made))
    answers += [("sync", 200, await synced(api)) for _ in range(2)]
    lease = await api.claim(request_id="r")
    answers.append(("claim_job", 200, lease))
    answers.append(
        ("heartbeat", 200, await api.beat(lease, progress=document, checkpoint=document))
    )
    failed = await api.report(lease, "failed", error=document, retry_in_seconds=0)
    answers.append(("report_job", 200, failed))
    lease = await api.claim()
    answers.append(("get_job", 200, await api.get(lease)))
    answers.append(("report_job", 200, await api.report(lease, "succeeded", result=document)))
    answers.append(("retry_job", 200, await api.retry(lease, again=True)))
    answers.append(("cancel_job", 200, await api.cancel(lease)))
    include = {"include": ["payload", "result", "checkpoint"]}
    answers += [
        ("list_jobs", 200, ok(await http.get("/jobs", params=query)))
        for query in ({}, include, {"limit": 1})
    ]
    path = f"/jobs/{lease['id']}/events"
    answers += [
        ("list_events", 200, ok(await http.get(path, params=query))) for query in ({}, {"limit": 1})
    ]
    answers.append(("reap_jobs", 200, ok(await http.post("/jobs/reap"))))
    answers.append(("set_queue", 200, await api.pause("other", paused=False)))
    for name, path in (
        ("list_queues", "/queues"),
        ("list_workers", "/workers"),
        ("get_stats", "/stats"),
        ("livez", "/livez"),
        ("readyz", "/readyz"),
        ("health", "/health"),
    ):
        answers.append((name, 200, ok(await http.get(path))))
    return iter(answers)


async def synced(api: Api) -> Json:
    """A sync with items that are taken and items that are not."""
    await api.create(queue="synced")
    claim = {"queues": ["synced"], "limit": 2}
    (job,) = ok(await api.http.post("/workers/w/sync", json={"claim": claim}))["jobs"]
    item = {"id": job["id"], "lease_token": job["lease_token"]}
    body = {
        "reports": [{**item, "status": "succeeded"}, {**item, "status": "failed"}, {}],
        "heartbeats": [item, {**item, "lease_token": NOBODY}],
        "claim": claim,
    }
    return ok(await api.http.post("/workers/w/sync", json=body))


async def test_every_field_of_a_real_answer_is_in_its_schema_and_the_other_way_round(
    document: Document, api: Api
) -> None:
    seen: dict[str, set[str]] = {}
    for name, status, answer in await real_answers(api):
        schema = document.answer(name, status)
        assert list(document.differences(answer, schema)) == [], name
        seen.setdefault(name, set()).update(answer)
    assert set(seen) == set(OPERATIONS.values())
    for name, fields in seen.items():
        assert fields == set(document.answer(name)["properties"]), name


async def test_problems_are_as_their_schema_says(document: Document, api: Api) -> None:
    lease = await api.started()
    other = {**lease, "lease_token": NOBODY}
    answers = [
        await api.http.get("/jobs/17"),
        await api.http.get("/nothing"),
        await api.http.delete("/jobs"),
        await api.http.post("/jobs", json={}),
        await api.http.post("/jobs", content=b"{}"),
        await api.http.get("/jobs", headers={"Host": "evil.example"}),
        await api.try_beat(other),
        await api.try_report(other, "succeeded"),
        await api.try_report(lease, "cancelled"),
    ]
    schema = document.document["components"]["schemas"]["ProblemOutput"]
    seen: set[str] = set()
    for answer in answers:
        body: Json = answer.json()
        seen.update(body)
        assert list(document.differences(body, schema)) == []
        assert set(body) <= set(schema["properties"])
    assert seen == set(schema["properties"])


async def test_the_page_of_the_docs_asks_no_other_host(world: World) -> None:
    page = await world.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    linked = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert len(linked) >= 2
    for link in [*linked, *re.findall(r"url: '([^']+)'", page.text)]:
        assert link.startswith("/")
        assert (await world.http.get(link)).status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
