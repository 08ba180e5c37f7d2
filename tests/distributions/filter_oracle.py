"""Densities of filters by a fine grid and formulas written out, without the code under test."""

import math

import numpy as np
import torch
from scipy.special import logsumexp

GAUSS = np.polynomial.legendre.leggauss(3)


def filters(t1, t2, size):
    """Integrals of the filters over the cells by Gauss's rule, exact for squares: [..., k * k]."""
    centres = (2 * np.arange(size) + 1 - size) / size
    nodes, weights = GAUSS[0] / size, GAUSS[1] / size
    x = centres[None, :, None, None] + nodes[None, None, :, None]
    y = -centres[:, None, None, None] + nodes[None, None, None, :]
    t1, t2 = (np.asarray(t)[..., None, None, None, None] for t in (t1, t2))
    s = x * np.cos(t1) + y * np.sin(t1)
    values = np.sin(t2) * s + np.cos(t2) * (2 * s**2 - 1)
    integrals = np.einsum("...ab,a,b->...", values, weights, weights)
    return integrals.reshape(*integrals.shape[:-2], size**2)


def unit(filters):
    centred = filters - filters.mean(-1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True)


def log_marginal(w, family, log_weights, amplitude, noise, tril=None):
    """Logarithm of a finite mixture over filters, by the formula of Sherman and Morrison."""
    w, size = w.reshape(len(w), -1), family.shape[-1]
    shape = np.eye(size) if tril is None else tril @ tril.T
    precision = np.linalg.inv(noise**2 * shape)
    log_det = np.linalg.slogdet(noise**2 * shape)[1]
    power = 1 + amplitude**2 * (family @ precision * family).sum(-1)
    square = (w @ precision * w).sum(-1, keepdims=True)
    along = (w @ precision @ family.T) ** 2 * amplitude**2 / power
    terms = -0.5 * (square - along + log_det + np.log(power) + size * math.log(2 * math.pi))
    terms = terms + log_weights - logsumexp(log_weights)
    return torch.tensor(logsumexp(terms, axis=1))


def klein_grid(first, second):
    """Nodes on the whole surface, not half of it and not shifted."""
    t1 = (np.arange(first) + 0.37) * math.pi / first
    t2 = (np.arange(second) + 0.11) * 2 * math.pi / second
    return np.stack(np.meshgrid(t1, t2, indexing="ij"), -1).reshape(-1, 2)


def klein_marginal(
    w, size, amplitude, noise, log_density=None, is_unit=False, tril=None, grid=160
):
    """Density of Klein filters ``w``, a tensor, on a grid."""
    nodes = klein_grid(grid, grid)
    family = filters(nodes[:, 0], nodes[:, 1], size)
    log_weights = np.zeros(len(nodes))
    if log_density is not None:
        log_weights = log_density(torch.tensor(nodes)).detach().numpy()
    family = unit(family) if is_unit else family
    return log_marginal(w.detach().numpy(), family, log_weights, amplitude, noise, tril)
