// A worker in Node (20 or newer) without packages. W1 to W15 are the duties of docs/workers.md;
// `orc conformance --command 'node examples/node/worker.mjs'` checks them.
//
// Replace `tasks` by your own: everything below it can stay.

import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as timeout } from 'node:timers/promises'

// A task is given the payload and a signal that says: stop. What it returns is the result; what it
// throws is a failure. It must not block the event loop, or the heartbeats stop too: heavy
// computing belongs into a worker thread.
const tasks = {
  'conformance.echo': async ({ value }) => value,
  'conformance.sleep': async ({ seconds }, signal) => { await timeout(seconds * 1000, null, { signal }) },
  'conformance.fail': async ({ message }) => { throw new Error(message) },
}

const SERVER = process.env.ORC_URL ?? 'http://127.0.0.1:8000'
const WORKER = process.env.ORC_WORKER_ID ?? `${hostname()}-${process.pid}`
const QUEUES = (process.env.ORC_QUEUES ?? 'default').split(',') // W1: only those whose jobs are known
const CONCURRENCY = 2
const POLL_SECONDS = 5 // also the longest that a claim holds up the end (W13)
const CALL_SECONDS = 10
const SHUTDOWN_SECONDS = 8
const UNKNOWN_NAME_SECONDS = 10

const stopping = new AbortController() // claim no more
const handingBack = new AbortController() // stop what runs, and release it

// One call. `status` 0 says that there was no answer: the call may or may not have been carried out.
// Of an answer only the fields that are known here are looked at (W14).
async function call (method, path, body, seconds = CALL_SECONDS) {
  try {
    const response = await fetch(SERVER + path, {
      method,
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(seconds * 1000),
    })
    const text = await response.text()
    const retryAfter = Number(response.headers.get('Retry-After')) || 0
    let answer = null
    try { answer = text ? JSON.parse(text) : null } catch { /* the page of a proxy, say */ }
    return { status: response.status, answer, retryAfter }
  } catch (error) {
    return { status: 0, answer: { detail: String(error.cause ?? error) }, retryAfter: 0 }
  }
}

// W9: these are the server's own words on what was sent, and no repeat would change them. All else
// (no answer, a 5xx, the 404 of another program on the port) may be better the next time.
const REFUSED_CONTENT = new Set(['validation-error', 'payload-too-large'])
const FINAL = new Set(['lease-lost', 'invalid-transition', 'job-not-found', ...REFUSED_CONTENT])
const isFinal = ({ status, answer }) => status >= 400 && FINAL.has(answer?.code)

// W12: waits that double up to a limit, with jitter, and are never shorter than `Retry-After`.
function backoff (longest = 10) {
  let next = 0.2
  return (retryAfter = 0) => {
    const wait = next * (0.5 + Math.random() / 2)
    next = Math.min(next * 2, longest)
    return Math.max(wait, retryAfter)
  }
}

// A sleep that a signal cuts short.
const nap = (seconds, signal) => timeout(seconds * 1000, null, { signal }).catch(() => {})

// W2: the same request_id until there is an answer; the answer that was lost may have held a lease.
async function claim () {
  const body = { worker_id: WORKER, queues: QUEUES, request_id: randomUUID() }
  const pause = backoff()
  let open = false // whether a lease may have been given that we do not know of
  while (open || !stopping.signal.aborted) {
    const wait = stopping.signal.aborted ? 0 : POLL_SECONDS // W3
    const { status, answer, retryAfter } = await call(
      'POST', '/jobs/claim', { ...body, wait_seconds: wait }, wait + CALL_SECONDS)
    if (status === 200) return answer
    if (status === 204) return null
    open ||= status === 0 || status >= 500
    console.error(`claim: ${status || 'no answer'} ${answer?.detail ?? ''}`)
    await nap(pause(retryAfter), open ? undefined : stopping.signal)
    if (handingBack.signal.aborted) return null // the time to stop is over: the lease runs out
  }
  return null
}

// W5: heartbeats at a third of the lease until `until` says stop, also while the report is repeated.
async function keepAlive (job, proof, { until, lost, cancelled }) {
  const start = Date.parse(job.last_heartbeat_at ?? job.locked_at)
  const third = (Date.parse(job.lease_expires_at) - start) / 3000
  const pause = backoff(third)
  let wait = third
  while (!until.aborted) {
    await nap(wait * (0.8 + Math.random() / 5), until)
    if (until.aborted) return
    const beat = await call('POST', `/jobs/${job.id}/heartbeat`, proof, Math.max(1, third))
    if (beat.answer?.code === 'lease-lost' || beat.answer?.code === 'job-not-found') return lost()
    if (beat.status === 200 && beat.answer.cancel_requested) cancelled()
    wait = beat.status === 200 ? third : Math.min(pause(beat.retryAfter), third)
  }
}

// W7, W8: until the server took it or refused it for good.
async function report (job, proof, outcome) {
  const pause = backoff(5)
  while (true) {
    const reply = await call('PATCH', `/jobs/${job.id}/status`, { ...proof, ...outcome })
    if (reply.status === 200 || isFinal(reply)) {
      console.error(`job ${job.id}: ${outcome.status}: ${reply.answer?.code ?? 'taken'}`)
      if (outcome.status === 'succeeded' && REFUSED_CONTENT.has(reply.answer?.code)) {
        const error = { type: 'ResultRefused', message: reply.answer.detail }
        outcome = { status: 'failed', retryable: false, error } // else it would run again, for the same
        continue
      }
      return
    }
    await nap(pause(reply.retryAfter))
  }
}

// What came of one attempt, as a report; null where there is nothing to report.
async function attempt (job, stop) {
  const task = tasks[job.name]
  if (!task) return { status: 'queued', run_in_seconds: UNKNOWN_NAME_SECONDS } // W4
  try {
    const work = task(job.payload, stop.signal)
    const stopped = new Promise((resolve, reject) => stop.signal.addEventListener('abort', () => reject(stop.signal.reason)))
    return { status: 'succeeded', result: await Promise.race([work, stopped]) ?? null }
  } catch (error) {
    if (!stop.signal.aborted) {
      return { status: 'failed', error: { type: error.name, message: error.message, traceback: error.stack } }
    }
    switch (stop.signal.reason) {
      case 'lost': return null // W10: somebody else may have it
      case 'cancelled': return { status: 'cancelled' } // W11
      default: return { status: 'queued' } // W13: handed back, which costs no retry
    }
  }
}

async function work (job) {
  const proof = { worker_id: WORKER, lease_token: job.lease_token } // W6
  const stop = new AbortController()
  const over = new AbortController()
  const handBack = () => stop.abort('stopping')
  handingBack.signal.addEventListener('abort', handBack, { once: true })
  const keeping = keepAlive(job, proof, {
    until: over.signal,
    lost: () => stop.abort('lost'),
    cancelled: () => stop.abort('cancelled'),
  })
  if (handingBack.signal.aborted) handBack()
  const outcome = await attempt(job, stop)
  if (outcome) await report(job, proof, outcome)
  over.abort()
  handingBack.signal.removeEventListener('abort', handBack)
  await keeping
}

async function serve () {
  while (!stopping.signal.aborted) {
    const job = await claim()
    if (job) await work(job)
  }
}

// W13: claim no more, let what runs go on for a while, hand back the rest, and end with 0.
function stop () {
  if (stopping.signal.aborted) return handingBack.abort()
  stopping.abort()
  setTimeout(() => handingBack.abort(), SHUTDOWN_SECONDS * 1000).unref()
  setTimeout(() => process.exit(1), 2 * SHUTDOWN_SECONDS * 1000).unref() // the server is away
}

process.on('SIGTERM', stop)
process.on('SIGINT', stop)
console.error(`worker ${WORKER} at ${SERVER}; queues ${QUEUES}; tasks ${Object.keys(tasks)}`)
await Promise.all(Array.from({ length: CONCURRENCY }, serve))
process.exit(0) // a task that did not heed its signal must not keep the process
