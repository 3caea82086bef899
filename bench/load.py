"""Runs the load generator against a server, and refuses a measurement in which anything failed."""

import subprocess
import sys

from bench.measurement import Measurement, MeasurementFailed, Plan
from bench.subjects import ROOT


def run_load(plan: Plan) -> Measurement:
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"],
        cwd=ROOT,
        input=plan.model_dump_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measurement = Measurement.model_validate_json(done.stdout)
    if measurement.failures:
        raise MeasurementFailed(
            f"{plan.conversation}, {plan.connections} connections: {measurement.failures}; "
            f"the first answer: {measurement.first_failure!r}"
        )
    return measurement
