"""A worker to start from: `orc worker greet:app` in this folder.

It is also what the service `worker` of docker-compose.yml runs.
"""

import os

from compute_orchestrator.client import Context, Worker

app = Worker(os.environ.get("JOB_SERVER", "http://127.0.0.1:8000"))


@app.task("greet")
def greet(job: Context, name: str) -> str:
    job.log.info("looking for words")
    return f"Hello, {name}!"


if __name__ == "__main__":
    app.run()
