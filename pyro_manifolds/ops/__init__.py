"""Numerics without classes."""
