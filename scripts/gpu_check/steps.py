"""Ten steps of every kind of training, in one precision, with or without XLA; a JSON line for each kind.

    python -m gpu_check.steps PRECISION XLA [few]

PRECISION is a policy of Keras, XLA is `xla` or `plain`, and `few` leaves out the kinds that take long on a CPU. Without
XLA, operations are deterministic, as runs have them by default. All networks are small, all data are random, all seeds
the same: only the arithmetic differs.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.schema import Auxiliary
from rotnet_keras.config.sections import Augment, Optimizer
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.detectors.base import NO_OBJECT, BatchNormMode
from rotnet_keras.models.detectors.faster_rcnn import FasterRCNN
from rotnet_keras.models.detectors.retinanet import RetinaNet
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.multi_label import MultiLabelClassifier
from rotnet_keras.models.rotnet import Classifier, RotNet
from rotnet_keras.models.s4l import UNLABELLED, SemiSupervised
from rotnet_keras.models.segmenters import Segmenter, deeplab, fcn
from rotnet_keras.training.optimizers import build_optimizer, updating_optimizer

STEPS = 10
BATCH, CLASSES = 8, 4
RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
LARGE = RNG.integers(0, 256, (BATCH, 64, 64, 3), np.uint8)
LABELS = np.arange(BATCH) % CLASSES
# Half of them have no label.
FEW_LABELS = np.where(np.arange(BATCH) < BATCH // 2, LABELS, UNLABELLED)
MANY_LABELS = RNG.integers(-1, 2, (BATCH, CLASSES))
MASKS = RNG.integers(0, CLASSES + 1, (BATCH, 64, 64)).astype(np.uint8)
OBJECTS = np.array([[[5, 5, 40, 40, 1], [20, 24, 60, 60, 2], [0, 0, 0, 0, NO_OBJECT]]] * BATCH, np.float32)


def small_backbone(name: str = "compact", **options: object) -> keras.Model:
    return with_fused_batch_norm(backbone(name, (32, 32, 3), width=0.25, **options))


def head_on(network: keras.Model, kind: str) -> keras.Model:
    return build_head(kind, network.output.shape[1:], CLASSES, "conv4")


def accumulating() -> TrainingModel:
    model = RotNet(small_backbone())
    model.accumulation_parts = 2
    return model


def jittered() -> TrainingModel:
    return RotNet(small_backbone(), copies="one", augment=Augment(jitter=0.4, greyscale=0.2))


def classifier(kind: type[Classifier], head: str, **options: Any) -> TrainingModel:
    network = small_backbone()
    return kind(network, head_on(network, head), **options)


def semi_supervised() -> TrainingModel:
    network = small_backbone()
    return SemiSupervised(network, head_on(network, "pool"), Auxiliary(weight=0.5), Augment(), 0)


def faster_rcnn() -> TrainingModel:
    small = backbone("compact", (64, 64, 3), width=0.25, blocks=4)
    return FasterRCNN(small, "conv2", "conv2", 4, CLASSES, 64, OBJECTS.shape[1], 0, norm="trained")


def retinanet(norm: BatchNormMode) -> TrainingModel:
    small = backbone("compact", (64, 64, 3), width=0.25, blocks=4)
    return RetinaNet(small, ["conv1", "conv2", "conv3"], CLASSES, 64, OBJECTS.shape[1], 0, norm=norm)


def segmenter(decoder: str) -> TrainingModel:
    small = backbone("compact", (64, 64, 3), width=0.25, blocks=4)
    network = fcn(small, "conv4", CLASSES + 1, 64) if decoder == "fcn" else deeplab(small, "conv4", "conv1", 5, 64)
    return Segmenter(with_fused_batch_norm(network, keras.config.dtype_policy().name), 0)


# Kind of step: what builds its model, its batch, and whether its random numbers are other ones under XLA.
KINDS: dict[str, tuple[Callable[[], TrainingModel], object, bool]] = {
    "pretraining, NIN with 4 blocks": (lambda: RotNet(small_backbone("nin", blocks=4)), SMALL, False),
    "pretraining, ResNet-50": (lambda: RotNet(small_backbone("resnet50")), SMALL, False),
    "pretraining, one jittered copy": (jittered, SMALL, True),
    "pretraining in two parts": (accumulating, SMALL, False),
    "classification": (lambda: classifier(Classifier, "mlp"), (SMALL, LABELS), False),
    "classification, conv head": (lambda: classifier(Classifier, "conv"), (SMALL, LABELS), False),
    "semi-supervised (S4L)": (semi_supervised, (SMALL, FEW_LABELS), False),
    "VOC classification": (lambda: classifier(MultiLabelClassifier, "pool"), (SMALL, MANY_LABELS), False),
    "VOC segmentation, FCN": (lambda: segmenter("fcn"), (LARGE, MASKS), False),
    "VOC segmentation, DeepLabV3+": (lambda: segmenter("deeplab"), (LARGE, MASKS), False),
    "VOC detection, RetinaNet": (lambda: retinanet("trained"), (LARGE, OBJECTS), False),
    "VOC detection, fixed normalisation": (lambda: retinanet("fixed"), (LARGE, OBJECTS), False),
    "VOC detection, Faster R-CNN": (faster_rcnn, (LARGE, OBJECTS), True),
}
FEW = ("pretraining, NIN with 4 blocks", "pretraining, one jittered copy", "pretraining in two parts", "classification")
# The parts of a batch have sizes that are not known when XLA compiles; runs leave XLA off for them.
WITHOUT_XLA = ("pretraining in two parts",)


def losses_of(kind: str, precision: str, xla: bool) -> dict[str, object]:
    """The losses of the steps, each of its own batch's mean; or the first line of what went wrong."""
    build, batch, _ = KINDS[kind]
    engine.configure(0, precision, deterministic=not xla)
    began = time.perf_counter()
    try:
        model = build()
        model.compile_for(build_optimizer(Optimizer(learning_rate=0.001)), 0.0)
        model.optimizer.build(model.trainable_variables)
        model.build_as_compiled()
        step = tf.function(model.train_step, jit_compile=xla, autograph=False)
        data = tf.nest.map_structure(tf.constant, batch)
        losses = []
        for _ in range(STEPS):
            losses.append(float(step(data)["loss"]))
            model.reset_metrics()
        # With float16, a step whose gradients overflow changes nothing.
        done = int(updating_optimizer(model).iterations)
    except Exception as error:  # Whatever a kernel or a compiler that nobody has tried says belongs on the page.
        lines = [line for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
        return {"kind": kind, "error": " ".join(lines[:3])[:400]}
    return {"kind": kind, "losses": losses, "skipped": STEPS - done, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    precision, mode, *few = sys.argv[1:]
    kinds = [kind for kind in (FEW if few else KINDS) if mode != "xla" or kind not in WITHOUT_XLA]
    print(json.dumps({"kinds": len(kinds)}), flush=True)
    for kind in kinds:
        found = losses_of(kind, precision, mode == "xla")
        keras.backend.clear_session()
        print(json.dumps({**found, "random": KINDS[kind][2], "device": engine.device_name()}), flush=True)


if __name__ == "__main__":
    main()
