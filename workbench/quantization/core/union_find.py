"""Disjoint sets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class UnionFind:
    """Integers in disjoint classes, each known by its smallest member (Tarjan 1975)."""

    def __init__(self, count: int = 0) -> None:
        self.parents = list(range(count))

    def add(self, count: int) -> Array:
        """New members, each alone: their numbers."""
        start = len(self.parents)
        self.parents += range(start, start + count)
        return np.arange(start, start + count)

    def find(self, member: int) -> int:
        """The smallest member of a class."""
        while self.parents[member] != member:
            self.parents[member] = self.parents[self.parents[member]]
            member = self.parents[member]
        return member

    def union(self, left: Array, right: Array) -> None:
        """Join the classes of members that stand at the same place."""
        pairs = np.unique(np.stack([left.reshape(-1), right.reshape(-1)]), axis=1)
        for first, second in pairs.T:
            a, b = self.find(int(first)), self.find(int(second))
            self.parents[max(a, b)] = min(a, b)

    def numbers(self) -> Array:
        """The class of every member, numbered from 0 in the order of their smallest members."""
        roots = np.array([self.find(member) for member in range(len(self.parents))])
        numbers: Array = np.unique(roots, return_inverse=True)[1]
        return numbers
