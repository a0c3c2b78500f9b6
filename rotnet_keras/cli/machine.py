"""The commands about this machine: doctor, bench."""

import os
import sys
from pathlib import Path

import click

from rotnet_keras.cli.options import (
    argument,
    backbone_spec,
    blocks_option,
    command,
    echo_json,
    echo_table,
    flag,
    json_option,
    option,
    size_option,
    width_option,
)

# Packages whose versions matter to somebody who is asked for help.
PACKAGES = ("rotnet-keras", "keras", "tensorflow", "tensorflow-datasets", "numpy")


@command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation and show what a run would use.

    Prints versions, device, memory and disk space. Add this to questions and bug reports.
    """
    found = diagnosis()
    if as_json:
        echo_json(found)
    else:
        echo_table(["", ""], [[key, value] for key, value in found.items()])


# With --quick: rounds, seconds that a round trains, and images in a batch.
QUICK = (2, 2.0, 32)


@command(examples=("rotnet-keras bench training --quick", "rotnet-keras bench training --backbone nin --batch 128"))
@argument("parts", "[PART]...", "startup, memory, training, data or probes; all by default.", nargs=-1)
@option("--backbone", metavar="BACKBONE", default="nin", help="A backbone; `rotnet-keras backbones` lists them.")
@blocks_option
@width_option
@size_option(32)
@option(
    "--batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Images in a batch, 128 by default; the model gets each in four rotations.",
)
@option("--precision", metavar="POLICY", default="auto", help="auto, float32, mixed_bfloat16 or mixed_float16.")
@option(
    "--rounds",
    metavar="N",
    type=click.IntRange(min=1),
    help="How often each rate is measured, 5 by default; the median is printed.",
)
@flag("--quick", description="Measure training alone in about two minutes: two short rounds of small batches.")
@option(
    "--images",
    metavar="FOLDER",
    type=click.Path(exists=True, path_type=Path),
    help="Folder of images for the part data; generated images by default.",
)
@option(
    "--against",
    metavar="COMMAND",
    help="Command to compare with, run in turn; it prints JSON with the key rotated_images_per_s.",
)
@json_option
def bench(
    parts: tuple[str, ...],
    backbone: str,
    blocks: int | None,
    width: float,
    size: int,
    batch: int | None,
    precision: str,
    rounds: int | None,
    quick: bool,
    images: Path | None,
    against: str | None,
    as_json: bool,
) -> None:
    """Measure how fast this machine trains and reads images.

    Also measures how long starting takes, how much memory training needs and how fast probes are.
    """
    from rotnet_keras.planning.bench.registry import Settings, as_table, chosen_parts, measure

    few_rounds, seconds, small_batch = QUICK if quick else (Settings.rounds, Settings.round_seconds, Settings.batch)
    folder = None if images is None else str(images)
    settings = Settings(
        backbone,
        blocks,
        width,
        size,
        batch or small_batch,
        precision,
        rounds or few_rounds,
        folder,
        against,
        seconds,
    )
    chosen = chosen_parts(parts or (["training"] if quick else []), settings)
    if {"training", "probes"} & set(chosen):
        backbone_spec(backbone, blocks, width, size)
    found = measure(chosen, settings, lambda text: click.echo(text, err=True))
    if as_json:
        echo_json(found)
    else:
        echo_table(*as_table(found))


def diagnosis() -> dict[str, str]:
    """Versions, device, memory and disk, as a run on this machine would find them."""
    import importlib.metadata
    import shutil

    import psutil

    from rotnet_keras.engine import device_name
    from rotnet_keras.runs.folder import default_runs_dir

    found = {"python": sys.version.split()[0]}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    runs_dir = default_runs_dir().absolute()
    existing = next(p for p in [runs_dir, *runs_dir.parents] if p.is_dir())
    found["device"] = device_name()
    found["cpu cores"] = str(os.cpu_count())
    found["memory available"] = f"{psutil.virtual_memory().available / 2**30:.1f} GiB"
    found["oneDNN"] = "on" if os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1" else "off"
    found["tfds data"] = os.environ.get("TFDS_DATA_DIR", str(Path("~/tensorflow_datasets").expanduser()))
    found["runs"] = f"{runs_dir} ({shutil.disk_usage(existing).free / 2**30:.1f} GiB free)"
    found["runs can be written"] = "yes" if os.access(existing, os.W_OK) else "no"
    return found
