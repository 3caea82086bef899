#!/usr/bin/env bash
# A worker in bash (4.3 or newer) with curl and jq. W1 to W15 are the duties of docs/workers.md;
# `orc conformance --command 'bash examples/bash/worker.sh'` checks them.
#
# Replace the tasks by your own: everything below them can stay. It does one job at a time; for more,
# start it several times.
set -uo pipefail

# A task reads the payload (JSON) from its input and writes the result (JSON, or nothing) to its
# output. It fails by ending with another code than 0; what it wrote to standard error is the reason.
echo_back() { jq .value; }
sleep_a_while() { sleep "$(jq .seconds)"; }
fail() { jq -r .message >&2; return 1; }

declare -A tasks=(
    [conformance.echo]=echo_back
    [conformance.sleep]=sleep_a_while
    [conformance.fail]=fail
)

url=${ORC_URL:-http://127.0.0.1:8000}
worker_id=${ORC_WORKER_ID:-$HOSTNAME-$$}
queues=$(jq -nc --arg names "${ORC_QUEUES:-default}" '$names / ","') # W1: only those it knows
poll_seconds=5 # also the longest that a claim holds up the end (W13)
call_seconds=10
shutdown_seconds=8
unknown_name_seconds=10

work=$(mktemp -d)
stopping=0 # how many times it was told to
task=      # the process of the job that runs
claims=0

log() { echo "$*" >&2; }

# A process in a group of its own, so that it can be ended with all that it started.
spawn() {
    set -m
    "$@" &
    set +m
}
end() { kill -"$1" -- -"$2" 2>/dev/null; }

# A sleep that a signal cuts short, in milliseconds.
nap() {
    sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))" &
    wait $! || kill $! 2>/dev/null
}

# One call: method, path, the longest time; the body is its input, the answer goes to the file $said.
# `status` 000 says that there was no answer: the call may or may not have been carried out.
said=$work/said
call() {
    : >"$said"
    : >"$said.head"
    status=$(curl --silent --max-time "$3" --request "$1" --header 'Content-Type: application/json' \
        --data-binary @- --dump-header "$said.head" --output "$said" --write-out '%{http_code}' \
        "$url$2") || status=000
    retry_after=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9][0-9]*\).*/\1/p' "$said.head")
    code=$(jq -r '.code? // empty' "$said" 2>/dev/null)
}

# W9: these are the server's own words on what was sent, and no repeat would change them. All else
# (no answer, a 5xx, the 404 of another program on the port) may be better the next time.
is_final() {
    [[ $code =~ ^(lease-lost|invalid-transition|job-not-found|validation-error|payload-too-large)$ ]]
}

# W12: waits that double up to a limit, with jitter, and are never shorter than `Retry-After`.
pause_ms=200
back_off() {
    local wait=$((pause_ms / 2 + pause_ms * RANDOM / 65536))
    pause_ms=$((pause_ms * 2 < 8000 ? pause_ms * 2 : 8000))
    nap $((wait > ${retry_after:-0} * 1000 ? wait : ${retry_after:-0} * 1000))
}

# W2: the same request_id until there is an answer; the answer that was lost may have held a lease.
claim() {
    local request_id open=0 wait_seconds
    request_id=$(date +%s)-$$-$((++claims))
    pause_ms=200
    while ((open || !stopping)); do
        wait_seconds=$((stopping ? 0 : poll_seconds)) # W3
        call POST /jobs/claim $((wait_seconds + call_seconds)) < <(
            jq -nc --arg w "$worker_id" --argjson q "$queues" --arg r "$request_id" \
                --argjson s "$wait_seconds" \
                '{worker_id: $w, queues: $q, request_id: $r, wait_seconds: $s}')
        case $status in
        200) mv "$said" "$work/job" && return 0 ;;
        204) return 1 ;;
        000 | 5*) open=1 ;; # a lease may have been given that we do not know of
        esac
        log "claim: $status $(jq -r '.detail? // empty' "$said" 2>/dev/null)"
        back_off
    done
    return 1
}

# Of an answer only the fields that are known here are looked at (W14).
of_job() { jq -r "$@" "$work/job"; }

# W5: heartbeats at a third of the lease, until it is ended, which is when the report was answered.
keep_alive() {
    said=$work/beat
    while nap $((third_ms * 4 / 5 + third_ms * RANDOM / 163840)); do
        if ! kill -0 $$ 2>/dev/null; then # the worker itself was killed: its job must come back
            end KILL "$task"
            return
        fi
        call POST "/jobs/$id/heartbeat" $((third_ms < 3000 ? 2 : third_ms / 1000)) <"$work/proof"
        if [[ $code == lease-lost || $code == job-not-found ]]; then
            stop_task lost
            return
        elif [[ $status == 200 && $(jq .cancel_requested "$said") == true ]]; then
            stop_task cancelled
        fi
    done
}

# The first reason counts.
stop_task() {
    [[ -e $work/stopped ]] || echo "$1" >"$work/stopped"
    end TERM "$task"
    sleep 1
    end KILL "$task"
}

run_task() {
    "$1" <"$work/payload" >"$work/result" 2>"$work/reason"
    echo $? >"$work/code"
}

# What came of the attempt, as a report; nothing where there is nothing to report.
outcome() {
    case $(cat "$work/stopped" 2>/dev/null) in
    lost) return ;;                                  # W10: somebody else may have it
    cancelled) echo '{"status": "cancelled"}' ;;     # W11
    released) echo '{"status": "queued"}' ;;         # W13: handed back, which costs no retry
    *)
        if [[ $(cat "$work/code" 2>/dev/null) != 0 ]]; then
            jq -nc --rawfile m "$work/reason" \
                '{status: "failed", error: {type: "Failed", message: ($m | rtrimstr("\n"))}}'
        elif [[ -s $work/result ]]; then
            jq -ces '{status: "succeeded", result: (if length == 1 then .[0] else error end)}' \
                "$work/result" 2>/dev/null ||
                echo '{"status": "failed", "error": {"message": "its output is not one JSON value"}}'
        else
            echo '{"status": "succeeded"}'
        fi
        ;;
    esac
}

# W7, W8: until the server took it or refused it for good. Heartbeats go on meanwhile.
report() {
    pause_ms=200
    jq -c --slurpfile proof "$work/proof" '. + $proof[0]' >"$work/report"
    while :; do
        call PATCH "/jobs/$id/status" "$call_seconds" <"$work/report"
        if [[ $status == 200 ]] || is_final; then
            log "job $id: $(jq -r .status "$work/report"): ${code:-taken}"
            [[ $code == validation-error || $code == payload-too-large ]] || return
            [[ $(jq -r .status "$work/report") == succeeded ]] || return
            # Else it would run again, for the same.
            jq -c --slurpfile problem "$said" '{worker_id, lease_token, status: "failed",
                retryable: false, error: {type: "ResultRefused", message: $problem[0].detail}}' \
                "$work/report" >"$work/instead"
            mv "$work/instead" "$work/report"
            continue
        fi
        back_off
    done
}

work() {
    local name keeper
    rm -f "$work"/{stopped,code,result,reason}
    id=$(of_job .id)
    name=$(of_job .name)
    third_ms=$(of_job 'def at: (.[0:19] + "Z" | fromdate) + ("0." + .[20:26] | tonumber);
        (.lease_expires_at | at) - ([.locked_at, .last_heartbeat_at] | map(values | at) | max)
        | . * 1000 / 3 | floor')
    of_job -c '{worker_id: .locked_by, lease_token}' >"$work/proof" # W6
    of_job -c .payload >"$work/payload"
    if [[ -z ${tasks[$name]-} ]]; then
        report <<<"{\"status\": \"queued\", \"run_in_seconds\": $unknown_name_seconds}" # W4
        return
    fi
    spawn run_task "${tasks[$name]}"
    task=$!
    spawn keep_alive
    keeper=$!
    ((stopping > 1)) && hand_back
    while kill -0 "$task" 2>/dev/null; do wait "$task"; done # a signal ends a wait early
    task=
    outcome >"$work/outcome"
    [[ -s $work/outcome ]] && report <"$work/outcome"
    end KILL "$keeper"
}

# W13: claim no more, let what runs go on for a while, hand back the rest, and end with 0.
stop() {
    if ((stopping++)); then hand_back; else spawn remind; fi
}
remind() {
    sleep "$shutdown_seconds"
    kill -TERM $$
    sleep "$shutdown_seconds"
    kill -KILL $$ # the server is away: leases are left to run out
}
hand_back() { [[ -n $task ]] && spawn stop_task released; }

clean_up() {
    local process
    for process in $(jobs -p); do end KILL "$process"; done
    rm -rf "$work"
}

trap stop TERM INT
trap clean_up EXIT
log "worker $worker_id at $url; queues $queues; tasks ${!tasks[*]}"
while ((!stopping)); do
    claim && work
done
exit 0
