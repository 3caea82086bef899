"""create_app(settings): the only place that wires. Lifespan, gate, routes, the map of errors."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from compute_orchestrator import __version__
from compute_orchestrator.db.clock import Clock
from compute_orchestrator.db.engine import Store, build_store
from compute_orchestrator.db.migrate import head_revision, require_current, upgrade
from compute_orchestrator.domain.errors import Unavailable
from compute_orchestrator.routes import (
    claims,
    health,
    heartbeats,
    jobs,
    operations,
    queues,
    reports,
    stats,
    sync,
    workers,
)
from compute_orchestrator.routes.deps import Services, SizeLimits
from compute_orchestrator.routes.docs import mount_docs
from compute_orchestrator.routes.gate import Gate
from compute_orchestrator.routes.openapi import describe
from compute_orchestrator.routes.problems import map_errors
from compute_orchestrator.routes.requests import Receiver
from compute_orchestrator.services.claims import ClaimService
from compute_orchestrator.services.coalescer import Coalescer
from compute_orchestrator.services.ending import told_of_the_end
from compute_orchestrator.services.health import HealthService
from compute_orchestrator.services.heartbeats import HeartbeatService
from compute_orchestrator.services.jobs import JobService
from compute_orchestrator.services.lookout import (
    ALONE_SECONDS,
    AMONG_OTHERS_SECONDS,
    Lookout,
)
from compute_orchestrator.services.operations import OperationService
from compute_orchestrator.services.promoter import (
    LONGEST_SLEEP_AMONG_OTHERS_SECONDS,
    LONGEST_SLEEP_SECONDS,
    Promoter,
)
from compute_orchestrator.services.queues import QueueService
from compute_orchestrator.services.reaper import Reaper
from compute_orchestrator.services.relay import Relay
from compute_orchestrator.services.reports import ReportService
from compute_orchestrator.services.stats import StatsService
from compute_orchestrator.services.supervisor import Loop, Supervisor
from compute_orchestrator.services.sync import SyncService
from compute_orchestrator.services.transactions import Transactions
from compute_orchestrator.services.wakeups import Wakeups
from compute_orchestrator.services.workers import WorkerService
from compute_orchestrator.settings import Settings

logger = logging.getLogger(__name__)

LAST_SECONDS = 2.0
"""For each thing that is left to do once every request has ended."""

# Tried in this order: the busy ones first, and /jobs/reap before /jobs/{id}.
ROUTERS = (
    claims.router,
    reports.router,
    sync.router,
    jobs.busy_router,
    heartbeats.router,
    operations.router,
    jobs.router,
    queues.router,
    workers.router,
    stats.router,
    health.router,
)


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """The server as an ASGI app. Nothing is opened before its lifespan starts."""
    settings = settings or Settings()
    app = FastAPI(
        title="Compute Orchestrator",
        version=__version__,
        summary="A job server that workers in any language speak to over plain HTTP.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # FastAPI would look its providers up in each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lambda app: _lifespan(app, settings, clock),
    )
    app.state.size_limits = SizeLimits(
        payload=settings.max_payload_bytes,
        result=settings.max_result_bytes,
        checkpoint=settings.max_checkpoint_bytes,
        error=settings.max_error_bytes,
        progress=settings.max_progress_bytes,
    )
    app.state.receiver = Receiver(settings.max_body_bytes, settings.receive_timeout_seconds)
    for router in ROUTERS:
        # Not include_router, which matches the path of every request in two steps.
        app.router.routes.extend(router.routes)
    mount_docs(app)
    describe(app)
    map_errors(app)
    app.add_middleware(
        Gate, allowed_hosts=settings.allowed_hosts, insecure_open=settings.insecure_open
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, clock: Clock | None) -> AsyncGenerator[None]:
    """Own the store, bring it up to date, start the loops; at the end the same way back."""
    store = build_store(
        settings.database_url,
        sqlite_synchronous=settings.sqlite_synchronous,
        sqlite_readers=settings.sqlite_readers,
        postgres_pool_size=settings.postgres_pool_size,
        clock=clock,
    )
    store.own()
    try:
        prepare = upgrade if store.migrates_itself else require_current
        await anyio.to_thread.run_sync(prepare, settings.database_url)
        await store.open()
        if not store.durable:
            logger.warning("synchronous=%s: a power cut loses acknowledged jobs", store.synchronous)
        async with _running(app, settings, store):
            yield
    finally:
        await _within(LAST_SECONDS, store.close())


async def _within(seconds: float, work: Awaitable[object]) -> None:
    """At the end nothing may hold the process up: a store that stands still is left as it is."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except (TimeoutError, Unavailable) as error:
        logger.warning("left undone at the end: %r", error)


@asynccontextmanager
async def _running(app: FastAPI, settings: Settings, store: Store) -> AsyncGenerator[None]:
    wakeups = Wakeups()
    transactions = Transactions(store, wakeups)
    coalescer = Coalescer(
        transactions,
        one_writer=store.one_writer,
        max_waiting_calls=settings.max_waiting_calls,
        max_waiting_seconds=settings.max_waiting_seconds,
    )
    worker_service = WorkerService(transactions, coalescer, store.clock)
    report_service = ReportService(coalescer, worker_service)
    reaper = Reaper(
        transactions,
        coalescer,
        store.clock,
        interval_seconds=settings.reaper_interval_seconds,
        retention_seconds=settings.retention_seconds,
    )
    promoter = Promoter(
        transactions,
        coalescer,
        wakeups,
        store.clock,
        longest_sleep_seconds=(
            LONGEST_SLEEP_SECONDS if store.one_writer else LONGEST_SLEEP_AMONG_OTHERS_SECONDS
        ),
    )
    stats_service = StatsService(transactions, coalescer, store.clock)
    heartbeat_service = HeartbeatService(coalescer, worker_service)
    claim_service = ClaimService(
        coalescer,
        report_service,
        worker_service,
        wakeups,
        lease_seconds=settings.lease_seconds,
    )
    app.state.services = Services(
        jobs=JobService(transactions, coalescer, wakeups),
        claims=claim_service,
        heartbeats=heartbeat_service,
        reports=report_service,
        sync=SyncService(report_service, heartbeat_service, claim_service, worker_service),
        operations=OperationService(coalescer),
        reaper=reaper,
        queues=QueueService(transactions, coalescer, wakeups),
        workers=worker_service,
        stats=stats_service,
        health=HealthService(
            transactions,
            store,
            reaper,
            schema=head_revision(),
            reaper_interval_seconds=settings.reaper_interval_seconds,
        ),
    )
    app.state.promoter = promoter
    app.state.wakeups = wakeups
    lookout = Lookout(
        transactions,
        wakeups,
        store.clock,
        interval_seconds=ALONE_SECONDS if store.one_writer else AMONG_OTHERS_SECONDS,
    )
    loops = [
        Loop("reaper", reaper.reap_once, reaper.rest),
        Loop("promoter", promoter.promote_once, promoter.rest),
        Loop("counters", stats_service.fold_once, stats_service.rest),
        Loop("lookout", lookout.look_once, lookout.rest),
        Loop("sightings", worker_service.write_sightings_once, worker_service.rest),
    ]
    if not store.one_writer:
        relay = Relay(store, wakeups)
        wakeups.tell_others = relay.tell
        loops.append(Loop("relay", relay.relay_once, relay.rest))
    supervisor = Supervisor()
    for loop in loops:
        supervisor.start(loop)
    app.state.supervisor = supervisor

    def answer_all() -> None:
        app.state.receiver.close()
        coalescer.refuse_all()

    def begin_the_end() -> None:
        wakeups.close()
        asyncio.get_running_loop().call_later(settings.shutdown_seconds, answer_all)

    try:
        with told_of_the_end(begin_the_end):
            yield
    finally:
        wakeups.close()
        await supervisor.stop()
        await _within(LAST_SECONDS, worker_service.write_sightings_once())
        await coalescer.close(LAST_SECONDS)


def __getattr__(name: str) -> Any:
    """`uvicorn compute_orchestrator.main:app`: made when asked for, not by importing."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
