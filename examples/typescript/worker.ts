// A busy worker in TypeScript, on Node 20 or newer: it syncs, so that one call carries the reports
// and heartbeats of all its jobs and brings the next ones (W15). Its types are made from the server's
// own OpenAPI document by `npm run types`. W1 to W15 are the duties of docs/workers.md; after
// `npm run build`, `orc conformance --command 'node dist/worker.js'` checks them.
//
// Replace `tasks` by your own: everything below it can stay.

import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as timeout } from 'node:timers/promises'
import type { components } from './protocol.js'

type Schemas = components['schemas']
type Job = Schemas['ClaimOutput']
type Report = Omit<Schemas['SyncReportInput'], 'id' | 'lease_token'>
type Problem = Schemas['ProblemOutput']

// A task is given the payload and a signal that says: stop. What it returns is the result; what it
// throws is a failure. It must not block the event loop, or the heartbeats stop too: heavy
// computing belongs into a worker thread.
type Task = (payload: any, signal: AbortSignal) => Promise<unknown>

const tasks: Record<string, Task> = {
  'conformance.echo': async ({ value }: { value: unknown }) => value,
  'conformance.sleep': async ({ seconds }: { seconds: number }, signal) => {
    await timeout(seconds * 1000, undefined, { signal })
  },
  'conformance.fail': async ({ message }: { message: string }) => { throw new Error(message) },
}

const SERVER = process.env.ORC_URL ?? 'http://127.0.0.1:8000'
const WORKER = process.env.ORC_WORKER_ID ?? `${hostname()}-${process.pid}`
const QUEUES = (process.env.ORC_QUEUES ?? 'default').split(',') // W1: only those whose jobs are known
const ABOUT: Schemas['AboutInput'] = { host: hostname(), pid: process.pid }
const CONCURRENCY = 20
const POLL_SECONDS = 5 // also the longest that a claim holds up the end (W13)
const CLAIM_EVERY_SECONDS = 1 // while some jobs run and there is room for more
const CALL_SECONDS = 10
const SHUTDOWN_SECONDS = 8
const UNKNOWN_NAME_SECONDS = 10

type Stop = 'lost' | 'cancelled' | 'stopping'

// One run of one job: from its claim until its report has a definite answer.
class Attempt {
  report?: Report
  beatAt: number
  private readonly third: number
  private readonly stopper = new AbortController()

  constructor (readonly job: Job) {
    const start = Date.parse(job.last_heartbeat_at ?? job.locked_at!)
    this.third = (Date.parse(job.lease_expires_at!) - start) / 3
    this.beatAt = this.nextBeat()
  }

  get proof () { return { id: this.job.id, lease_token: this.job.lease_token } } // W6

  // W5: at a third of the lease, and a little before it, at random.
  nextBeat () { return performance.now() + this.third * (0.7 + Math.random() / 5) }

  // The first reason counts.
  stop (reason: Stop) { this.stopper.abort(reason) }

  async run () {
    const task = tasks[this.job.name]
    if (!task) {
      this.report = { status: 'queued', run_in_seconds: UNKNOWN_NAME_SECONDS } // W4
      return
    }
    const { signal } = this.stopper
    const stopped = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason))
    })
    try {
      const result = await Promise.race([task(this.job.payload, signal), stopped])
      this.report = { status: 'succeeded', result: result as Report['result'] ?? null } // W7
    } catch (error) {
      this.report = signal.aborted ? reportOfStop(signal.reason) : reportOfFailure(error)
    }
  }
}

function reportOfStop (reason: Stop): Report | undefined {
  switch (reason) {
    case 'lost': return undefined // W10: somebody else may have it
    case 'cancelled': return { status: 'cancelled' } // W11
    case 'stopping': return { status: 'queued' } // W13: handed back, which costs no retry
  }
}

function reportOfFailure (thrown: unknown): Report {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  return { status: 'failed', error: { type: error.name, message: error.message, traceback: error.stack } }
}

interface Reply<Answer> { status: number, answer?: Answer, problem?: Problem, retryAfter: number }

// One call. `status` 0 says that there was no answer: the call may or may not have been carried out.
// Of an answer only the fields that are known here are looked at (W14).
async function call<Answer> (method: string, path: string, body: unknown, seconds: number): Promise<Reply<Answer>> {
  try {
    const response = await fetch(SERVER + path, {
      method,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(seconds * 1000),
    })
    const retryAfter = Number(response.headers.get('Retry-After')) || 0
    const text = await response.text()
    if (response.status === 200) return { status: 200, answer: JSON.parse(text), retryAfter }
    const isProblem = response.headers.get('Content-Type')?.startsWith('application/problem+json')
    return { status: response.status, problem: isProblem ? JSON.parse(text) : undefined, retryAfter }
  } catch (error) {
    return { status: 0, retryAfter: 0 }
  }
}

class Worker {
  private readonly attempts = new Map<number, Attempt>()
  private stopping = false
  private requestId?: string // of the claim that has no answer yet (W2)
  private claimAt = 0
  private wake = () => {}
  private pause = 200

  async serve () {
    while (!this.stopping || this.attempts.size > 0 || this.requestId) {
      const content = this.next()
      if (content) await this.sync(content)
      else await this.sleep(this.untilDue())
    }
  }

  // W13: claim no more, let what runs go on for a while, hand back the rest.
  stop () {
    if (this.stopping) return this.handBack()
    this.stopping = true
    setTimeout(() => this.handBack(), SHUTDOWN_SECONDS * 1000).unref()
    setTimeout(() => process.exit(1), 2 * SHUTDOWN_SECONDS * 1000).unref() // the server is away
    this.wake()
  }

  private handBack () {
    for (const attempt of this.attempts.values()) attempt.stop('stopping')
  }

  // All that there is to say and to ask now; nothing where it can wait. A report is said again until
  // it has its answer (W8).
  private next (): Schemas['SyncInput'] | undefined {
    const all = [...this.attempts.values()]
    const reports = all.flatMap(({ proof, report }) => report ? [{ ...proof, ...report }] : [])
    const heartbeats = all.filter((it) => !it.report && it.beatAt <= performance.now()).map((it) => it.proof)
    const claim = this.claim(reports.length > 0)
    if (!claim && reports.length === 0 && heartbeats.length === 0) return undefined
    return { about: ABOUT, reports, heartbeats, claim }
  }

  // With nothing to do the claim waits for work (W3). The answer of one that got none may have held
  // leases, so it is repeated also while stopping: what it brings is handed back.
  private claim (hasReports: boolean): Schemas['SyncClaimInput'] | undefined {
    const room = CONCURRENCY - this.attempts.size
    const isTime = hasReports || this.attempts.size === 0 || this.claimAt <= performance.now()
    if (!this.requestId && (this.stopping || room < 1 || !isTime)) return undefined
    this.requestId ??= randomUUID()
    const isIdle = this.attempts.size === 0 && !this.stopping
    return {
      queues: QUEUES,
      limit: Math.max(1, room),
      request_id: this.requestId,
      wait_seconds: isIdle ? POLL_SECONDS : undefined,
    }
  }

  private async sync (content: Schemas['SyncInput']) {
    const path = `/workers/${encodeURIComponent(WORKER)}/sync`
    const wait = content.claim?.wait_seconds ?? 0
    const reply = await call<Schemas['SyncOutput']>('POST', path, content, wait + CALL_SECONDS)
    if (reply.answer) {
      this.pause = 200
      this.read(content, reply.answer)
    } else if (reply.problem?.code === 'validation-error' || reply.problem?.code === 'payload-too-large') {
      console.error(`sync refused: ${reply.problem.detail}`)
      await this.reportAlone()
      await this.rest(reply.retryAfter)
    } else {
      console.error(`sync: ${reply.status || 'no answer'} ${reply.problem?.detail ?? ''}`)
      await this.rest(reply.retryAfter)
    }
  }

  // W12: waits that double up to a limit, with jitter, and are never shorter than `Retry-After`.
  private async rest (retryAfter: number) {
    const wait = this.pause * (0.5 + Math.random() / 2)
    this.pause = Math.min(this.pause * 2, 5000)
    await timeout(Math.max(wait, retryAfter * 1000))
  }

  // Each item has an answer of its own. One that is a problem is never a passing one (W9).
  private read (asked: Schemas['SyncInput'], answer: Schemas['SyncOutput']) {
    for (const [index, { id }] of (asked.reports ?? []).entries()) {
      const item = answer.reports[index]
      console.error(`job ${id}: ${item?.problem?.detail ?? item?.status}`)
      this.attempts.delete(id)
    }
    for (const [index, { id }] of (asked.heartbeats ?? []).entries()) {
      const attempt = this.attempts.get(id)
      const item = answer.heartbeats[index]
      if (!attempt || !item) continue
      attempt.beatAt = attempt.nextBeat()
      if (item.problem) {
        attempt.stop('lost')
        this.attempts.delete(id)
      } else if (item.cancel_requested) {
        attempt.stop('cancelled')
      }
    }
    if (asked.claim) {
      this.requestId = undefined
      this.claimAt = performance.now() + CLAIM_EVERY_SECONDS * 1000
    }
    for (const job of answer.jobs) this.start(job)
  }

  private start (job: Job) {
    const attempt = new Attempt(job)
    this.attempts.set(job.id, attempt)
    if (this.stopping) {
      attempt.report = reportOfStop('stopping')
      return
    }
    void attempt.run().then(() => this.wake())
  }

  // A string that the server does not take (with NUL, say) makes it refuse the whole call. By its
  // single call each report is refused alone, and the job ends as failed instead.
  private async reportAlone () {
    for (const { job, report } of [...this.attempts.values()]) {
      if (!report) continue
      const body: Schemas['ReportInput'] = { ...report, worker_id: WORKER, lease_token: job.lease_token }
      const { status, problem } = await call('PATCH', `/jobs/${job.id}/status`, body, CALL_SECONDS)
      if (status === 200) this.attempts.delete(job.id)
      if (problem?.code !== 'validation-error' && problem?.code !== 'payload-too-large') continue
      const error = { type: 'ResultRefused', message: problem.detail }
      this.attempts.get(job.id)!.report = { status: 'failed', retryable: false, error }
    }
  }

  private untilDue () {
    const times = [...this.attempts.values()].map((it) => it.beatAt)
    if (!this.stopping && this.attempts.size < CONCURRENCY) times.push(this.claimAt)
    return Math.max(0, Math.min(...times) - performance.now())
  }

  private async sleep (milliseconds: number) {
    const woken = new Promise<void>((resolve) => { this.wake = resolve })
    const sleeping = new AbortController()
    await Promise.race([woken, timeout(milliseconds, undefined, { signal: sleeping.signal }).catch(() => {})])
    sleeping.abort()
  }
}

const worker = new Worker()
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => worker.stop())
console.error(`worker ${WORKER} at ${SERVER}; queues ${QUEUES}; tasks ${Object.keys(tasks)}`)
await worker.serve()
process.exit(0) // a task that did not heed its signal must not keep the process
