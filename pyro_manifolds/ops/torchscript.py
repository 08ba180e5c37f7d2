"""What TorchScript gets wrong."""

import warnings

import torch

__all__ = ["warn_of_complex_derivatives"]


def warn_of_complex_derivatives() -> None:
    """Warn where TorchScript is about to differentiate complex products by itself.

    The optimiser of TorchScript has derivatives of its own for products and sums, which leave out
    the conjugates (pytorch/pytorch#154324): losses are right, their gradients are not, and nothing
    is raised. Without that optimiser the derivatives are those of autograd.
    """
    if torch.jit.is_tracing() and torch._C._get_graph_executor_optimize():
        warnings.warn(
            "TorchScript differentiates products of complex tensors wrongly; compile and run "
            "models of complex numbers within torch.jit.optimized_execution(False)",
            stacklevel=3,
        )
