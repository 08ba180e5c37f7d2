"""A torch module as a Pyro model of its targets."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from pyro.params.param_store import param_with_module_name
from pyro.poutine.runtime import get_plates
from torch import Size, Tensor, nn

from pyro_manifolds.nn.bayesian.functional import get_tensor, run_with_weights
from pyro_manifolds.nn.bayesian.hyperparameters import HyperparameterMessenger, particle_shape
from pyro_manifolds.nn.bayesian.likelihoods import classification
from pyro_manifolds.nn.bayesian.observations import TARGETS, check_targets, per_datum
from pyro_manifolds.nn.bayesian.priors import fan_in_normal
from pyro_manifolds.nn.bayesian.rules import Prior, Rule, assign_priors
from pyro_manifolds.nn.bayesian.weight_prior import WeightPrior, module_of

__all__ = ["BayesianModule"]


class BayesianModule(PyroModule):
    r"""Torch module with priors on its parameters: an ordinary Pyro model ``model(x, y=None)``.

    .. math::
        w \sim p(w), \qquad y_i \mid w \sim p(y_i \mid \mathrm{net}_w(x_i)), \quad i = 1 \dots n

    Every parameter is one sample site, outside the plate of the data, with the name that it has
    in the net (``"0.weight"``). The output of the net is the deterministic site ``"output"``, the
    targets the site ``"y"`` in the plate ``"data"``. Training, Markov chains and prediction are
    Pyro's: any guide, ``SVI``, ``NUTS``, ``Predictive`` (also with ``parallel=True``, by
    ``torch.vmap`` over the draws of the weights).

    A prior is one of three.

    - A distribution whose event shape is the end of the parameter's shape, such as a normal for
      single weights or a ``KleinFilter`` for the filters of a convolution; it is expanded to the
      rest.
    - A function of the parameter that returns such a distribution, as
      :class:`scaled_to_fan_in` is. It may sample hyperparameters and use ``pyro.param``: their
      names get the name of the parameter and a slash in front (``"0.weight/amplitude"``). A
      module that does so is registered, and its ``PyroParam`` and ``PyroSample`` attributes are
      shared by all parameters that it serves.
    - ``None``: the parameter stays a parameter, and is learned with those of the guide.

    The net is copied. In the copy ``model.net`` parameters with a prior are buffers with the
    values that they had, so that ``parameters()`` tells what is learned, and ``state_dict()``
    keeps its names. Frozen parameters (``requires_grad=False``) stay as they are and take no
    prior. Tied parameters are one site, by the first of their names. Buffers, dropout and
    ``train()`` or ``eval()`` work as in any module. Batch normalisation in training mode couples
    the data of a batch, so that the likelihood is no longer a product; call ``model.eval()``
    before predictions in any case.

    Hyperparameters may have batches and plates of their own, such as an amplitude for each
    channel; for vectorised particles declare them by ``pyro.plate`` or ``to_event``.

    Distributions are fixed, and detached from what they were made of; what is learned of a prior
    belongs in a function or a module. With ``pyro.settings.set(module_local_params=True)`` train
    ``Trace_ELBO()(model, guide)`` with an optimiser of torch, as Pyro's ``SVI`` then refuses
    parameters of torch modules.

    With ``data_size`` the likelihood of a batch is scaled by ``data_size / len(batch)``, also for
    a last batch that is smaller. Without ``y`` the targets are sampled and nothing is scaled;
    hence call an automatic guide with ``(x, y)`` first.

    Args:
        net: Module that maps ``x`` to a tensor whose first dimension is that of the data; a tuple
            ``x`` is passed as several arguments.
        priors: Priors by key: the name of a parameter (``"0.weight"``) or of a module
            (``"conv1"``), a type of modules (``nn.Conv2d``), or a function of a parameter's name
            and value that tells whether it matches. Modules stand for their parameter ``weight``.
            The first key that matches counts.
        default: Prior of all other parameters; see :func:`fan_in_normal`.
        likelihood: Function of the output, or module, that returns the distribution of the
            targets, with the dimension of the data first: :func:`classification`,
            :class:`regression`, or your own. What it samples is outside the plate.
        data_size: Number of data in all, if the model is called with batches of them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a key of ``priors`` matches no parameter, a prior does not fit a shape, or
            ``data_size`` is not positive.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from torch import nn
        >>> from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights, predict
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        >>> model = BayesianModule(net, {"0": dist.Laplace(0.0, 0.5)}, data_size=1000)
        >>> x, y = torch.randn(20, 4), torch.randint(3, (20,))
        >>> guide = AutoNormal(model, init_loc_fn=init_to_weights(net))
        >>> optimiser = pyro.optim.Adam({"lr": 0.01})
        >>> svi = pyro.infer.SVI(model, guide, optimiser, pyro.infer.Trace_ELBO())
        >>> losses = [svi.step(x, y) for _ in range(3)]
        >>> predict(model, guide, x, num_samples=10).probs.shape
        torch.Size([20, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        priors: Mapping[Rule, Prior] | None = None,
        *,
        default: Prior = fan_in_normal,
        likelihood: Callable[[Tensor], TorchDistributionMixin] = classification,
        data_size: int | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(net, likelihood, data_size)
        assignments = assign_priors(net, priors or {}, default)
        self.net = copy.deepcopy(net)
        self.likelihood = likelihood
        self.data_size = data_size
        self.prior_modules = PyroModule()
        self._names: dict[str, tuple[str, ...]] = {}
        self._weight_priors: dict[str, WeightPrior] = {}
        for names, prior, frozen in assignments:
            if prior is None and not frozen:
                continue
            value = _turn_into_buffer(self.net, names)
            if not frozen:
                self._names[names[0]] = names
                self._weight_priors[names[0]] = WeightPrior(names[0], prior, value)
        modules = [module_of(prior) for _, prior, _ in assignments]
        distinct = {id(module): module for module in modules if module is not None}
        for index, module in enumerate(distinct.values()):
            setattr(self.prior_modules, str(index), module)

    def forward(self, x: Tensor | tuple[Tensor, ...], y: Tensor | None = None) -> Tensor:
        if isinstance(x, list):
            raise TypeError(
                "BayesianModule: expected x to be a tensor, or a tuple for several arguments of "
                "net, got a list"
            )
        net = self._registered_net()
        weights, particles = self._sample_weights(net)
        output = run_with_weights(net, weights, particles, x if isinstance(x, tuple) else (x,))
        size, event_dim = _data_dimension(output, len(particles))
        with HyperparameterMessenger(dims=event_dim) as noise:
            observed = self.likelihood(output)
        observed = per_datum(observed, torch.broadcast_shapes(particles, noise.particles), size)
        if y is not None:
            check_targets(observed, y, size, self.data_size)
        infer: Any = {TARGETS: True}
        with pyro.plate(self._site("data"), size, dim=-1):
            pyro.deterministic(self._site("output"), output, event_dim=event_dim)
            with self._scaled(size, y is not None):
                pyro.sample(self._site("y"), observed, obs=y, infer=infer)
        return output

    def _sample_weights(self, net: nn.Module) -> tuple[dict[str, Tensor], Size]:
        """Return values by every name, and the shape of the particles that they have in common."""
        weights, shapes, outer = {}, [Size()], get_plates()
        for name, prior in self._weight_priors.items():
            own = get_tensor(net, name)
            value = pyro.sample(self._site(name), prior(own))
            shapes.append(particle_shape(value, own.dim(), outer))
            value = value.reshape(shapes[-1] + own.shape)
            weights.update(dict.fromkeys(self._names[name], value))
        return weights, torch.broadcast_shapes(*shapes)

    def _registered_net(self) -> nn.Module:
        """Return the net, whose remaining parameters Pyro has then heard of."""
        for name, _ in self.prior_modules.named_children():
            getattr(self.prior_modules, name)
        net = self.net
        if torch.is_grad_enabled() and not pyro.settings.get("module_local_params"):
            for name, parameter in net.named_parameters():
                _warn_if_stale(param_with_module_name(self._site("net"), name), parameter)
        return net

    def _scaled(self, size: int | Tensor, observed: bool) -> AbstractContextManager[Any]:
        # Not a subsampled plate: a guide would hand on the batch size of its first call.
        if self.data_size is None or not observed:
            return nullcontext()
        if isinstance(size, Tensor):  # under torch.jit, where a quotient would be in float32
            size = size.double()
        return poutine.scale(scale=self.data_size / size)

    def _site(self, name: str) -> str:
        """Return the name of a site; inside another Pyro module its name goes in front."""
        return str(self._pyro_get_fullname(name))


def _check_arguments(net: object, likelihood: object, data_size: int | None) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"BayesianModule: expected net to be a module, got {type(net).__name__}")
    lazy = [name for name, p in net.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(
            "BayesianModule: expected net with parameters of known shapes, got uninitialised "
            f"{', '.join(lazy)}; run the net once on a batch first"
        )
    if not callable(likelihood) or isinstance(likelihood, TorchDistributionMixin):
        raise TypeError(
            "BayesianModule: expected likelihood to be a function of the output, "
            f"got {likelihood!r}"
        )
    if data_size is not None and data_size < 1:
        raise ValueError(f"BayesianModule: expected data_size >= 1, got {data_size}")


def _turn_into_buffer(net: nn.Module, names: tuple[str, ...]) -> Tensor:
    value = get_tensor(net, names[0]).detach()
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = net.get_submodule(owner)
        del module._parameters[leaf]
        module.register_buffer(leaf, value)
    return value


def _data_dimension(output: Tensor, left: int) -> tuple[int, int]:
    """Return the number of data in the output, and of the dimensions after them."""
    if output.dim() <= left:
        raise ValueError(
            "BayesianModule: expected net to return a tensor whose first dimension is that of "
            f"the data, got shape {tuple(output.shape[left:])}"
        )
    return output.shape[left], output.dim() - left - 1


def _warn_if_stale(name: str, parameter: Tensor) -> None:
    store: Any = pyro.get_param_store()
    if name in store and store[name].unconstrained() is not parameter:
        warnings.warn(
            f"BayesianModule: the parameter store holds another '{name}', from an earlier model, "
            "which SVI would train in place of this one; call pyro.clear_param_store() first",
            stacklevel=2,
        )
