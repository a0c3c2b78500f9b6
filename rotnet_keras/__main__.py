"""`python -m rotnet_keras` is `rotnet-keras`."""

from rotnet_keras.cli import main

main()
