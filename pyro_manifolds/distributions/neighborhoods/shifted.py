"""Windows that move over time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor

from pyro_manifolds.distributions.neighborhoods.base import Neighborhood
from pyro_manifolds.distributions.neighborhoods.taps import (
    EDGES,
    Tap,
    add_moved,
    add_rolled,
    checked_taps,
    checked_weights,
    filled,
    multiply,
    read_frames,
)
from pyro_manifolds.distributions.neighborhoods.windows import TABLE_LIMIT, expect_size, offsets
from pyro_manifolds.ops.constant import Constant

__all__ = ["Shifted"]

_TAP_COST = 20  # of a rolled copy, in columns of a table


class Shifted(Neighborhood):
    r"""Capsules of slots on a ring, with windows that move along the ring from frame to frame.

    Latents and auxiliary variables have shape ``(num_frames, num_capsules, capsule_size)``; all
    capsules have the same window. It is a set of *taps* (d, e): the sum at frame l and slot i
    reads the auxiliary variable at frame l + d and slot i + e,

    .. math:: v_{l, i} = \sum_{(d, e)} u^2_{l + d, \; i + e}

    so with taps (d, d) activity moves on by one slot a frame. Here d is at most ``half_width``
    away, and e is within ``kernel_size`` of ``roll * d``: the window of the paper, for ``roll=1``.
    With ``roll=0`` it is coherent over time but does not move. :meth:`band` is the window of
    the published code, whose corners are cut, and :meth:`from_taps` takes any taps.

    A topographic latent with this neighbourhood is a whole sequence: time is an event dimension,
    and must not be subsampled.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394

    Args:
        num_frames: Number of frames S.
        capsule_size: Number of slots D of a capsule.
        half_width: Frames before and after, L.
        kernel_size: Slots of the window within a frame, K.
        num_capsules: Number of capsules C of an event. ``forward`` and ``transpose`` accept any.
        roll: Slots by which the window moves from one frame to the next.
        causal: Whether only frames up to the present count: d from -L to 0.
        edges: What there is before the first frame and after the last: "circular", the sequence
            is a full cycle; "replicate", copies of the frame at the edge; "zero", nothing, so
            that there are fewer degrees of freedom at the edges. Slots always form a ring.

    Raises:
        ValueError: If an argument is out of range, or leaves some entry without any tap.

    Example:
        >>> from pyro_manifolds.distributions import Shifted
        >>> window = Shifted(5, 6, half_width=1, kernel_size=1)
        >>> window.taps
        ((-1, -1), (0, 0), (1, 1))
        >>> u2 = torch.zeros(5, 1, 6)
        >>> u2[2, 0, 2] = 1.0
        >>> window.forward(u2)[:, 0]
        tensor([[0., 0., 0., 0., 0., 0.],
                [0., 1., 0., 0., 0., 0.],
                [0., 0., 1., 0., 0., 0.],
                [0., 0., 0., 1., 0., 0.],
                [0., 0., 0., 0., 0., 0.]])
        >>> len(Shifted.band(18, 18, 5, 1).taps)
        13
    """

    def __init__(
        self,
        num_frames: int,
        capsule_size: int,
        half_width: int = 1,
        kernel_size: int = 1,
        *,
        num_capsules: int = 1,
        roll: int = 1,
        causal: bool = False,
        edges: str = "circular",
    ) -> None:
        half_width = expect_size("Shifted", "half_width", half_width, 0)
        kernel_size = expect_size("Shifted", "kernel_size", kernel_size)
        if isinstance(roll, bool) or not isinstance(roll, int):
            raise ValueError(f"Shifted: expected roll to be an integer, got {roll!r}")
        frames = range(-half_width, 1 if causal else half_width + 1)
        taps = [(d, roll * d + e) for d in frames for e in offsets(kernel_size)]
        self._set_up(num_frames, capsule_size, taps, None, num_capsules, edges)

    @classmethod
    def band(
        cls,
        num_frames: int,
        capsule_size: int,
        length: int,
        breadth: int,
        *,
        num_capsules: int = 1,
        edges: str = "circular",
    ) -> Shifted:
        """Return the window of the published code, a band along the diagonal of a square.

        Args:
            num_frames: Number of frames.
            capsule_size: Number of slots of a capsule.
            length: Side k of the square of taps.
            breadth: How far, p, taps lie from the diagonal at most.
            num_capsules: Number of capsules.
            edges: As above.

        Example:
            >>> from pyro_manifolds.distributions import Shifted
            >>> Shifted.band(5, 6, 3, 0).taps
            ((-1, -1), (0, 0), (1, 1))
            >>> [len(Shifted.band(18, 18, k, 1).taps) for k in (5, 13, 18)]
            [13, 37, 52]
        """
        places = list(offsets(expect_size("Shifted.band", "length", length)))
        expect_size("Shifted.band", "breadth", breadth, 0)
        taps = [(a, b) for a in places for b in places if abs(a - b) <= breadth]
        return cls.from_taps(
            num_frames, capsule_size, taps, num_capsules=num_capsules, edges=edges
        )

    @classmethod
    def from_taps(
        cls,
        num_frames: int,
        capsule_size: int,
        taps: Sequence[Tap],
        *,
        weights: Tensor | None = None,
        num_capsules: int = 1,
        edges: str = "circular",
    ) -> Shifted:
        """Return the window of given taps.

        Args:
            num_frames: Number of frames.
            capsule_size: Number of slots of a capsule.
            taps: Pairs (d, e) of integers. Those that coincide count as often as they occur.
            weights: A non-negative weight for each tap, all one if not given. They may require
                gradients: then the window is learned.
            num_capsules: Number of capsules.
            edges: As above.

        Example:
            >>> from pyro_manifolds.distributions import Shifted
            >>> learned = torch.tensor([1.0, 0.5], requires_grad=True)
            >>> window = Shifted.from_taps(3, 4, [(0, 0), (-1, 0)], weights=learned)
            >>> window.dof[0, 0]
            tensor([1.5000, 1.5000, 1.5000, 1.5000], grad_fn=<SelectBackward0>)
        """
        window = cls.__new__(cls)
        window._set_up(num_frames, capsule_size, taps, weights, num_capsules, edges)
        return window

    def _set_up(
        self,
        num_frames: int,
        capsule_size: int,
        taps: Sequence[Tap],
        weights: Tensor | None,
        num_capsules: int,
        edges: str,
    ) -> None:
        self.num_frames = expect_size("Shifted", "num_frames", num_frames)
        self.capsule_size = expect_size("Shifted", "capsule_size", capsule_size)
        self.num_capsules = expect_size("Shifted", "num_capsules", num_capsules)
        if edges not in EDGES:
            raise ValueError(f"Shifted: expected edges among {', '.join(EDGES)}, got {edges!r}")
        self.edges = edges
        self.taps = checked_taps(taps)
        self.weights = None if weights is None else checked_weights(weights, len(self.taps))
        shape = Size([self.num_frames, self.num_capsules, self.capsule_size])
        self.event_shape = self.noise_shape = shape
        self._leaps = sorted({d for d, _ in self.taps})
        self._reads = [read_frames(self.num_frames, d, edges) for d in self._leaps]
        # Few taps on a large table of zeros: rolled copies are cheaper than the product.
        few = _TAP_COST * len(self.taps) < self.num_frames * self.capsule_size
        self._is_rolled = few and weights is None and edges == "circular"
        self._is_small = self.num_frames * self.capsule_size <= TABLE_LIMIT
        self._check_rows()
        build = self._whole_table if self._is_small else self._slot_tables
        self._constant = Constant(build(self._weights())) if weights is None else None

    def _check(self, name: str, x: Tensor, shape: Size) -> None:
        # Any number of capsules will do.
        frames, _, slots = shape
        if x.dim() < 3 or x.shape[-3] != frames or x.shape[-1] != slots:
            raise ValueError(
                f"Shifted: expected {name} of shape (..., {frames}, capsules, {slots}), got "
                f"{tuple(x.shape)}"
            )

    def _forward(self, u2: Tensor) -> Tensor:
        if self._is_rolled:
            return add_rolled(u2, self.taps, -1)
        tables = self._tables(u2)
        if self._is_small:
            return multiply(u2, tables.mT)
        reads = [(there, here) for here, there in self._reads]
        return add_moved(u2, tables.mT, reads)

    def _transpose(self, t2: Tensor) -> Tensor:
        if self._is_rolled:
            return add_rolled(t2, self.taps, 1)
        tables = self._tables(t2)
        if self._is_small:
            return multiply(t2, tables)
        return add_moved(t2, tables, self._reads)

    def _tables(self, x: Tensor) -> Tensor:
        if self._constant is not None:
            return self._constant.like(x)
        build = self._whole_table if self._is_small else self._slot_tables
        return build(self._weights().to(x))

    def _weights(self) -> Tensor:
        return torch.ones(len(self.taps)) if self.weights is None else self.weights

    def _whole_table(self, weights: Tensor) -> Tensor:
        """Return the matrix of one capsule, on flattened frames and slots."""
        slots = torch.arange(self.capsule_size)
        size = self.num_frames * self.capsule_size
        places, counts = [], []
        for d, e in self.taps:
            here, there = self._reads[self._leaps.index(d)]
            rows = here[:, None] * self.capsule_size + slots
            columns = there[:, None] * self.capsule_size + (slots + e) % self.capsule_size
            places.append((rows * size + columns).flatten())
            counts.append(len(places[-1]))
        entries = [w.expand(n) for w, n in zip(weights.unbind(), counts, strict=True)]
        return filled(size * size, places, entries).reshape(size, size)

    def _slot_tables(self, weights: Tensor) -> Tensor:
        """Return the matrices on the slots alone, one for each leap over frames."""
        size = self.capsule_size
        slots = torch.arange(size)
        places = [
            (self._leaps.index(d) * size + slots) * size + (slots + e) % size for d, e in self.taps
        ]
        entries = [w.expand(size) for w in weights.unbind()]
        shape = (len(self._leaps), size, size)
        return filled(math.prod(shape), places, entries).reshape(shape)

    def _frame_counts(self) -> list[int]:
        """Return how many different places of positive weight each frame reads."""
        places: list[set[Tap]] = [set() for _ in range(self.num_frames)]
        for (d, e), weight in zip(self.taps, self._weights().tolist(), strict=True):
            here, there = self._reads[self._leaps.index(d)]
            for frame, source in zip(here.tolist(), there.tolist(), strict=True):
                if weight > 0:
                    places[frame].add((source, e % self.capsule_size))
        return [len(found) for found in places]

    def _check_rows(self) -> None:
        empty = [frame for frame, count in enumerate(self._frame_counts()) if not count]
        if empty:
            raise ValueError(
                "Shifted: expected every frame to have a tap of positive weight, got none for "
                f"frames {empty} with edges={self.edges!r}; add the tap (0, 0)"
            )

    @property
    def num_terms(self) -> Tensor:
        return torch.tensor(self._frame_counts())[:, None, None].expand(self.event_shape)

    @property
    def is_binary(self) -> bool:
        return self.weights is None and super().is_binary

    def block_sums(self, x: Tensor) -> Tensor:
        return x.sum((-3, -1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shifted) or self._key() != other._key():
            return False
        return torch.equal(self._weights(), other._weights())

    def __hash__(self) -> int:
        return hash((type(self), self._key()))

    def __repr__(self) -> str:
        shape = f"{self.num_frames}, {self.capsule_size}, num_capsules={self.num_capsules}"
        return f"Shifted({shape}, edges={self.edges!r}, {len(self.taps)} taps)"

    def _key(self) -> tuple[object, ...]:
        learned = self.weights is not None
        return tuple(self.event_shape), self.taps, self.edges, learned
