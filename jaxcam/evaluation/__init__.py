"""Evaluation: what each method's maps are worth on a data set of any size, as a table with intervals.

`evaluate` is the way in: blocks of pictures go to the devices (`run`, `block`), a line for each picture to the results
file (`journal`), and from the lines comes the table (`table`). `Protocol` says what is measured in detail, `ledger` how
others measured.
"""

from jaxcam.evaluation.evaluate import evaluate as evaluate
from jaxcam.evaluation.ledger import ledger as ledger
from jaxcam.evaluation.protocol import Protocol as Protocol
from jaxcam.evaluation.result import Evaluation as Evaluation

__all__ = ["Evaluation", "Protocol", "evaluate", "ledger"]
