"""How a request is read: strict JSON, nothing unknown, times, names, sizes (section 1)."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.calls import JSON, NOBODY, Api, Json, ok, places, problem, refused
from tests.api.conftest import MakeWorld
from tests.conftest import World
from tests.stores import only_sqlite

new_store = only_sqlite

KIB = 1024
MANY = settings(
    max_examples=40,
    deadline=None,
    # The world is one for all examples: each makes jobs of its own.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
integers = st.integers(-(2**63), 2**63 - 1)
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def ordered(text: str) -> Any:
    """JSON with its objects as lists of pairs, so that equal means equal in order too."""
    return json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


async def post(world: World, path: str, body: str | bytes, **headers: str) -> httpx.Response:
    return await world.http.post(path, content=body, headers={**JSON, **headers})


# What comes in


async def test_numbers_with_fractions_are_durations(api: Api) -> None:
    job = await api.create(
        lease_seconds=1.5,
        timeout_seconds=2,
        retry={"base_seconds": 0.25, "factor": 1.5, "max_seconds": 10, "jitter": 0},
    )
    assert (job["lease_seconds"], job["timeout_seconds"]) == (1.5, 2)
    assert job["retry"] == {"base_seconds": 0.25, "factor": 1.5, "max_seconds": 10, "jitter": 0}


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("priority", [-100, 0, 100], [-101, 101]),
        ("max_retries", [0, 1_000], [-1, 1_001]),
        ("lease_seconds", [1, 86_400], [0, 0.999, 86_400.001, -1]),
        ("timeout_seconds", [1, 86_400], [0, 0.999, 86_400.001]),
        ("run_in_seconds", [0, 0.5, 31_536_000], [-0.001, 31_536_000.001]),
    ],
)
async def test_numbers_have_their_bounds(
    world: World, field: str, good: list[float], bad: list[float]
) -> None:
    for value in good:
        ok(await world.http.post("/jobs", json={"name": "a", field: value}), 201)
    for value in bad:
        body = refused(await world.http.post("/jobs", json={"name": "a", field: value}))
        assert places(body) == {f"body.{field}"}


async def test_the_retry_policy_takes_durations_only(world: World) -> None:
    for policy in (
        {"base_seconds": -1},
        {"base_seconds": 31_536_001},
        {"max_seconds": -1},
        {"max_seconds": 31_536_001},
        {"factor": -1},
        {"jitter": -0.1},
        {"tries": 3},
    ):
        refused(await world.http.post("/jobs", json={"name": "a", "retry": policy}))


UNKNOWN_FIELDS: list[tuple[str, str, Json]] = [
    ("POST", "/jobs", {"name": "a", "wait_seconds": 1}),
    ("POST", "/jobs", {"name": "a", "retry": {"base": 1}}),
    ("POST", "/jobs", {"Name": "a"}),
    ("POST", "/jobs/claim", {"worker_id": "w", "wait": 1}),
    ("POST", "/jobs/claim", {"worker_id": "w", "limit": 2}),
    ("POST", "/jobs/1/heartbeat", {"worker_id": "w", "lease_token": NOBODY, "status": "x"}),
    (
        "PATCH",
        "/jobs/1/status",
        {"status": "succeeded", "worker_id": "w", "lease_token": NOBODY, "results": 1},
    ),
    ("PATCH", "/queues/a", {"paused": True, "limit": 3}),
]


async def test_unknown_fields_are_refused(world: World) -> None:
    for method, path, body in UNKNOWN_FIELDS:
        refused(await world.http.request(method, path, json=body))


ROUTES = [
    ("GET", "/jobs"),
    ("POST", "/jobs"),
    ("POST", "/jobs/claim"),
    ("POST", "/jobs/reap"),
    ("GET", "/jobs/1"),
    ("GET", "/jobs/1/events"),
    ("POST", "/jobs/1/heartbeat"),
    ("PATCH", "/jobs/1/status"),
    ("POST", "/jobs/1/cancel"),
    ("POST", "/jobs/1/retry"),
    ("GET", "/queues"),
    ("PATCH", "/queues/a"),
    ("GET", "/workers"),
    ("GET", "/stats"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/health"),
]


async def test_unknown_query_parameters_are_refused(world: World) -> None:
    for method, path in ROUTES:
        for query in ("foo=1", "foo", "foo=", "wait=1", "Limit=1"):
            body = refused(await world.http.request(method, f"{path}?{query}"))
            assert f"query.{query.split('=')[0]}" in places(body)


async def test_null_is_the_same_as_absent(api: Api) -> None:
    plain = await api.create()
    fields = [
        "queue", "payload", "priority", "max_retries", "lease_seconds", "timeout_seconds",
        "run_at", "run_in_seconds", "tags", "retry",
    ]  # fmt: skip
    null: Json = dict.fromkeys(fields)
    nulls = await api.create(**null)
    assert {**nulls, "id": plain["id"]} == plain
    policy = await api.create(
        retry=dict.fromkeys(("base_seconds", "factor", "max_seconds", "jitter"))
    )
    assert policy["retry"] == plain["retry"]

    lease = await api.claim(queues=None, lease_seconds=None, request_id=None)
    assert lease["id"] == plain["id"]
    await api.beat(lease, progress=None, checkpoint=None)
    report = dict.fromkeys(("result", "error", "retryable", "retry_in_seconds", "run_in_seconds"))
    done = await api.report(lease, "succeeded", **report)
    assert done["result"] is None


async def test_null_is_no_value_of_a_required_field(world: World) -> None:
    refused(await world.http.post("/jobs", json={"name": None}))
    refused(await world.http.post("/jobs/claim", json={"worker_id": None}))
    refused(await world.http.patch("/queues/a", json={"paused": None}))
    beat = {"worker_id": "w", "lease_token": None}
    refused(await world.http.post("/jobs/1/heartbeat", json=beat))
    refused(await world.http.patch("/jobs/1/status", json={**beat, "status": "succeeded"}))


async def test_a_body_is_an_object(world: World) -> None:
    for body in ("", "null", "[]", '"a"', "5", "true", "[{}]"):
        for path in ("/jobs", "/jobs/claim", "/jobs/1/heartbeat"):
            refused(await post(world, path, body))
        refused(await world.http.patch("/jobs/1/status", content=body, headers=JSON))


async def test_a_post_without_a_body_needs_none(api: Api) -> None:
    job = await api.create()
    for path in (f"/jobs/{job['id']}/cancel", f"/jobs/{job['id']}/retry", "/jobs/reap"):
        ok(await api.http.post(path))
        ok(await api.http.post(path, content="{}", headers=JSON))
        refused(await api.http.post(path, json={"force": True}))


async def test_other_media_types_are_refused(world: World) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonx",
        "application/json; charset=latin-1",
        "application/problem+json",
    ):
        answer = await post(world, "/jobs", '{"name": "a"}', **{"Content-Type": kind})
        problem(answer, 415, "unsupported-media-type")
    answer = await world.http.post("/jobs", content=b'{"name": "a"}')
    problem(answer, 415, "unsupported-media-type")
    for kind in ("application/json", "APPLICATION/JSON", 'application/json; charset="UTF-8"'):
        ok(await post(world, "/jobs", '{"name": "a"}', **{"Content-Type": kind}), 201)


@pytest.mark.parametrize("name", ["payload", "result", "progress", "checkpoint", "error"])
async def test_each_document_comes_back_as_the_object_it_was(api: Api, name: str) -> None:
    document = {"z": [1, 1.5, {"y": None}], "a": {"é": "\U0001f600", "b": True}, "0": -(2**63)}
    lease = await api.started(**({"payload": document} if name == "payload" else {}))
    if name in ("progress", "checkpoint"):
        await api.beat(lease, **{name: document})
    elif name == "result":
        await api.report(lease, "succeeded", result=document)
    elif name == "error":
        await api.report(lease, "failed", error=document)
    shown = (await api.http.get(f"/jobs/{lease['id']}")).text
    pairs: dict[str, Any] = dict(ordered(shown)[1])
    assert pairs[name] == ordered(json.dumps(document))


@MANY
@given(document=documents, ascii_only=st.booleans(), indent=st.none() | st.integers(0, 3))
async def test_any_json_comes_back_the_same(
    api: Api, document: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)

    async def send(method: str, path: str, body: str) -> httpx.Response:
        answer = await api.http.request(method, path, content=body, headers=JSON)
        assert answer.status_code in (200, 201), answer.text
        return answer

    created = await send("POST", "/jobs", f'{{"name": "a", "payload": {text}}}')
    lease = await api.claim()
    assert lease["id"] == created.json()["id"]
    holder = f'"worker_id": "w", "lease_token": "{lease["lease_token"]}"'
    place = f"/jobs/{lease['id']}"
    await send(
        "POST", f"{place}/heartbeat", f'{{{holder}, "progress": {text}, "checkpoint": {text}}}'
    )
    await send("PATCH", f"{place}/status", f'{{{holder}, "status": "succeeded", "result": {text}}}')
    shown = dict(ordered((await api.http.get(place)).text)[1])
    for name in ("payload", "progress", "checkpoint", "result"):
        assert shown[name] == ordered(text)


@MANY
@given(document=st.dictionaries(texts, documents, max_size=4))
async def test_any_error_comes_back_the_same(api: Api, document: Json) -> None:
    lease = await api.started(max_retries=0)
    await api.report(lease, "failed", error=document)
    shown = dict(ordered((await api.http.get(f"/jobs/{lease['id']}")).text)[1])
    assert shown["error"] == ordered(json.dumps(document))


async def test_an_error_may_be_empty(api: Api) -> None:
    assert (await api.report(await api.started(), "failed", error={}))["error"] == {}


async def test_json_at_the_edges_is_taken(world: World) -> None:
    edges: list[Any] = [
        2**63 - 1,
        -(2**63),
        1.7976931348623157e308,
        5e-324,
        -0.0,
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "\x01\x1f\x7f\x85\u2028\ufeff\uffff",
        "",
        {},
        [],
        {"": ""},
    ]
    for value in edges:
        job = ok(await world.http.post("/jobs", json={"name": "a", "payload": value}), 201)
        assert job["payload"] == value
    body = f'{{"name": "a", "payload": {nested(99)}}}'  # with the body's own, 100 levels
    assert ok(await post(world, "/jobs", body), 201)["payload"] == json.loads(nested(99))


# Times


TIMES = [
    ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05.000000Z"),
    ("2030-01-02t03:04:05z", "2030-01-02T03:04:05.000000Z"),
    ("2030-01-02T03:04:05.5Z", "2030-01-02T03:04:05.500000Z"),
    ("2030-01-02T03:04:05.123456Z", "2030-01-02T03:04:05.123456Z"),
    ("2030-01-02T03:04:05.123456789Z", "2030-01-02T03:04:05.123456Z"),
    ("2030-01-02T03:04:05+02:00", "2030-01-02T01:04:05.000000Z"),
    ("2030-01-02T03:04:05-05:30", "2030-01-02T08:34:05.000000Z"),
    ("2030-01-01T00:30:00+23:59", "2029-12-31T00:31:00.000000Z"),
    ("2030-01-02T03:04:05-00:00", "2030-01-02T03:04:05.000000Z"),
    ("2032-02-29T00:00:00Z", "2032-02-29T00:00:00.000000Z"),
    ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
]


async def test_any_rfc_3339_time_with_an_offset_is_taken(api: Api) -> None:
    for sent, shown in TIMES:
        assert (await api.create(run_at=sent))["run_at"] == shown


async def test_every_time_is_shown_with_six_digits_and_z(api: Api, world: World) -> None:
    world.clock.move(0.000001)
    lease = await api.started()
    world.clock.move(1.1)
    await api.beat(lease)
    done = await api.report(lease, "succeeded")
    for shown in (lease, done):
        for name, value in shown.items():
            if name.endswith("_at") and value is not None:
                assert value[10] == "T"
                assert value[19] == "."
                assert value[26:] == "Z"
                assert len(value) == 27
    times = [done["created_at"], done["last_heartbeat_at"]]
    assert times == sorted(times)
    assert done["created_at"].endswith(".000001Z")


# Names


def naming(field: str, text: str) -> tuple[str, Json]:
    """A request with this text as a name of this kind."""
    match field:
        case "name":
            return "/jobs", {"name": text}
        case "queue":
            return "/jobs", {"name": "a", "queue": text}
        case "tags":
            return "/jobs", {"name": "a", "tags": [text]}
        case "worker_id":
            return "/jobs/claim", {"worker_id": text}
        case _:
            return "/jobs/claim", {"worker_id": "w", "queues": [text]}


@pytest.mark.parametrize("field", ["name", "queue", "tags", "worker_id", "queues"])
async def test_names_are_up_to_200_bytes_of_any_text(world: World, field: str) -> None:
    for text in ("a", "x" * 200, "é" * 100, "\U0001f600" * 50, " ", "a b", "%2F", "ü:;,?#&=\\'\""):
        path, body = naming(field, text)
        answer = await world.http.post(path, json=body)
        assert answer.status_code in (200, 201, 204), (text, answer.text)


async def test_only_names_that_stand_in_a_path_are_kept_from_looking_like_one(
    world: World,
) -> None:
    for text in ("a/b", "/", ".", "..", "../jobs"):
        ok(await world.http.post("/jobs", json={"name": text, "tags": [text]}), 201)
    for text in ("...", ".a", "a.", "a..b"):
        ok(await world.http.post("/jobs", json={"name": "a", "queue": text}), 201)


async def test_at_most_20_tags(world: World) -> None:
    tags = [f"t{n}" for n in range(20)]
    job = ok(await world.http.post("/jobs", json={"name": "a", "tags": tags}), 201)
    assert job["tags"] == tags
    refused(await world.http.post("/jobs", json={"name": "a", "tags": [*tags, "one-more"]}))
    assert ok(await world.http.post("/jobs", json={"name": "a", "tags": []}), 201)["tags"] == []


# Sizes


@pytest.mark.parametrize("kind", ["payload", "result", "checkpoint", "error", "progress"])
async def test_a_document_over_its_limit_is_413(make_world: MakeWorld, kind: str) -> None:
    limit = 2 * KIB
    world = await make_world(**{f"max_{kind}_bytes": limit})
    api = Api(world.http)

    async def send(lease: Json, document: Any) -> httpx.Response:
        match kind:
            case "payload":
                return await api.http.post("/jobs", json={"name": "a", "payload": document})
            case "result":
                return await api.try_report(lease, "succeeded", result=document)
            case "error":
                return await api.try_report(lease, "failed", error=document)
            case _:
                return await api.try_beat(lease, **{kind: document})

    def sized(size: int) -> Any:
        document: Any = {"message": ""} if kind == "error" else ""
        filling = "x" * (size - len(json.dumps(document, separators=(",", ":"))))
        return {"message": filling} if kind == "error" else filling

    wide = {"message": "é" * (limit // 2)} if kind == "error" else "é" * (limit // 2)
    lease = await api.started()
    before = world.database.everything()
    told = problem(await send(lease, sized(limit + 1)), 413, "payload-too-large")
    assert f"{limit} bytes" in told["detail"]
    assert f"(ORC_MAX_{kind.upper()}_BYTES)" in told["detail"]
    problem(await send(lease, wide), 413, "payload-too-large")  # counted in bytes
    assert world.database.everything() == before
    answer = await send(lease, sized(limit))
    assert answer.status_code in (200, 201), answer.text


async def test_the_default_limits_are_those_of_the_protocol(world: World) -> None:
    mib = KIB * KIB
    assert world.settings.max_body_bytes == 16 * mib
    assert world.settings.max_payload_bytes == world.settings.max_result_bytes == mib
    assert world.settings.max_checkpoint_bytes == 256 * KIB
    assert world.settings.max_error_bytes == 64 * KIB
    assert world.settings.max_progress_bytes == 16 * KIB
    fits = "x" * (mib - 2)
    ok(await world.http.post("/jobs", json={"name": "a", "payload": fits}), 201)
    answer = await world.http.post("/jobs", json={"name": "a", "payload": fits + "x"})
    problem(answer, 413, "payload-too-large")


async def test_a_body_over_its_limit_is_413(make_world: MakeWorld) -> None:
    world = await make_world(max_body_bytes=KIB)
    body = '{"name": "a"}'.ljust(KIB)
    ok(await post(world, "/jobs", body), 201)
    before = world.database.everything()
    for path in ("/jobs", "/jobs/claim", "/jobs/1/heartbeat", "/jobs/1/cancel", "/jobs/reap"):
        told = problem(await post(world, path, body + " "), 413, "payload-too-large")
        assert "ORC_MAX_BODY_BYTES" in told["detail"]
    for path in ("/jobs/1/status", "/queues/a"):
        answer = await world.http.patch(path, content=body + " ", headers=JSON)
        problem(answer, 413, "payload-too-large")
    assert world.database.everything() == before


async def test_a_body_that_is_no_json_is_looked_at_only_when_it_fits(make_world: MakeWorld) -> None:
    world = await make_world(max_body_bytes=KIB)
    problem(await post(world, "/jobs", "[" * (KIB + 1)), 413, "payload-too-large")
    refused(await post(world, "/jobs", "[" * KIB))
