"""The index of the lifecycle's SQL: one file an operation, both dialects on one page.

| file         | moves                                | what its WHERE holds                      |
|--------------|--------------------------------------|-------------------------------------------|
| create.py    | nothing -> queued                    | promise 8: a key names the jobs of a call |
| promote.py   | delayed -> claimable (both `queued`) | only what is due                          |
| claim.py     | queued -> running                    | promises 2, 7: queued, in order, unpaused |
| heartbeat.py | extends a lease                      | promise 3: running under this token       |
| report.py    | running -> succeeded; reads leases   | promise 3: running under this token       |
| leave.py     | running -> whatever was decided      | promise 3: running under this token       |
| reap.py      | finds expired leases; the watch      | promise 9: expired, watched long enough   |
| cancel.py    | queued -> cancelled; marks running   | the status it was read in                 |
| retry.py     | final -> queued                      | the status is final                       |
| prune.py     | deletes finished jobs                | finished before the cutoff                |
| trail.py     | writes trail and counters            | one INSERT a table a transaction          |
| look.py      | what those who wait would find       |                                           |
| read.py      | jobs, pages of jobs and events       |                                           |
| stats.py     | counters: read, fold                 |                                           |
| queues.py    | pause                                |                                           |
| workers.py   | sightings                            |                                           |
| writable.py  | whether the store takes writes       |                                           |

Every operation takes a list. On SQLite the list is one JSON parameter, read through `json_each`;
JSON values travel in it as strings. Times are microseconds (`domain.values.Micros`).
"""
