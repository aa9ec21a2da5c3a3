"""One process of an evaluation, for the tests that kill it: `python evaluate_process.py OPTIONS`, a dictionary in JSON.

It prints the hash of the table and of the rows, or the error.
"""

import hashlib
import json
import sys

import jax

options = json.loads(sys.argv[1])
if options.get("num_processes", 1) > 1:
    jax.distributed.initialize(
        options["coordinator"], options["num_processes"], options["process_id"], heartbeat_timeout_seconds=10
    )

import jaxcam

found = jaxcam.evaluate(
    jaxcam.models.mini_resnet(),
    jaxcam.scenes.Dataset(options["num"]),
    methods=["cam", "grad_cam", "grad_cam_pp"],
    results=options.get("results"),
    batch_size=options.get("batch_size", 8),
    num_resamples=50,
    show_progress=False,
)
told = {"devices": jax.device_count(), "table": hashlib.sha256(found.json().encode()).hexdigest()}
if jax.process_index() == 0:
    rows = "\n".join(sorted(json.dumps(row) for row in found.rows()))
    told["rows"] = hashlib.sha256(rows.encode()).hexdigest()
print(json.dumps(told), flush=True)
