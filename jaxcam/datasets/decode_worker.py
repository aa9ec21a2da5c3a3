"""The worker process that decodes images; `workers` starts it and is the only one that talks to it.

Contract: pickled messages over standard input and output. First comes the Preprocessing, to which the answer is
`READY`; then a path each time, to which the answer is a `Seen` whose image is in 8 bits where that loses nothing.
The end of the input, or nobody reading the output, ends the process. Nothing but messages is written to the output:
what a library prints goes to standard error. No module imports this one, so that `python -m` can run it.
"""

import os
import pickle
import sys

from jaxcam.datasets.decoding import READY, packed
from jaxcam.datasets.views import seen_file


def main() -> None:
    """Answers until the input ends."""
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        preprocessing = pickle.load(requests)
        answer = READY
        while True:
            pickle.dump(answer, replies, protocol=pickle.HIGHEST_PROTOCOL)
            replies.flush()
            answer = packed(seen_file(pickle.load(requests), preprocessing))


if __name__ == "__main__":
    try:
        main()
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        os._exit(0)  # whoever asked has gone; leaving without more ado keeps Python from complaining about the pipe
