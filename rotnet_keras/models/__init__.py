"""Keras models: RotNet, its backbones and heads."""
