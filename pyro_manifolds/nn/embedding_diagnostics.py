"""What a learned embedding misses, where it folds, and where the seam of its target lies."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding
from pyro_manifolds.distributions.transforms.manifold_embedding import ManifoldEmbedding
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn.embedding_sheets import (
    domain_unit,
    lengths,
    other_sheet,
    overlapping,
    resolution,
)
from pyro_manifolds.ops.discrepancies import energy_distance_test

__all__ = ["EmbeddingDiagnostics", "diagnose_embedding"]

_COLLAPSED = 1e-3  # of the median singular value
_FOLDED, _MISSED, _STRAYED = 0.01, 0.05, 0.05  # shares that call for a warning
_GOOD_COVERAGE, _GOOD_COLLISIONS = 0.99, 0.002


@dataclass(frozen=True)
class EmbeddingDiagnostics:
    """What :func:`diagnose_embedding` finds. Shares are between 0 and 1.

    Attributes:
        coverage: Share of samples of the target within ``tolerance`` of the image.
        strays: Share of the image farther than twice ``tolerance`` from all samples.
        tolerance: Distance to the nearest other sample that 99 of 100 samples stay below, and at
            least a hundredth of the root mean square distance from their mean.
        misfit: Median distance of a sample to the image.
        collisions: Share of the image that another part of it overlaps, within twice
            ``tolerance``.
        singular_values: Least, median and greatest singular value of the Jacobian. The least is
            zero at a fold; for a sphere it is small at the seam, which is one point.
        round_trip: Share of points of the domain that the inverse does not bring back.
        energy_distance: Squared energy distance of the image of the base to the target.
        energy_null: What 95 of 100 pairs of samples of one and the same law stay below.
        image_volume: Length, area or volume of the image; only for a uniform base.
        target_volume: That of the target, if that is a manifold for which it is known.
        swept: Turn of the image as a share of a full one; only for a circle.
        monotone: Share of the image that runs the one way round; only for a circle.
        closed: Share of the edge of the domain whose image meets another part of the image.
        seam: Images of these points of the edge, shape ``[k, embed_dim]``. A smooth embedding of
            a cube or of R^m has a seam on every closed manifold; the inverse jumps there.
        missed: Samples that are not covered, the farthest first, shape ``[k, embed_dim]``.
    """

    coverage: float
    strays: float
    tolerance: float
    misfit: float
    collisions: float
    singular_values: tuple[float, float, float]
    round_trip: float
    energy_distance: float
    energy_null: float
    image_volume: float | None
    target_volume: float | None
    swept: float | None
    monotone: float | None
    closed: float
    seam: Tensor
    missed: Tensor

    @property
    def folds(self) -> bool:
        """Whether the map folds: parts of the image overlap, turn back, or lose a dimension."""
        least, median, _ = self.singular_values
        turns = self.monotone is not None and self.monotone < 1 - _FOLDED
        return self.collisions > _FOLDED or least < _COLLAPSED * median or turns

    @property
    def good(self) -> bool:
        """Whether the image covers the target once, closely and with the right density."""
        once = self.coverage >= _GOOD_COVERAGE and self.collisions <= _GOOD_COLLISIONS
        close = self.misfit <= 0.1 * self.tolerance
        return once and close and not self.folds and self.energy_distance <= self.energy_null

    @property
    def penalty(self) -> float:
        """One number to choose the better of two embeddings of one target by; less is better."""
        turned = 0.0 if self.monotone is None else 1 - self.monotone
        shares = 1 - self.coverage + self.collisions + self.strays + turned
        return shares + self.misfit / self.tolerance

    def complaints(self) -> list[str]:
        """Return what is wrong, in words."""
        found = []
        if self.folds:
            least, median, _ = self.singular_values
            turns = "" if self.monotone is None else f", {1 - self.monotone:.1%} turns back"
            found.append(
                f"it folds: {self.collisions:.1%} of the image overlaps{turns}, least singular "
                f"value {least:.2g} (median {median:.2g}); log_prob is wrong there"
            )
        if 1 - self.coverage > _MISSED:
            found.append(f"it misses {1 - self.coverage:.1%} of the target")
        if self.strays > _STRAYED:
            found.append(f"{self.strays:.1%} of the image is off the target")
        return found

    def __str__(self) -> str:
        least, median, greatest = self.singular_values
        rows = {
            "coverage": f"{self.coverage:.2%} of samples within {self.tolerance:.3g}",
            "off the target": f"{self.strays:.2%} of the image",
            "misfit": f"{self.misfit:.2g}, median distance of a sample to the image",
            "overlap": f"{self.collisions:.2%} of the image",
            "singular values": f"{least:.3g} to {greatest:.3g}, median {median:.3g}",
            "round trip": f"{self.round_trip:.2%} of codes not recovered",
            "energy distance": f"{self.energy_distance:.2g}, squared; of equal laws below "
            f"{self.energy_null:.2g}",
        }
        if self.image_volume is not None:
            target = "" if self.target_volume is None else f" of {self.target_volume:.4g}"
            rows["volume"] = f"{self.image_volume:.4g}{target}"
        if self.swept is not None and self.monotone is not None:
            rows["turn"] = f"{self.swept:.2%} of a circle, {self.monotone:.2%} of it one way"
        rows["seam"] = self._seam_in_words()
        rows["verdict"] = "; ".join(self.complaints()) or "no fold found"
        return "\n".join(f"{name:<16}{text}" for name, text in rows.items())

    def _seam_in_words(self) -> str:
        if not len(self.seam):
            return "none: the edges of the image do not meet"
        centre = self.seam.mean(0)
        radius = (self.seam - centre).norm(dim=-1).max().item()
        place = ", ".join(f"{x:.2f}" for x in centre[:6].tolist())
        place += ", ..." if len(centre) > 6 else ""
        return f"{self.closed:.0%} of the edge of the domain, within {radius:.2g} of ({place})"


def diagnose_embedding(
    embedding: LearnedEmbedding,
    target: Tensor | Manifold,
    *,
    num_samples: int = 2000,
    seed: int = 0,
    warn: bool = True,
) -> EmbeddingDiagnostics:
    """Compare the image of an embedding with samples of its target.

    A low loss of training is no proof: the image may fold, miss a part, or lie beside the target.
    Gaps and overlaps below ``tolerance``, which is about the spacing of the samples, go unseen.

    Args:
        embedding: The embedding.
        target: Manifold of which it should be the uniform law; or samples that were not used in
            training, shape ``[N, embed_dim]``, N at least 10.
        num_samples: Number of samples to use at most.
        seed: Seed of the draws.
        warn: Whether to warn of folds, of what is missed and of what is beside the target.

    Raises:
        ValueError: If samples have a wrong shape.

    Example:
        >>> from pyro_manifolds.distributions.transforms import LearnedEmbedding
        >>> from pyro_manifolds.nn import diagnose_embedding
        >>> most = LearnedEmbedding(
        ...     lambda z: torch.cat([(5 * z).cos(), (5 * z).sin()], -1), dim=1, embed_dim=2
        ... )
        >>> found = diagnose_embedding(most, Circle(), warn=False)
        >>> round(found.swept, 3), found.folds, found.complaints()[0][:12]
        (0.796, False, 'it misses 20')
    """
    like = embedding.codes
    with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
        torch.manual_seed(seed)
        samples = _samples(target, embedding, num_samples)
        found = _diagnose(embedding, samples, target if isinstance(target, Manifold) else None)
    complaints = found.complaints()
    if warn and complaints:
        warnings.warn(f"{embedding}: {'; '.join(complaints)}", stacklevel=2)
    return found


def _diagnose(
    embedding: LearnedEmbedding, samples: Tensor, manifold: Manifold | None
) -> EmbeddingDiagnostics:
    tolerance = resolution(samples)
    codes = embedding.prior().sample((len(samples),))
    image = embedding(codes)
    gaps = lengths(embedding(embedding.inv(samples)) - samples)
    order = gaps.argsort(descending=True)
    missed = samples[order][: int((gaps > tolerance).sum())]
    value, null = energy_distance_test(image, samples, 100)
    jacobians = embedding.jacobian(codes)
    singular = torch.linalg.svdvals(jacobians)
    swept, monotone = _turn(embedding, samples)
    edge = _edge(embedding)
    meets, _ = other_sheet(embedding, edge, 4 * tolerance)
    strays = torch.cdist(image, samples).amin(-1) > 2 * tolerance
    few = slice(1000)
    lost = lengths(embedding.inv(image[few]) - codes[few]) > 1e-2 * domain_unit(embedding)
    return EmbeddingDiagnostics(
        coverage=1 - len(missed) / len(samples),
        strays=_share(strays),
        tolerance=tolerance,
        misfit=gaps.median().item(),
        collisions=_share(overlapping(embedding, codes, 2 * tolerance)),
        singular_values=(
            singular.min().item(),
            singular.median().item(),
            singular.max().item(),
        ),
        round_trip=_share(lost),
        energy_distance=value.item(),
        energy_null=null.quantile(0.95).item(),
        image_volume=singular.prod(-1).mean().item() if embedding.base == "uniform" else None,
        target_volume=None if manifold is None else _volume_of(manifold, like=samples),
        swept=swept,
        monotone=monotone,
        closed=_share(meets),
        seam=embedding(edge)[meets],
        missed=missed,
    )


def _edge(embedding: LearnedEmbedding, count: int = 400) -> Tensor:
    """Return points all over the edge of the cube, or three standard deviations out."""
    m, like = embedding.dim, embedding.codes
    if embedding.base != "uniform":
        directions = like.new_tensor([[-1.0], [1.0]]) if m == 1 else like.new_empty(count, m)
        directions = directions if m == 1 else torch.randn_like(directions)
        return 3 * directions / lengths(directions).unsqueeze(-1)
    if m == 1:
        return like.new_tensor([[0.0], [1.0]])
    points = torch.rand(count, m).to(like)
    face = torch.arange(count, device=like.device)
    points[face, face % m] = (face // m % 2).to(like)
    return points


def _turn(embedding: LearnedEmbedding, samples: Tensor) -> tuple[float | None, float | None]:
    """Return how far round a circle the image goes, and how much of it goes that way."""
    if embedding.dim != 1 or embedding.base != "uniform" or samples.shape[-1] < 2:
        return None, None
    mean = samples.mean(0)
    axes = torch.linalg.svd(samples - mean, full_matrices=False).Vh[:2]
    plane = (samples - mean) @ axes.mT
    # The circle |p - c|^2 = r^2 is linear in c and in r^2 - |c|^2.
    rows = torch.cat([2 * plane, torch.ones_like(plane[:, :1])], -1)
    squares = plane.square().sum(-1, keepdim=True)
    centre = torch.linalg.lstsq(rows, squares).solution[:2, 0]
    radii, outside = lengths(plane - centre), lengths(samples - mean - plane @ axes)
    if radii.std() > 0.1 * radii.mean() or outside.mean() > 0.1 * radii.mean():
        return None, None
    z = torch.linspace(0, 1, 4001).to(samples).unsqueeze(-1)
    x, y = ((embedding(z) - mean) @ axes.mT - centre).unbind(-1)
    steps = torch.atan2(y, x).diff()
    steps = torch.remainder(steps + math.pi, 2 * math.pi) - math.pi
    way = steps.sum().sign()
    return steps.sum().abs().item() / (2 * math.pi), _share(steps * way > 0)


def _volume_of(manifold: Manifold, like: Tensor) -> float | None:
    """Return the volume of the image of ``manifold.embed``, which need not be isometric."""
    try:
        embed = ManifoldEmbedding(manifold)
    except NotImplementedError:
        return None
    points = manifold.random_uniform(2000, *manifold.event_shape).as_subclass(Tensor).to(like)
    stretch = embed.log_abs_det_jacobian(points, embed(points))
    return manifold.volume * stretch.exp().mean().item()


def _samples(target: Tensor | Manifold, embedding: LearnedEmbedding, count: int) -> Tensor:
    if isinstance(target, Manifold):
        target = target.embed(target.random_uniform(count, *target.event_shape))
    samples = target.as_subclass(Tensor)
    if samples.dim() != 2 or samples.shape[-1] != embedding.embed_dim or len(samples) < 10:
        raise ValueError(
            "diagnose_embedding: expected samples of shape (N, "
            f"{embedding.embed_dim}) with N >= 10, got {tuple(samples.shape)}"
        )
    return samples[torch.randperm(len(samples))[:count]].to(embedding.codes)


def _share(flags: Tensor) -> float:
    return flags.float().mean().item()
