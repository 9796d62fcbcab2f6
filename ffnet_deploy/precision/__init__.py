"""FP16 and BF16 written into a graph as types, decided from ranges that real images show."""

from ffnet_deploy.precision.assign import Typed, TypingReport, assign_types, type_graph
from ffnet_deploy.precision.policy import TypingOptions
from ffnet_deploy.precision.simulate import simulated

__all__ = ["Typed", "TypingOptions", "TypingReport", "assign_types", "simulated", "type_graph"]
