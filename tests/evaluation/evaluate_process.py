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

import jax.numpy as jnp
import numpy as np

import jaxcam

if options.get("kind") == "inputs":  # two inputs, of which the series is masked, and a target
    kernel = jax.random.normal(jax.random.key(1), (5, 3, 8))

    def model(inputs):
        x = jax.lax.conv_general_dilated(inputs["series"], kernel, (2,), "SAME", None, None, ("NWC", "WIO", "NWC"))
        return jnp.tanh(x).mean(1) * inputs["facts"]

    drawn = jax.device_get(jaxcam.scenes.many(jaxcam.scenes.series, 0, options["num"], length=64))
    facts = np.random.default_rng(0).normal(size=(options["num"], 8)).astype(np.float32)
    parts = zip(drawn.values, facts, drawn.masks, strict=True)
    data = [jaxcam.Example({"series": x, "facts": f}, masks=masks) for x, f, masks in parts]
    asked = {"methods": ["grad_cam", "layer_cam"], "target": lambda outputs, inputs: outputs[2] - inputs["facts"][1]}
    asked["metrics"] = ("localisation", "deletion", "curves")
elif options.get("kind") == "pictures":  # a small network, and the metrics that take steps of their own or tallies
    kernels = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(3, 3, 2, 6), (6, 4)])]

    def model(x):
        x = jax.lax.conv_general_dilated(x, kernels[0], (1, 1), "SAME", None, None, ("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(x).mean((1, 2)) @ kernels[1]

    draws, masks = np.random.default_rng(0), np.zeros((1, 12, 10), bool)
    masks[0, 3:9, 2:7] = True
    pictures = draws.normal(size=(options["num"], 12, 10, 2)).astype(np.float32)
    known = {"boxes": np.array([[2.0, 3, 7, 9]]), "masks": masks}
    data = [jaxcam.Example(x, label=i % 4, box_classes=[i % 4], **known) for i, x in enumerate(pictures)]
    protocol = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true", num_squares=3, num_noises=2)
    asked = {"methods": ["grad_cam", "layer_cam"], "protocol": protocol}
    asked["metrics"] = ("instances", "thresholds", "road", "infidelity", "sensitivity", "randomised")
else:
    model, data = jaxcam.models.mini_resnet(), jaxcam.scenes.Dataset(options["num"])
    asked = {"methods": ["cam", "grad_cam", "grad_cam_pp"]}
found = jaxcam.evaluate(
    model,
    data,
    **asked,
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
