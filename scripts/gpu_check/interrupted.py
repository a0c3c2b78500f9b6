"""Run the command line, and send this process SIGTERM when a run has logged a step.

python -m gpu_check.interrupted STEP run RECIPE [KEY=VALUE]...
"""

import os
import signal
import sys
from typing import Any

from rotnet_keras.cli.main import main
from rotnet_keras.training.session import Session

step = int(sys.argv[1])
write = Session.event


def event(self: Session, kind: str, **values: Any) -> None:
    write(self, kind, **values)
    if kind == "step" and values["step"] == step:
        os.kill(os.getpid(), signal.SIGTERM)


Session.event = event  # type: ignore[method-assign]
main(sys.argv[2:])
