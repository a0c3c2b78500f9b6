"""Conversion of checkpoints of the authors' PyTorch code to Keras files, without PyTorch."""
