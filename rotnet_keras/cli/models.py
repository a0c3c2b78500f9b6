"""The commands about models and about the machine: backbones, weights, exports, what is installed, how fast it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from rotnet_keras.cli.options import (
    AsJson,
    Overrides,
    RunName,
    RunsDir,
    backbone_spec,
    check_places,
    chosen,
    find,
    print_rows,
    tell,
    tell_progress,
)
from rotnet_keras.errors import DataError, RecipeError, RotnetError


def backbones(
    name: Annotated[str | None, typer.Argument(help="Build this one and list its layers to read.")] = None,
    blocks: Annotated[int | None, typer.Option(min=2, max=8, help="Of nin and compact; 4 by default.")] = None,
    width: Annotated[float, typer.Option(min=0.05, max=16)] = 1.0,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the images, in pixels.")] = 224,
    channels: Annotated[int, typer.Option(min=1, max=1024)] = 3,
    as_json: AsJson = False,
) -> None:
    """List the backbones, or the taps of one with their shapes, its parameters and its arithmetic."""
    from rotnet_keras.config.architectures import ARCHITECTURES, described

    if name is None:
        rows = [described(known) for known in ARCHITECTURES]
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
        else:
            print_rows(["backbone", "taps", "blocks", "width", "what"], [list(row.values()) for row in rows])
        return
    spec = backbone_spec(name, blocks, width, size)
    from rotnet_keras.models.flops import backbone_summary

    found = backbone_summary(spec, (size, size, channels))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    shapes = [[tap, " x ".join(map(str, shape))] for tap, shape in found["taps"].items()]
    print_rows(["layer", "features"], shapes)
    typer.echo(f"{found['parameters']:,} trainable parameters; {found['gflop']:.3g} GFLOP forward for one image")


def export(
    run: RunName,
    to: Annotated[str, typer.Option(help="savedmodel, onnx or litert; the run folder holds keras already.")],
    model: Annotated[str, typer.Option(help="backbone, rotnet or classifier.")] = "backbone",
    output: Annotated[Path | None, typer.Option(help="What to write; beside the .keras file by default.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write an exported model of a run in another format."""
    folder = find(run, runs_dir)
    suffixes = {"savedmodel": ".savedmodel", "onnx": ".onnx", "litert": ".tflite"}
    if to not in suffixes:
        raise RecipeError(f"--to: expected savedmodel, onnx or litert, got {to!r}")
    source = folder.export / f"{model}.keras"
    if not source.is_file():
        there = ", ".join(sorted(p.stem for p in folder.export.glob("*.keras"))) or "none yet"
        raise RotnetError(f"{folder.name} has no exported model {model!r} (there: {there})")
    target = output or source.with_suffix(suffixes[to])
    check_places(target)
    from rotnet_keras.models.export import convert

    convert(source, to, target)
    tell(target)


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Of the original PyTorch code.")],
    backbone: Annotated[str, typer.Option(help="nin or alexnet.")],
    to: Annotated[Path, typer.Option(help="The .keras file to write; rotnet.keras comes beside it.")],
) -> None:
    """Read a checkpoint of the original PyTorch code."""
    if backbone not in ("nin", "alexnet"):
        raise RecipeError(f"--backbone: expected nin or alexnet, got {backbone!r}")
    if not checkpoint.is_file():
        raise DataError(f"no file {checkpoint.absolute()}")
    check_places(to)
    from rotnet_keras.models.torch_import import convert_original

    for path in convert_original(checkpoint, backbone, to):
        tell(path)


def weights(
    name: Annotated[str | None, typer.Argument(help="Tell all that is known of these.")] = None,
    to: Annotated[Path | None, typer.Option(help="Copy their files into this new folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the pretrained networks that come with the package, or tell of one, or copy its files."""
    from rotnet_keras.reports.report import HEAD_NAMES
    from rotnet_keras.runs.zoo import copy_pretrained, find_pretrained, list_pretrained, load_card, size_mb

    if name is None:
        if to:
            raise RecipeError("--to copies one network: say which")
        cards = {network: load_card(network) for network in list_pretrained().values()}
        if as_json:
            typer.echo(json.dumps([{**card, "megabytes": size_mb(each)} for each, card in cards.items()], indent=2))
            return
        if not cards:
            tell("No weights come with this version. A run makes your own: rotnet-keras run quickstart")
            return
        rows = []
        for network, card in cards.items():
            best = card["best_probe"]
            rows.append([
                network.name, f"{size_mb(network):.1f}", card["data"]["name"],
                f"{100 * card['rotation']['accuracy']:.1f}",
                f"{100 * best['top1']:.1f} ({HEAD_NAMES[best['head']]}, {best['tap']})" if best else "",
                card["title"],
            ])  # fmt: skip
        print_rows(["weights", "MB", "data", "rotation, %", "best probe, %", "what"], rows)
        return
    network = find_pretrained(name)
    if to:
        check_places(to)
        copy_pretrained(network, to)
        tell(to)
    elif as_json:
        typer.echo(json.dumps(load_card(network), indent=2))
    else:
        tell((network.path / "card.md").read_text(encoding="utf-8").rstrip())


def measure_weights(
    name: Annotated[str, typer.Argument(help="One of `rotnet-keras weights`.")],
    overrides: Overrides = None,
    runs_dir: RunsDir = None,
) -> None:
    """Measure pretrained networks that come with the package again, and set that beside their cards."""
    from rotnet_keras.config.loading import parse_override
    from rotnet_keras.runs.zoo import find_pretrained

    network, given = find_pretrained(name), dict(map(parse_override, overrides or []))
    from rotnet_keras.inference.zoo_check import measure_again

    found = measure_again(network, given, chosen(runs_dir), tell_progress)
    rows = [[f"{100 * each.card:.2f}", f"{100 * each.here:.2f}", each.what] for each in found]
    print_rows(["card, %", "here, %", "what"], rows)
    tell(f"Largest difference: {100 * max(abs(each.card - each.here) for each in found):.2f} points.")


def rescale(
    backbone: Annotated[Path, typer.Argument(help="A .keras file: a chain of layers, as nin and alexnet are.")],
    images: Annotated[Path, typer.Option(help="A folder of images to go by.")],
    to: Annotated[Path, typer.Option(help="The .keras file to write.")],
) -> None:
    """Fold batch normalisation into weights and let all layers learn equally fast (Kraehenbuehl et al., 2016)."""
    if not backbone.is_file():
        raise DataError(f"no file {backbone.absolute()}")
    if to.exists():
        raise RotnetError(f"{to} exists already; remove it or choose another place with --to")
    check_places(to)
    from rotnet_keras.models.rescaling import rescale_file

    factors = rescale_file(backbone, images, to)
    print_rows(["layer", "multiplied by"], [[name, f"{factor:.3g}"] for name, factor in factors.items()])
    tell(to)


def doctor(as_json: AsJson = False) -> None:
    """Check the installation and say what a run would use."""
    from rotnet_keras.cli.doctor import diagnosis

    found = diagnosis()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_rows(["", ""], [[key, str(value)] for key, value in found.items()])


def bench(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="[PART]...", help="startup, memory, training, data, probes; or all.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="One of `rotnet-keras backbones`.")] = "nin",
    blocks: Annotated[int | None, typer.Option(min=2, max=8, help="Of nin and compact; 4 by default.")] = None,
    width: Annotated[float, typer.Option(min=0.05, max=16)] = 1.0,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the images, in pixels.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Images; four times as many inputs.")] = 128,
    precision: Annotated[str, typer.Option(help="auto, float32, mixed_bfloat16 or mixed_float16.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Of which the median counts.")] = 5,
    images: Annotated[Path | None, typer.Option(exists=True, help="A folder of images for the part data.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A command that prints JSON with rotated_images_per_s, to take turns with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast this machine trains, probes, reads images and starts."""
    from rotnet_keras.planning.bench.registry import Settings, as_table, chosen_parts, measure

    settings = Settings(
        backbone, blocks, width, size, batch, precision, rounds, None if images is None else str(images), against
    )
    chosen = chosen_parts(parts, settings)
    if {"training", "probes"} & set(chosen):
        backbone_spec(backbone, blocks, width, size)
    found = measure(chosen, settings, lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_rows(*as_table(found))


COMMANDS: tuple[Callable[..., None], ...] = (
    backbones,
    weights,
    measure_weights,
    export,
    convert,
    rescale,
    doctor,
    bench,
)
