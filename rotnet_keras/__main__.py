"""`python -m rotnet_keras` is `rotnet-keras`."""

from rotnet_keras.cli.main import main

main()
