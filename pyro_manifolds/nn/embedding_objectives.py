"""What a learned embedding is trained by: matched codes, or a Wasserstein auto-encoder."""

from __future__ import annotations

import abc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding, even_points
from pyro_manifolds.nn.embedding_sheets import overlapping, resolution
from pyro_manifolds.ops.discrepancies import imq_kernel, rbf_kernel, squared_mmd
from pyro_manifolds.ops.normal_coordinates import match, normal_coordinates, turn_towards

__all__ = ["MatchedCodes", "Objective", "WassersteinAutoEncoder"]

Sampler = Callable[[int], Tensor]

_FIRST = 1024  # samples that are laid flat to start with


class Objective(nn.Module, abc.ABC):
    """Loss of an embedding on samples of its target.

    Args:
        embedding: The embedding; what it holds is trained.
        sampler: Function that returns so many samples of the target, ``[count, embed_dim]``.
    """

    def __init__(self, embedding: LearnedEmbedding, sampler: Sampler) -> None:
        super().__init__()
        self.embedding, self.sampler = embedding, sampler

    def begin(self, number: int) -> None:
        """Prepare a round of steps, of a number that counts from 0."""

    @abc.abstractmethod
    def loss(self, batch_size: int) -> Tensor:
        """Return the loss of one batch."""


class MatchedCodes(Objective):
    r"""Decoder that is taught pairs of codes and samples, which are matched anew for each round.

    For the first round samples are cut open and laid flat by
    :func:`~pyro_manifolds.ops.normal_coordinates.normal_coordinates`, and codes that are spread as
    the base is are matched to them by optimal transport. For the round of number :math:`k` they
    are taken back by the inverse of the embedding, and from there moved by a share :math:`1/k` of
    the way to what they are matched to: whole moves would be as noisy as the samples, and the mean
    of samples of a curved manifold is not on it. Samples that the image covers twice are left out
    of a round.

    It is a Wasserstein auto-encoder whose encoder has no form, and so may jump across the seam,
    and whose codes have the law of the base without a kernel.

    Args:
        embedding: The embedding.
        sampler: Function that returns so many samples of the target.
        pairs: Number of pairs in a round; optimal transport takes a time of its cube.
        neighbours: Number of neighbours in the graph of the first round.
    """

    def __init__(
        self, embedding: LearnedEmbedding, sampler: Sampler, pairs: int, neighbours: int
    ) -> None:
        super().__init__(embedding, sampler)
        self.pairs, self.neighbours = pairs, neighbours

    def begin(self, number: int) -> None:
        self.samples = self.sampler(self.pairs if number else min(self.pairs, _FIRST))
        if number:
            with torch.no_grad():
                codes = self.embedding.inv(self.samples)
                twice = overlapping(self.embedding, codes, resolution(self.samples[:1000]))
            if twice.float().mean() < 0.5:  # a seam, and not a fold
                # Without what is covered twice, edges are pulled back until they only touch.
                self.samples, codes = self.samples[~twice], codes[~twice]
            self.codes = codes.lerp(match(codes, self._targets(codes)), 1 / (number + 1))
            return
        centre = int(torch.randint(len(self.samples), ()))
        codes = normal_coordinates(
            self.samples, self.embedding.dim, centre, neighbours=self.neighbours
        )
        whole = _away_from_cut(self.samples, codes)
        self.samples, codes = self.samples[whole], codes[whole]
        targets = self._targets(codes)
        self.codes = match(turn_towards(codes, targets), targets)

    def _targets(self, codes: Tensor) -> Tensor:
        seed = int(torch.randint(2**31, ()))
        return even_points(self.embedding.base, len(codes), self.embedding.dim, seed=seed).to(
            codes
        )

    def loss(self, batch_size: int) -> Tensor:
        rows = torch.randint(len(self.codes), (batch_size,), device=self.codes.device)
        return _square_error(self.embedding(self.codes[rows]), self.samples[rows]).mean()


class WassersteinAutoEncoder(Objective):
    r"""Wasserstein auto-encoder: reconstruction, and the discrepancy of codes from the base.

    .. math:: E|f(e(y)) - y|^2 + \lambda \, \mathrm{MMD}^2(e(y), z)

    An encoder with several heads takes the code that reconstructs best, and so may jump. With one
    head it is that of the reference: continuous, which keeps an embedding by SiLU from covering
    about a tenth of a circle.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly and Schoelkopf, 2017),
          arXiv 1711.01558

    Args:
        embedding: The embedding, with an encoder.
        sampler: Function that returns so many samples of the target.
        weight: Weight :math:`\lambda` of the discrepancy.
        kernel: ``"imq"`` or ``"rbf"``.
    """

    def __init__(
        self, embedding: LearnedEmbedding, sampler: Sampler, weight: float, kernel: str
    ) -> None:
        super().__init__(embedding, sampler)
        self.weight = weight
        uniform, dim = embedding.base == "uniform", embedding.dim
        if kernel == "imq":
            self.kernel = imq_kernel(dim, 1 / 12 if uniform else 1.0)
        else:
            self.kernel = rbf_kernel((0.1, 0.3, 1.0) if uniform else (0.35, 1.0, 3.5))

    def loss(self, batch_size: int) -> Tensor:
        y, embedding = self.sampler(batch_size), self.embedding
        assert embedding.encoder is not None
        guesses = embedding.encoder(y)
        errors = _square_error(embedding(guesses), y.unsqueeze(-2))
        best = errors.argmin(-1, keepdim=True)
        codes = guesses.take_along_dim(best.unsqueeze(-1), -2).squeeze(-2)
        discrepancy = squared_mmd(codes, embedding.prior().sample((len(y),)), self.kernel)
        return errors.take_along_dim(best, -1).mean() + self.weight * discrepancy


def _square_error(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().sum(-1)


def _away_from_cut(samples: Tensor, codes: Tensor, neighbours: int = 6) -> Tensor:
    """Tell which samples have all their neighbours near to them in the coordinates, too.

    Errors of the graph put some of the others on the wrong side of the cut, where both edges of
    the image would learn them and overlap. Later rounds fill the gap from both sides.
    """
    gaps = torch.cdist(samples, samples)
    nearest = gaps.topk(neighbours + 1, largest=False).indices
    jumps = (codes[nearest] - codes.unsqueeze(-2)).norm(dim=-1).amax(-1)
    return jumps < 0.5 * codes.norm(dim=-1).mean()
