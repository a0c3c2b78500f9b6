"""Drills of what a stranger may hand in besides recipes and images: models, run folders, XML, lists, tfds folders."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from soak.tally import Tally
from soak.workers import Check, Worker

# What stands in files at places where nobody expects it.
WORDS = [
    *("", ".", "..", "../../x", "/dev/zero", "/etc/passwd", "~", "a" * 5000, "ü\u202e", "\x1b[2J", "{}", "[/]", "$x$"),
    *("Lambda", "os.system", "keras.utils.get_file", "__import__", "tensorflow_datasets.core.features.Image", "NaN"),
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 1e308, -5e-324, True, None]
PIECES = [b"", b"\0", b"\xff", b"&x;", b"<a>", b'"', b"\n", b"]]>", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b"9" * 40]


def spoilt(rng: Random, content: bytes) -> bytes:
    """Bytes of a file, cut off, with others in them, with bits turned, or with a piece twice."""
    for _ in range(rng.randint(1, 4)):
        first = rng.randint(0, len(content))
        last = min(len(content), first + rng.choice([0, 1, 8, 64, 4096]))
        what = rng.choice(["piece", "noise", "bit", "twice", "gone", "end"])
        middle = content[first:last]
        if what == "piece":
            middle = rng.choice(PIECES)
        elif what == "noise":
            middle = rng.randbytes(len(middle))
        elif what == "bit" and middle:
            middle = bytes([middle[0] ^ 1 << rng.randrange(8)]) + middle[1:]
        elif what == "twice":
            middle *= 2
        content = content[:first] + (b"" if what == "gone" else middle) + (b"" if what == "end" else content[last:])
    return content


def changed(rng: Random, tree: Any) -> Any:
    """A JSON value in which something is another, is gone, or stands elsewhere, too."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(tree))
        if not places:
            return tree
        target, key = rng.choice(places)
        what = rng.choice(["word", "number", "gone", "wrap", "deep", "other", "copy"])
        if what == "gone":
            del target[key]
        elif what == "wrap":
            target[key] = [target[key]]
        elif what == "deep":
            for _ in range(rng.choice([10, 200])):
                target[key] = {"a": target[key]}
        elif what == "other":
            other, name = rng.choice(places)
            if name in (other if isinstance(other, dict) else range(len(other))):
                target[key] = json.loads(json.dumps(other[name]))
        elif what == "copy" and isinstance(target, list):
            target += target[:1] * rng.choice([1, 1000])
        else:
            target[key] = rng.choice(WORDS if what == "word" else NUMBERS)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def spoilt_json(rng: Random, content: bytes) -> bytes:
    """A JSON file with other values, or with other bytes, as one that is none already."""
    if rng.random() < 0.3:
        return spoilt(rng, content)
    try:
        return json.dumps(changed(rng, json.loads(content))).encode()
    except ValueError:
        return spoilt(rng, content)


def tried(what: str, prepare: Callable[[], Check], make: Callable[[], Any], count: int) -> Tally:
    """Try so many examples in a worker."""
    tally, worker, good = Tally(what), Worker(prepare), 0
    for _ in range(count):
        example = make()
        usable, problem = worker.attempt(example)
        tally.tried += 1
        good += usable
        if problem:
            tally.lost.append(f"{problem} of {repr(example)[:600]}")
    worker.close()
    tally.note = f"{good:,} were usable, {tally.tried - good - len(tally.lost):,} ended with one message"
    return tally


def _one_message(error: Exception) -> bool:
    assert str(error).strip() and "Traceback" not in str(error)
    return False


# A model like those that are exported, but of a few kilobytes.
MODEL = """
import sys
from rotnet_keras.models.backbones.registry import backbone
backbone("compact", (16, 16, 3), width=0.0625, blocks=1).save(sys.argv[1])
"""


def models(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """`.keras` files with another configuration, damaged weights, or a damaged archive."""
    whole = folder / "whole.keras"
    subprocess.run([sys.executable, "-P", "-c", MODEL, whole], check=True, capture_output=True)
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def make() -> bytes:
        if rng.random() < 0.2:
            return spoilt(rng, whole.read_bytes())
        name = rng.choice(["config.json", "config.json", "metadata.json", "model.weights.h5"])
        content = (spoilt if name.endswith(".h5") else spoilt_json)(rng, members[name])
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for member, other in members.items():
                archive.writestr(member, content if member == name else other)
        return packed.getvalue()

    def prepare() -> Check:
        import numpy as np

        from rotnet_keras.errors import RotnetError
        from rotnet_keras.models.export import load_backbone

        path = folder / "model.keras"

        def check(content: bytes) -> bool:
            path.write_bytes(content)
            try:
                model = load_backbone(path)
            except RotnetError as error:
                return _one_message(error)
            assert model.input.shape[-1] is None or np.prod(model.input.shape[1:]) < 1e9
            return True

        return check

    yield tried("models", prepare, make, count)


def run_folders(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Run folders whose recipe, facts, events or log were changed, among others."""
    from support.command_line import invoke
    from support.fake_runs import fake_run

    whole = fake_run(folder / "whole", "run", epochs=2, outcome="finished").path
    names = ("recipe.toml", "run.json", "events.jsonl", "log.txt")
    files = {name: (whole / name).read_bytes() for name in names}

    def make() -> dict[str, bytes]:
        name = rng.choice(["recipe.toml", "run.json", "run.json", "events.jsonl", "events.jsonl", "log.txt"])
        if name == "run.json":
            content = spoilt_json(rng, files[name])
        elif name == "events.jsonl" and rng.random() < 0.8:
            lines = files[name].splitlines()
            for _ in range(rng.randint(1, 5)):
                at = rng.randrange(len(lines))
                lines[at] = spoilt_json(rng, lines[at]) if lines[at].startswith(b"{") else lines[at]
            content = b"\n".join(lines) + b"\n"
        else:
            content = spoilt(rng, files[name])
        return files | {name: content}

    runs_dir = folder / "runs"
    fake_run(runs_dir, "good", epochs=1, outcome="finished")
    (runs_dir / "bad").mkdir()

    def prepare() -> Check:
        # What a report needs is imported before the first one is timed.
        assert invoke("report", "good", "--runs-dir", runs_dir).returncode == 0

        def check(found: dict[str, bytes]) -> bool:
            for name, content in found.items():
                (runs_dir / "bad" / name).write_bytes(content)
            listed = invoke("runs", "--json", "--runs-dir", runs_dir)
            assert listed.returncode == 0, listed.stderr
            assert {run["name"] for run in json.loads(listed.stdout)} == {"good", "bad"}
            table = invoke("runs", "--runs-dir", runs_dir)
            assert table.returncode == 0 and not set(table.stdout) & {"\x1b", "\0"}, table.stderr
            usable = True
            # A report takes longer than all the others.
            report = [("report", "bad")] if sum(map(len, found.values())) % 5 == 0 else []
            for words in (("status", "bad"), ("logs", "bad"), ("compare", "good", "bad"), *report):
                result = invoke(*words, "--runs-dir", runs_dir)
                assert result.returncode in (0, 1, 2, 3), result.stderr
                assert result.returncode == 0 or result.stderr.strip(), words
                assert "Traceback" not in result.stderr and "\x1b" not in result.stdout, words
                usable &= result.returncode == 0
            return usable

        return check

    yield tried("run folders", prepare, make, count)


def annotations(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Annotations in XML, also with entities, in other encodings, and nested deeply."""
    from support.voc_kit import COLOURS, make_kit

    whole = [file.read_bytes() for file in sorted((make_kit(folder / "kit", 4) / "Annotations").iterdir())]
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(10))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]>'

    def make() -> bytes:
        content = rng.choice(whole)
        kind = rng.random()
        if kind < 0.1:
            text = bomb + content.decode().replace("<name>", f"<name>&e{rng.randint(0, 10)};")
            return text.encode()
        if kind < 0.13:
            depth = rng.choice([100, 1000, 100_000])
            return b"<a>" * depth + content + b"</a>" * depth
        if kind < 0.4:
            encoding = rng.choice(["utf-16", "utf-32", "latin-1", "ascii", "utf-7", "idna", "rot13", "no-such"])
            head = f'<?xml version="1.0" encoding="{encoding}"?>'
            return spoilt(rng, head.encode() + content) if rng.random() < 0.5 else head.encode() + content
        if kind < 0.7:
            place = rng.choice(re.findall(rb">([^<]+)<", content))
            value = str(rng.choice([*WORDS, *NUMBERS])).encode("utf-8", "replace")
            return content.replace(place, value.replace(b"<", b""))
        return spoilt(rng, content)

    def prepare() -> Check:
        from rotnet_keras.data.annotations import BrokenAnnotation, read_objects

        path = folder / "a.xml"

        def check(content: bytes) -> bool:
            path.write_bytes(content)
            try:
                read_objects(path, list(COLOURS), (48, 40))
            except BrokenAnnotation as error:
                return _one_message(error)
            return True

        return check

    yield tried("annotations in XML", prepare, make, count)


def lists(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Lists of labels and of a kit's images."""
    from support.voc_kit import make_kit

    kit = make_kit(folder / "kit", 8)
    (kit / "labels.csv").write_bytes(b"")
    names = [file.name for file in sorted((kit / "JPEGImages").iterdir())]
    rows = [f"JPEGImages/{name}{{0}}{n % 2}" for n, name in enumerate(names)]
    whole = [
        "\n".join(["file{0}label", *rows]).format(separator).encode(encoding)
        for separator in (",", ";", "\t")
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1")
    ]
    images = (kit / "ImageSets" / "Main" / "train.txt").read_bytes()

    def make() -> tuple[str, bytes]:
        if rng.random() < 0.3:
            return "ImageSets/Main/train.txt", spoilt(rng, images) + str(rng.choice(WORDS)).encode("utf-8")
        content = rng.choice(whole)
        if rng.random() < 0.3:
            word = str(rng.choice(WORDS)).encode("utf-8")
            return "labels.csv", content.replace(names[0].encode(), word)
        return "labels.csv", spoilt(rng, content)

    def prepare() -> Check:
        from rotnet_keras.config.sections import AnnotatedData
        from rotnet_keras.data.sources import VocSource
        from rotnet_keras.errors import RotnetError
        from rotnet_keras.inference.few_labels import read_labels

        data = AnnotatedData(name=str(kit), classes=["bus", "cat", "dog"])

        def check(example: tuple[str, bytes]) -> bool:
            name, content = example
            (kit / name).write_bytes(content)
            try:
                if name == "labels.csv":
                    read_labels(kit / name)
                else:
                    VocSource(kit).image_names(data, masks=False)
            except RotnetError as error:
                return _one_message(error)
            return True

        return check

    yield tried("lists", prepare, make, count)


def tfds_folders(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Folders of TensorFlow Datasets with changed metadata and damaged records."""
    code = "import sys, pathlib, support.tfds_folder as f; f.prepare(pathlib.Path(sys.argv[1]), [6, 4])"
    whole = folder / "whole"
    subprocess.run([sys.executable, "-c", code, whole], check=True, capture_output=True)
    home = Path("pictures") / "1.0.0"
    files = {path.name: path.read_bytes() for path in sorted((whole / home).iterdir())}
    described = [name for name in files if name.endswith(".json")]

    def make() -> dict[str, bytes]:
        name = rng.choice([*described, *described, *files])
        content = (spoilt_json if name in described else spoilt)(rng, files[name])
        return files | {name: content}

    def prepare() -> Check:
        import tensorflow as tf

        from rotnet_keras.config.sections import Data
        from rotnet_keras.data.datasets import load
        from rotnet_keras.errors import RotnetError

        tf.config.set_visible_devices([], "GPU")
        data_dir = folder / "data"

        def check(found: dict[str, bytes]) -> bool:
            shutil.rmtree(data_dir, ignore_errors=True)
            (data_dir / home).mkdir(parents=True)
            for name, content in found.items():
                (data_dir / home / name).write_bytes(content)
            cache = "none" if len(str(found)) % 2 else "memory"
            try:
                spec = Data(name="pictures", data_dir=str(data_dir), size=8, validation=0, cache=cache)
                load(spec).train.images(slice(None))
            except RotnetError as error:
                return _one_message(error)
            return True

        return check

    yield tried("folders of TensorFlow Datasets", prepare, make, count)
