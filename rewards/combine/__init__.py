"""How several rewards become one number: the tree that a recipe's `combine` describes, evaluated over whole groups."""

from align.rewards.combine.node import Node, Part, Samples
from align.rewards.combine.parse import parse_node, weighted

__all__ = ["Node", "Part", "Samples", "parse_node", "weighted"]
