"""The commands about models: backbones, weights, measure-weights, export, convert, rescale."""

from pathlib import Path

import click

from rotnet_keras.cli.options import (
    PATH,
    argument,
    backbone_spec,
    blocks_option,
    command,
    echo,
    echo_json,
    echo_table,
    find_run,
    flag,
    json_option,
    option,
    overrides_argument,
    parse_overrides,
    require_file,
    require_parent_folder,
    run_argument,
    runs_dir_option,
    show_progress,
    size_option,
    width_option,
)
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.text import percent

# Formats of exports, and how the names of their files end.
EXPORT_SUFFIXES = {"savedmodel": ".savedmodel", "onnx": ".onnx", "litert": ".tflite"}


@command(examples=("rotnet-keras backbones", "rotnet-keras backbones nin --blocks 5 --size 32"))
@argument("name", "[BACKBONE]", "A backbone to build; its layers are listed.", required=False)
@blocks_option
@width_option
@size_option(224)
@option(
    "--stem",
    metavar="STEM",
    type=click.Choice(["standard", "small"]),
    default="standard",
    help="First layers of alexnet and the resnets: standard, or small for images of 32 to 64 pixels.",
)
@option(
    "--channels", metavar="N", type=click.IntRange(1, 1024), default=3, help="Channels of the images, 3 for colour."
)
@json_option
def backbones(
    name: str | None, blocks: int | None, width: float, size: int, stem: str, channels: int, as_json: bool
) -> None:
    """List the backbones, or the layers of one.

    Of one backbone it shows the taps (layers whose features can be read) with their shapes, the number of parameters
    and the arithmetic of one forward pass.
    """
    from rotnet_keras.config.architectures import ARCHITECTURES, describe_architecture

    if name is None:
        rows = [describe_architecture(known) for known in ARCHITECTURES]
        if as_json:
            echo_json(rows)
        else:
            echo_table(["backbone", "taps", "blocks", "width", "what"], [list(row.values()) for row in rows])
        return
    spec = backbone_spec(name, blocks, width, size, stem)
    from rotnet_keras.models.flops import backbone_summary

    found = backbone_summary(spec, (size, size, channels))
    if as_json:
        echo_json(found)
        return
    shapes = [[tap, " x ".join(map(str, shape))] for tap, shape in found["taps"].items()]
    echo_table(["layer", "features"], shapes)
    echo(f"{found['parameters']:,} trainable parameters; {found['gflop']:.3g} GFLOP for a forward pass of one image")


@command(
    examples=(
        "rotnet-keras weights airbench4_photos",
        "rotnet-keras weights airbench4_photos --to photos_model",
    )
)
@argument("name", "[MODEL]", "A pretrained model to describe or copy.", required=False)
@option("--to", metavar="FOLDER", type=PATH, help="Copy the model's files into this new folder.")
@json_option
def weights(name: str | None, to: Path | None, as_json: bool) -> None:
    """List, describe or copy pretrained models."""
    from rotnet_keras.reports.tables import HEAD_NAMES
    from rotnet_keras.runs.zoo import copy_pretrained, find_pretrained, list_pretrained, load_card, size_mb

    if name is None:
        if to:
            raise RecipeError("--to copies one model: name it, as in rotnet-keras weights MODEL --to FOLDER")
        cards = {model: load_card(model) for model in list_pretrained().values()}
        if as_json:
            echo_json([{**card, "megabytes": size_mb(model)} for model, card in cards.items()])
            return
        if not cards:
            echo("No pretrained models come with this version. Train your own: rotnet-keras run quickstart")
            return
        rows = []
        for model, card in cards.items():
            best = card["best_probe"]
            rows.append([
                model.name, f"{size_mb(model):.1f}", card["data"]["name"],
                percent(card["rotation"]["accuracy"], sign=""),
                f"{percent(best['top1'], sign='')} ({HEAD_NAMES[best['head']]}, {best['tap']})" if best else "",
                card["title"],
            ])  # fmt: skip
        echo_table(["model", "MB", "data", "rotation, %", "best probe, %", "what"], rows)
        return
    model = find_pretrained(name)
    if to:
        require_parent_folder(to)
        copy_pretrained(model, to)
        echo(to)
    elif as_json:
        echo_json(load_card(model))
    else:
        echo((model.path / "card.md").read_text(encoding="utf-8").rstrip())


@command(examples=("rotnet-keras measure-weights airbench4_photos",))
@argument("name", "MODEL", "A pretrained model; `rotnet-keras weights` lists them.")
@overrides_argument
@runs_dir_option
def measure_weights(name: str, overrides: tuple[str, ...], runs_dir: Path) -> None:
    """Measure a pretrained model again, and check its card.

    The figures of the card are measured on this machine and shown beside it. This needs the data of the card.
    """
    from rotnet_keras.runs.zoo import find_pretrained

    model, given = find_pretrained(name), parse_overrides(overrides)
    from rotnet_keras.inference.zoo_check import check_card

    found = check_card(model, given, runs_dir, show_progress)
    rows = [[percent(each.card, 2, ""), percent(each.measured, 2, ""), each.name] for each in found]
    echo_table(["card, %", "here, %", "what"], rows)
    echo(f"Largest difference: {100 * max(abs(each.card - each.measured) for each in found):.2f} points.")


@command(examples=("rotnet-keras export my_run --to onnx",))
@run_argument
@option(
    "--to", metavar="FORMAT", required=True, help="savedmodel, onnx or litert; the run folder has .keras files already."
)
@option("--model", metavar="MODEL", default="backbone", help="Which model of the run: backbone, rotnet or classifier.")
@option("--output", metavar="FILE", type=PATH, help="File or folder to write; beside the .keras file by default.")
@runs_dir_option
def export(run: str, to: str, model: str, output: Path | None, runs_dir: Path) -> None:
    """Export a model to SavedModel, ONNX or LiteRT."""
    folder = find_run(run, runs_dir)
    if to not in EXPORT_SUFFIXES:
        raise RecipeError(f"--to: expected savedmodel, onnx or litert, got {to!r}")
    folder.require_own_files()
    source = folder.export / f"{model}.keras"
    if not source.is_file():
        there = ", ".join(sorted(p.stem for p in folder.export.glob("*.keras"))) or "none yet"
        raise RotnetError(f"{folder.name} has no exported model {model!r} (it has: {there})")
    target = output or source.with_suffix(EXPORT_SUFFIXES[to])
    require_parent_folder(target)
    from rotnet_keras.models.export import convert

    convert(source, to, target, None if output else folder.path)
    echo(target)


@command(examples=("rotnet-keras convert model_net_epoch200 --backbone nin --to backbone.keras",))
@argument("checkpoint", "CHECKPOINT", "A checkpoint of https://github.com/gidariss/FeatureLearningRotNet.", type=PATH)
@option("--backbone", metavar="BACKBONE", required=True, help="Which backbone it holds: nin or alexnet.")
@option("--to", metavar="FILE", type=PATH, required=True, help="The .keras file to write, and rotnet.keras beside it.")
@flag("--avg-on-conv3", description="The NIN was trained with the option use_avg_on_conv3.")
@option("--mean", metavar="A,B,C", help="Mean of each channel, 0 to 255; the authors' numbers by default.")
@option("--std", metavar="A,B,C", help="Standard deviation of each channel; the authors' numbers by default.")
def convert(checkpoint: Path, backbone: str, to: Path, avg_on_conv3: bool, mean: str | None, std: str | None) -> None:
    """Convert a checkpoint of the authors' PyTorch code.

    PyTorch is not needed. Reading a checkpoint runs no code from it.
    """
    if backbone not in ("nin", "alexnet"):
        raise RecipeError(f"--backbone: expected nin or alexnet, got {backbone!r}")
    numbers = {"mean": _numbers_of_channels("mean", mean), "std": _numbers_of_channels("std", std)}
    rotnet = to.with_name("rotnet.keras")
    if to.suffix != ".keras" or to == rotnet:
        raise RecipeError(f"--to: expected a file that ends in .keras and is not rotnet.keras, got {to}")
    for path in (to, rotnet):
        if path.exists():
            raise RotnetError(f"{path} exists already; remove it, or choose another path with --to")
    require_file(checkpoint)
    require_parent_folder(to)
    from rotnet_keras.models.torch_import.checkpoint import ROTATIONS, read_checkpoint

    found = read_checkpoint(checkpoint, "nin" if backbone == "nin" else "alexnet")
    found.check_statistics(**numbers)
    may_pool = backbone == "nin" and found.blocks > 3
    if avg_on_conv3 and not may_pool:
        raise RecipeError("--avg-on-conv3: only a nin of four or more blocks has that pool; leave it out")
    if may_pool and not avg_on_conv3:
        echo(
            "Taken as trained without use_avg_on_conv3, like the released configurations of RotNet. The weights do not "
            "show it: if it was, add --avg-on-conv3."
        )
    if found.outputs != ROTATIONS:
        what = f"Its classifier has {found.outputs} classes" if found.outputs else "It has no classifier"
        echo(f"{what}, not {ROTATIONS} rotations: rotnet.keras is not written.")
    from rotnet_keras.models.torch_import.convert import convert_original

    for path in convert_original(found, to, rotnet, avg_on_conv3=avg_on_conv3, **numbers):
        echo(path)


def _numbers_of_channels(name: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all((0 if name == "mean" else 1e-6) <= number <= 255 for number in numbers):
        raise RecipeError(f"--{name}: expected numbers up to 255 with commas, such as 125.3,123.0,113.9, got {text!r}")
    return numbers


@command(examples=("rotnet-keras rescale backbone.keras --images photos --to rescaled.keras",))
@argument("backbone", "BACKBONE", "A .keras file whose layers form a chain, such as nin or alexnet.", type=PATH)
@option("--images", metavar="FOLDER", type=PATH, required=True, help="Folder of images to compute the factors with.")
@option("--to", metavar="FILE", type=PATH, required=True, help="The .keras file to write.")
def rescale(backbone: Path, images: Path, to: Path) -> None:
    """Rescale a backbone so that all layers learn equally fast.

    Batch normalisation is folded into the weights, then each layer is multiplied by a factor (Kraehenbuehl et al.,
    2016). Finetuning for detection and segmentation starts from such weights.
    """
    require_file(backbone)
    if to.exists():
        raise RotnetError(f"{to} exists already; remove it, or choose another name with --to")
    require_parent_folder(to)
    from rotnet_keras.models.rescaling import rescale_file

    factors = rescale_file(backbone, images, to)
    echo_table(["layer", "multiplied by"], [[name, f"{factor:.3g}"] for name, factor in factors.items()])
    echo(to)
