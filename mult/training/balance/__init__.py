"""Task losses -> one update: weights on the losses (weighted.py), or one direction out of the tasks' gradients
(combined.py, aggregators.py). The training loop knows `Balance` alone.
"""

from mult.training.balance.gradient_method import GradNorm
from mult.training.balance.gradients import SharedGradients, reached_parameters
from mult.training.balance.torchjd import Aggregated, aggregators
from mult.training.balance.weighted_sum import Balance, DynamicAverage, Uncertainty

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
