"""Where the density of a topographic latent is known exactly."""

from __future__ import annotations

from torch import Tensor

from pyro_manifolds.distributions.neighborhoods import Groups, Neighborhood, Ring
from pyro_manifolds.ops.ring_transfer import nodes_for_ring, ring_log_prob
from pyro_manifolds.ops.topographic import central_group_log_prob, group_log_prob

__all__ = ["exact_log_prob"]

_REMEDY = (
    "make u a site by TopographicReparam, or call log_prob_given(value, u), "
    "log_prob_estimate(value, num_samples=...) or log_prob_lower_bound(value)"
)
_LARGEST_LOC = {2: 35, 3: 2.6}


def exact_log_prob(
    near: Neighborhood,
    t: Tensor,
    loc: Tensor,
    *,
    fixed_loc: float | None = None,
    num_nodes: int | None = None,
) -> Tensor:
    """Return the log density of a ratio of scale one.

    Args:
        near: The neighbourhood.
        t: Values ``[..., *event_shape]``.
        loc: Noncentrality of a shape that broadcasts.
        fixed_loc: The modulus of all its entries, where that is known without a look at them.
        num_nodes: Nodes of the density on rings, by default as many as the location needs.

    Raises:
        NotImplementedError: If the density is not known. The error names what to do.

    Example:
        >>> from pyro_manifolds.distributions import Ring
        >>> from pyro_manifolds.distributions.topographic_density import exact_log_prob
        >>> exact_log_prob(Ring(4, 2), torch.tensor([0.5, -1.2, 0.3, 0.9]), torch.zeros(4))
        tensor(-5.6224)
    """
    if isinstance(near, Groups):
        shape = (near.num_groups, near.group_size)
        return _sum_of_groups(t, loc, shape, near.group_dof, fixed_loc)
    if isinstance(near, Ring) and near.kernel_size == 1:
        return _sum_of_groups(t, loc, (near.size, 1), 1, fixed_loc)
    if isinstance(near, Ring) and near.kernel_size <= min(3, near.size):
        if num_nodes is None:
            num_nodes = _found_nodes(near, loc, fixed_loc)
        return ring_log_prob(t, loc, near.kernel_size, num_nodes)
    raise NotImplementedError(f"TopographicStudentT: no exact density for {near}; {_REMEDY}")


def _sum_of_groups(
    t: Tensor, loc: Tensor, shape: tuple[int, int], dof: int, fixed_loc: float | None
) -> Tensor:
    t = t.unflatten(-1, shape)
    if fixed_loc == 0:
        return central_group_log_prob(t, dof).sum(-1)
    return group_log_prob(t, loc.unflatten(-1, shape), dof).sum(-1)


def _found_nodes(ring: Ring, loc: Tensor, fixed_loc: float | None) -> int:
    largest = float(loc.detach().abs().max()) if fixed_loc is None else fixed_loc
    nodes = nodes_for_ring(ring.kernel_size, largest)
    if nodes is None:
        raise NotImplementedError(
            f"TopographicStudentT: expected abs(loc) of at most {_LARGEST_LOC[ring.kernel_size]} "
            f"for the exact density of {ring}, got {largest:g}; {_REMEDY}"
        )
    return nodes
