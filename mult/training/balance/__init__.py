"""Task losses -> one update: weights on the losses (weighted.py), or one direction out of the tasks' gradients
(combined.py, aggregators.py). The training loop knows `Balance` alone.
"""

from mult.training.balance.aggregators import Aggregated, aggregators
from mult.training.balance.combined import GradNorm
from mult.training.balance.gradients import SharedGradients, reached_parameters
from mult.training.balance.weighted import Balance, DynamicAverage, Uncertainty

__all__ = [
    "Aggregated",
    "Balance",
    "DynamicAverage",
    "GradNorm",
    "SharedGradients",
    "Uncertainty",
    "aggregators",
    "reached_parameters",
]
