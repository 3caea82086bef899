// A worker in Go (1.19 or newer) with the standard library alone. W1 to W15 are the duties of
// docs/workers.md. Built by `go build -o worker .` in this folder, it is checked by
// `orc conformance --command examples/go/worker`.
//
// Replace `tasks` by your own: everything below it can stay.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	mathrand "math/rand"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A task is given the payload and a context that ends when it is to stop. What it returns is the
// result; an error is a failure.
var tasks = map[string]func(context.Context, json.RawMessage) (any, error){
	"conformance.echo": func(_ context.Context, payload json.RawMessage) (any, error) {
		var input struct{ Value json.RawMessage }
		err := json.Unmarshal(payload, &input)
		return input.Value, err
	},
	"conformance.sleep": func(ctx context.Context, payload json.RawMessage) (any, error) {
		var input struct{ Seconds float64 }
		if err := json.Unmarshal(payload, &input); err != nil {
			return nil, err
		}
		return nil, sleep(ctx, seconds(input.Seconds))
	},
	"conformance.fail": func(_ context.Context, payload json.RawMessage) (any, error) {
		var input struct{ Message string }
		if err := json.Unmarshal(payload, &input); err != nil {
			return nil, err
		}
		return nil, errors.New(input.Message)
	},
}

const (
	concurrency  = 2
	pollTime     = 5 * time.Second // also the longest that a claim holds up the end (W13)
	callTime     = 10 * time.Second
	shutdownTime = 8 * time.Second
	unknownName  = 10 // seconds
)

var (
	url      = setting("ORC_URL", "http://127.0.0.1:8000")
	workerID = setting("ORC_WORKER_ID", ownName())
	queues   = strings.Split(setting("ORC_QUEUES", "default"), ",") // W1: only those it knows
)

// Job is what a worker needs of a claim's answer. Fields that it does not know are ignored (W14).
type Job struct {
	ID              int64           `json:"id"`
	Name            string          `json:"name"`
	Payload         json.RawMessage `json:"payload"`
	LeaseToken      string          `json:"lease_token"`
	LockedAt        time.Time       `json:"locked_at"`
	LastHeartbeatAt time.Time       `json:"last_heartbeat_at"`
	LeaseExpiresAt  time.Time       `json:"lease_expires_at"`
}

type body = map[string]any

// Reply is the answer to a call; Status 0 says that there was none: the call may or may not have
// been carried out.
type Reply struct {
	Status     int
	Body       []byte
	RetryAfter time.Duration
	Code       string // of a problem
}

func call(method, path string, content body, limit time.Duration) Reply {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	encoded, err := json.Marshal(content)
	if err != nil {
		return Reply{Body: []byte(err.Error())}
	}
	request, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(encoded))
	if err != nil {
		return Reply{Body: []byte(err.Error())}
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Reply{Body: []byte(err.Error())}
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return Reply{Body: []byte(err.Error())}
	}
	reply := Reply{Status: response.StatusCode, Body: answer}
	if wait, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		reply.RetryAfter = time.Duration(wait) * time.Second
	}
	if reply.Status >= 400 {
		var problem struct{ Code string }
		_ = json.Unmarshal(answer, &problem) // the page of a proxy has no code
		reply.Code = problem.Code
	}
	return reply
}

// W9: these are the server's own words on what was sent, and no repeat would change them. All else
// (no answer, a 5xx, the 404 of another program on the port) may be better the next time.
func (r Reply) isFinal() bool {
	switch r.Code {
	case "lease-lost", "invalid-transition", "job-not-found":
		return true
	}
	return r.refusesContent()
}

func (r Reply) refusesContent() bool {
	return r.Code == "validation-error" || r.Code == "payload-too-large"
}

// W12: waits that double up to a limit, with jitter, and are never shorter than `Retry-After`.
type backoff struct{ next, longest time.Duration }

func newBackoff(longest time.Duration) *backoff { return &backoff{200 * time.Millisecond, longest} }

func (b *backoff) wait(retryAfter time.Duration) time.Duration {
	wait := b.next/2 + time.Duration(mathrand.Int63n(int64(b.next/2)+1))
	if b.next *= 2; b.next > b.longest {
		b.next = b.longest
	}
	if wait < retryAfter {
		return retryAfter
	}
	return wait
}

// Worker has two stops: to claim no more, and to hand back what still runs.
type Worker struct{ stopping, handingBack context.Context }

// W2: the same request_id until there is an answer; the answer that was lost may have held a lease.
func (w Worker) claim() *Job {
	content := body{"worker_id": workerID, "queues": queues, "request_id": randomID()}
	pause := newBackoff(10 * time.Second)
	open := false // whether a lease may have been given that we do not know of
	for open || w.stopping.Err() == nil {
		poll := pollTime // W3
		if w.stopping.Err() != nil {
			poll = 0
		}
		content["wait_seconds"] = poll.Seconds()
		reply := call("POST", "/jobs/claim", content, poll+callTime)
		if reply.Status == 200 {
			var job Job
			if err := json.Unmarshal(reply.Body, &job); err != nil {
				log.Fatalf("a claim's answer can't be read: %v", err)
			}
			return &job
		}
		if reply.Status == 204 {
			return nil
		}
		log.Printf("claim: %d %s", reply.Status, reply.Body)
		open = open || reply.Status == 0 || reply.Status >= 500
		until := w.stopping
		if open {
			until = w.handingBack
		}
		if sleep(until, pause.wait(reply.RetryAfter)) != nil {
			return nil
		}
	}
	return nil
}

var (
	errLost      = errors.New("the lease is lost")
	errCancelled = errors.New("a cancel was requested")
	errStopping  = errors.New("the worker stops")
)

// Attempt is one run of one job.
type Attempt struct {
	job    Job
	cancel context.CancelFunc // stops the task
	mutex  sync.Mutex
	reason error // why it was stopped
}

// stop tells the task to; the first reason counts.
func (a *Attempt) stop(reason error) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	if a.reason == nil {
		a.reason = reason
	}
	a.cancel()
}

func (a *Attempt) stopped() error {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	return a.reason
}

// W6: what each heartbeat and report carries.
func (a *Attempt) with(content body) body {
	content["worker_id"], content["lease_token"] = workerID, a.job.LeaseToken
	return content
}

// W5: heartbeats at a third of the lease until the report was answered, which ends `ctx`.
func (a *Attempt) keepAlive(ctx context.Context) {
	start := a.job.LockedAt
	if a.job.LastHeartbeatAt.After(start) {
		start = a.job.LastHeartbeatAt
	}
	third := a.job.LeaseExpiresAt.Sub(start) / 3
	pause := newBackoff(third)
	for wait := third; sleep(ctx, wait*4/5+time.Duration(mathrand.Int63n(int64(wait/5)+1))) == nil; {
		limit := third
		if limit < time.Second {
			limit = time.Second
		}
		reply := call("POST", fmt.Sprintf("/jobs/%d/heartbeat", a.job.ID), a.with(body{}), limit)
		if reply.Code == "lease-lost" || reply.Code == "job-not-found" {
			a.stop(errLost)
			return
		}
		if reply.Status != 200 {
			if wait = pause.wait(reply.RetryAfter); wait > third {
				wait = third
			}
			continue
		}
		wait = third
		var lease struct {
			CancelRequested bool `json:"cancel_requested"`
		}
		if json.Unmarshal(reply.Body, &lease) == nil && lease.CancelRequested {
			a.stop(errCancelled)
		}
	}
}

// outcome runs the task and says what came of it, as a report; nil where there is none.
func (a *Attempt) outcome(ctx context.Context) body {
	task, known := tasks[a.job.Name]
	if !known {
		return body{"status": "queued", "run_in_seconds": unknownName} // W4
	}
	type ended struct {
		result any
		err    error
	}
	over := make(chan ended, 1)
	go func() {
		result, err := task(ctx, a.job.Payload)
		over <- ended{result, err}
	}()
	var end ended
	select {
	case end = <-over:
	case <-ctx.Done(): // a task that does not heed its context is left behind
		end.err = ctx.Err()
	}
	switch reason := a.stopped(); {
	case reason == errLost:
		return nil // W10: somebody else may have it
	case end.err == nil:
		return body{"status": "succeeded", "result": end.result}
	case reason == errCancelled:
		return body{"status": "cancelled"} // W11
	case reason == errStopping:
		return body{"status": "queued"} // W13: handed back, which costs no retry
	}
	failure := body{"type": fmt.Sprintf("%T", end.err), "message": end.err.Error()}
	return body{"status": "failed", "error": failure}
}

// W7, W8: until the server took it or refused it for good.
func (a *Attempt) report(content body) {
	pause := newBackoff(5 * time.Second)
	for {
		reply := call("PATCH", fmt.Sprintf("/jobs/%d/status", a.job.ID), a.with(content), callTime)
		if reply.Status == 200 || reply.isFinal() {
			log.Printf("job %d: %v: %d %s", a.job.ID, content["status"], reply.Status, reply.Code)
			if content["status"] == "succeeded" && reply.refusesContent() {
				failure := body{"type": "ResultRefused", "message": string(reply.Body)}
				content = body{"status": "failed", "retryable": false, "error": failure}
				continue // else it would run again, for the same
			}
			return
		}
		time.Sleep(pause.wait(reply.RetryAfter))
	}
}

func (w Worker) work(job Job) {
	ctx, cancel := context.WithCancel(context.Background())
	attempt := &Attempt{job: job, cancel: cancel}
	answered, end := context.WithCancel(context.Background())
	defer end()
	go attempt.keepAlive(answered)
	go func() {
		select {
		case <-w.handingBack.Done():
			attempt.stop(errStopping)
		case <-answered.Done():
		}
	}()
	content := attempt.outcome(ctx)
	cancel()
	if content != nil {
		attempt.report(content)
	}
}

// W13: claim no more, let what runs go on for a while, hand back the rest, and end with 0.
func main() {
	mathrand.Seed(time.Now().UnixNano()) // from Go 1.20 on it does so by itself
	stopping, stop := context.WithCancel(context.Background())
	handingBack, handBack := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		stop()
		select {
		case <-signals: // a second one: at once
		case <-time.After(shutdownTime):
		}
		handBack()
		time.Sleep(shutdownTime)
		os.Exit(1) // the server is away: leases are left to run out
	}()
	log.Printf("worker %s at %s; queues %v", workerID, url, queues)
	worker := Worker{stopping, handingBack}
	var loops sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		loops.Add(1)
		go func() {
			defer loops.Done()
			for stopping.Err() == nil {
				if job := worker.claim(); job != nil {
					worker.work(*job)
				}
			}
		}()
	}
	loops.Wait()
}

func sleep(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

func randomID() string {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		log.Fatal(err)
	}
	return fmt.Sprintf("%x", id)
}

func ownName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
