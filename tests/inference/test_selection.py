"""Which images to label next: the rules, and the command `select`."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke

from rotnet_keras.inference.embeddings import Features
from rotnet_keras.inference.few_labels import read_labelled_files
from rotnet_keras.inference.selection import k_centre, normalised, plus_plus, typical

# Images in each of four groups, and where the groups lie.
SIZES = (40, 30, 20, 10)
CENTRES = np.eye(6)[:4]


@pytest.fixture
def groups():
    """Four round groups of features; the first of each group is its centre, so the most typical."""
    rng = np.random.default_rng(0)
    parts = []
    for size, centre in zip(SIZES, CENTRES, strict=True):
        around = centre + 0.1 * rng.normal(size=(size, 6))
        around[0] = centre
        parts.append(around)
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture
def embedded(tmp_path, groups):
    """The features of images that exist: features.npz."""
    folder = tmp_path / "photos"
    folder.mkdir()
    files = [folder / f"{number:03}.png" for number in range(len(groups))]
    for file in files:
        Image.new("RGB", (8, 8), "grey").save(file)
    Features("backbone.keras", "conv2", [f"photos/{file.name}" for file in files], groups, list(map(str, files))).save(
        tmp_path / "features.npz"
    )
    return tmp_path


def group_of(row):
    return int(np.searchsorted(np.cumsum(SIZES), row, side="right"))


def test_the_typical_image_of_each_group_comes_first(groups):
    chosen = typical(normalised(groups), 4, [], seed=0)
    # The largest group first, of each an image near its centre.
    assert [group_of(row) for row in chosen] == [0, 1, 2, 3]
    near = np.linalg.norm(groups[chosen] - CENTRES, axis=1)
    assert (near < 0.2).all()
    # A labelled image covers its group.
    (only,) = typical(normalised(groups), 1, [5, 45, 75], seed=0)
    assert group_of(only) == 3
    doubt = np.full(100, 0.01)
    doubt[70:90] = 1
    assert group_of(typical(normalised(groups), 4, [], 0, doubt)[0]) == 2


@pytest.mark.parametrize("rule", [plus_plus, k_centre, typical])
def test_every_rule_takes_each_image_once(groups, rule):
    seed = () if rule is k_centre else (0,)
    values = normalised(np.concatenate([groups, groups[:1].repeat(20, axis=0)]))
    chosen = rule(values, 100, list(range(20)), *seed)
    assert len(set(chosen)) == 100 and set(chosen) == set(range(20, 120))
    assert rule(values, 5, [3], *seed) == rule(values, 5, [3], *seed)


def test_rules_that_cover_reach_all_groups(groups):
    for rule in (lambda: plus_plus(normalised(groups), 8, [], 0), lambda: k_centre(normalised(groups), 4, [])):
        assert {group_of(row) for row in rule()} == {0, 1, 2, 3}


def test_the_list_can_be_filled_in_and_read_as_labels(embedded):
    arguments = ["select", "features.npz", "--count", 4, "--to", "labels.csv", "--page", "page.html"]
    result = invoke(*arguments, cwd=embedded)
    assert result.returncode == 0, result.stderr
    assert "4 of 100 images without a label" in result.stdout
    with (embedded / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "label"] and all(row[1] == "" and row[0].startswith("photos/") for row in rows[1:])
    assert (embedded / "page.html").read_text().count("data:image/jpeg") == 4
    filled = [rows[0], *([name, f"class {number}"] for number, (name, _) in enumerate(rows[1:]))]
    with (embedded / "labels.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(filled)
    assert len(read_labelled_files(embedded / "labels.csv")) == 4
    again = invoke(*arguments, cwd=embedded)
    assert again.returncode == 2 and "labels.csv exists already, perhaps with labels" in again.stderr
    more = invoke("select", "features.npz", "--count", 96, "--labelled", "labels.csv", "--to", "b.csv", cwd=embedded)
    assert more.returncode == 0, more.stderr
    with (embedded / "b.csv").open(newline="") as file:
        others = {row["file"] for row in csv.DictReader(file)}
    assert len(others) == 96 and not others & {name for name, _ in filled}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_where_the_classifier_doubts_comes_first(embedded, suffix):
    rows = [(f"photos/{row:03}.png", 0.2 if group_of(row) == 3 else 0.99, None) for row in range(100)]
    file = embedded / f"predictions.{suffix}"
    if suffix == "csv":
        file.write_text("file;probability_1;error\n" + "".join(f"{n};{p};{e or ''}\n" for n, p, e in rows))
    elif suffix == "jsonl":
        keys = ("file", "probability_1", "error")
        file.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    else:
        from pyarrow import parquet, string, table

        names, values, errors = zip(*rows, strict=True)
        made = table({"file": names, "probability_1": values, "error": errors})
        parquet.write_table(made.set_column(2, "error", made["error"].cast(string())), file)
    given = ["select", "features.npz", "--count", 4, "--predictions", file, "--to", "a.csv"]
    result = invoke(*given, cwd=embedded)
    assert result.returncode == 0, result.stderr
    with (embedded / "a.csv").open(newline="") as listed:
        first = next(csv.DictReader(listed))["file"]
    assert group_of(int(first[-7:-4])) == 3


@pytest.mark.parametrize(
    ("option", "name", "content", "message"),
    [
        ("--predictions", "a.csv", b"file,label\nphotos/000.png,a\n", "line 1: expected the columns file and probab"),
        ("--predictions", "a.csv", b"", "the file is empty"),
        ("--predictions", "a.csv", b"file,probability_1\nphotos/000.png,0.5\n", "no prediction for 99 of the images"),
        ("--predictions", "a.csv", b"file,probability_1\nphotos/000.png,50%\n", "line 2: probability_1: expected a"),
        ("--predictions", "a.csv", b"file,probability_1\nphotos/\xe4.png,1\n", "line 2: this is no UTF-8 text"),
        ("--predictions", "a.csv", b"file,probability_1\na,b,1\n", "line 2: expected 2 cells"),
        pytest.param(
            *("--predictions", "a.csv", b"file,probability_1\n%s,1\n" % (b"a" * 131_073)),
            "line 2: cannot be read as CSV",
            id="long cell",
        ),
        ("--predictions", "a.jsonl", b"[1]\n", "line 1 is no prediction"),
        ("--predictions", "a.parquet", b"PAR1", "not a table that `rotnet-keras predict` wrote"),
        ("--labelled", "a.csv", b"file,label\nfeatures.npz,a\n", "none of its images has features"),
        ("--labelled", "a.csv", b"file,label\nphotos/000.png,\n", "line 2: no label"),
        ("--count", "101", b"", "expected at most 100"),
    ],
)
def test_lists_that_do_not_fit_are_refused(embedded, option, name, content, message):
    if option != "--count":
        (embedded / name).write_bytes(content)
    given = ["--count", 5] if option != "--count" else []
    result = invoke("select", "features.npz", *given, option, name, "--to", "out.csv", cwd=embedded)
    assert result.returncode == 3 and message in result.stderr, result.stderr
    assert not list(embedded.glob("out*"))


def test_a_table_without_a_column_is_refused(embedded):
    from pyarrow import parquet, table

    parquet.write_table(table({"file": ["photos/000.png"], "probability_1": [0.5]}), embedded / "a.parquet")
    result = invoke(
        "select", "features.npz", "--count", 5, "--predictions", "a.parquet", "--to", "out.csv", cwd=embedded
    )
    assert result.returncode == 3 and "a table that `rotnet-keras predict` wrote: no column error" in result.stderr


def test_features_that_are_not_finite_are_refused(embedded, groups):
    groups[3, 2] = np.nan
    files = [f"photos/{row:03}.png" for row in range(100)]
    Features("backbone.keras", "conv2", files, groups).save(embedded / "features.npz")
    result = invoke("select", "features.npz", "--count", 5, "--to", "out.csv", cwd=embedded)
    assert result.returncode == 3 and "not all finite" in result.stderr


def test_an_empty_folder_of_labels_is_one_error(embedded):
    (embedded / "none").mkdir()
    result = invoke("select", "features.npz", "--count", 5, "--labelled", "none", "--to", "out.csv", cwd=embedded)
    assert result.returncode == 3 and result.stderr.startswith("none: there are no images in ")
    assert not list(embedded.glob("out*"))
