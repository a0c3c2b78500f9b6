"""Backbones of stock Keras layers."""
