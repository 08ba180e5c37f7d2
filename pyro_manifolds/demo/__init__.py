"""Demonstration on photographs, ``python -m pyro_manifolds.demo``: which manifold do patches fit?

Its parts are ordinary Pyro and meant to be copied: the model in :mod:`~pyro_manifolds.demo.model`,
the training loop in :mod:`~pyro_manifolds.demo.training`.
"""
