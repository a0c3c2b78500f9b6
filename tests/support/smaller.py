"""The command line as it is, but whatever a recipe trains is a few steps on a few images: for commands of documents."""

import sys

from rotnet_keras.cli.main import main
from rotnet_keras.config.loading import load_recipe, parse_override

# What stands in for ImageNet and Places205, and a part of each.
PARTS = {
    "imagenet2012": {"train": "train[:400]", "validation": "train[400:432]", "test": "validation[:32]"},
    "voc/2007": {"train": "train[:16]", "test": "test[:8]"},
}
FEW = PARTS | {"cifar10": {"train": "train[:400]", "test": "test[:100]"}}


def settings_of(name, overrides):
    """Settings that make a recipe small; of a study only what it would run."""
    recipe = load_recipe(name, dict(map(parse_override, overrides)))
    if recipe.kind == "study":
        yield "--dry-run"
        return
    if hasattr(recipe, "train"):
        yield from ("train.steps=3", "train.batch=4")
    if hasattr(recipe, "canvas"):
        yield "canvas.side=192"
        if recipe.canvas.short:
            yield "canvas.short=112"
    yield from (
        f"probe.{number}.steps=3" for number, probe in enumerate(getattr(recipe, "probe", [])) if probe.head != "knn"
    )
    yield from (f"data.splits.{split}={part!r}" for split, part in FEW.get(recipe.data.name, {}).items())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:2] == ["queue", "add"]:
        arguments = arguments[1:]
    if arguments[0] in ("run", "add"):
        after_option = {arguments.index("--submit-options") + 1} if "--submit-options" in arguments else set()
        words = [word for i, word in enumerate(arguments) if i > 1 and "=" in word and i not in after_option]
        sys.argv += settings_of(arguments[1], words)
    main()
