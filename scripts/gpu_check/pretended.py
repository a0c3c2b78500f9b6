"""Run the command line where something is pretended, for rehearsals on a CPU.

    python -m gpu_check.pretended run RECIPE [KEY=VALUE]...

With PRETENDED=gpu, there is one GPU, which no step uses. With PRETENDED=memory, each step asks for more memory than
there is.
"""

import os
import sys
from typing import Any

from rotnet_keras.cli.main import main

if os.environ["PRETENDED"] == "gpu":
    from rotnet_keras.training import devices

    devices.visible_gpus = lambda: ["GPU-pretended"]
else:
    from rotnet_keras.engine import tf
    from rotnet_keras.models.rotnet import RotNet

    step = RotNet.train_step

    def greedy_step(self: RotNet, data: Any) -> dict[str, tf.Tensor]:
        """A step whose metrics depend on a tensor of many terabytes."""
        asked = tf.reduce_sum(tf.zeros(tf.fill([2], 2**22) + tf.cast(self.optimizer.iterations, tf.int32)))
        return {name: value + asked for name, value in step(self, data).items()}

    RotNet.train_step = greedy_step  # type: ignore[method-assign]
main(sys.argv[1:])
