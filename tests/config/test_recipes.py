import json
import tomllib

import pytest
from support.command_line import invoke
from support.tiny import TINY_RECIPE

from rotnet_keras.config.finder import expected_minutes, find_recipe, shipped_recipes
from rotnet_keras.config.loading import load_recipe, parse_override, to_toml
from rotnet_keras.errors import RecipeError

FIVE_MISTAKES = """\
kind = "pretrain"
title = "five mistakes"

[data]
name = "fashion_mini"
siz = 32

[backbone]
name = "nim"

[optimizer]
learning_rate = -1

[train]
epohcs = 3
steps = 10

[[probe]]
head = "mlp"

[[probe]]
head = "mpl"
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "r.toml"
        path.write_text(text)
        return path

    return write


def complaint(path, overrides=None):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_survive_being_written_out(name, written):
    recipe = load_recipe(name)
    assert load_recipe(written(to_toml(recipe))) == recipe


# Recipes of the paper and of the released code, which computes in float32.
OF_THE_PAPER = [
    *("cifar_nin", "cifar_nin_paper", "imagenet_alexnet", "imagenet_alexnet_paper", "imagenet_linear"),
    *("imagenet_nonlinear", "imagenet_supervised", "places205_alexnet", "places205_linear"),
    *("voc07_classification", "voc07_detection", "voc12_segmentation"),
    *(name for name in shipped_recipes() if name.startswith("studies/paper/")),
]


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_recipes_of_the_paper_compute_in_float32(name):
    recipe = load_recipe(name).model_dump()
    trained = [part for part in (recipe.get("train"), *recipe.get("probe", [])) if part]
    assert trained and {part["precision"] for part in trained} == {"float32"}


def test_recipes_of_voc_follow_their_protocols():
    recipes = {name: load_recipe(name) for name in ("voc07_classification", "voc07_detection", "voc12_segmentation")}
    assert all(recipe.bias_rate == 2 and recipe.rescale for recipe in recipes.values())
    classification, detection, segmentation = recipes.values()
    assert classification.optimizer.learning_rate == 1e-3 and classification.pretrained.learning_rate is None
    assert classification.optimizer.decay == "all" and classification.head_start == "voc" and classification.views == 10
    assert all(recipe.dropout == 0.5 and recipe.optimizer.decay == "kernels" for recipe in (detection, segmentation))
    assert detection.canvas.short == 600 and not segmentation.canvas.flip


def test_places_are_normalised_as_in_the_released_code():
    data = load_recipe("places205_alexnet").data
    assert data.mean == pytest.approx([255 * x for x in (0.485, 0.456, 0.406)])
    assert data.std == pytest.approx([255 * x for x in (0.229, 0.224, 0.225)])


def test_five_mistakes_are_reported_at_once_with_lines_and_spellings(written):
    result = invoke("run", written(FIVE_MISTAKES))
    assert result.returncode == 2 and result.stdout == ""
    for line, key, hint in (
        (6, "data.siz", "size"),
        (9, "backbone.name", "nin"),
        (12, "optimizer.learning_rate", "greater than 0"),
        (15, "train.epohcs", "epochs"),
        (22, "probe.1.head", "mlp"),
    ):
        found = [text for text in result.stderr.splitlines() if f"r.toml:{line}:" in text]
        assert len(found) == 1 and key in found[0] and hint in found[0]
    assert "5 errors" in result.stderr and "Traceback" not in result.stderr


def test_a_backbone_from_scratch_takes_the_place_of_a_pretrained_one_and_the_other_way_round():
    scratch = load_recipe("voc07_classification", {"backbone.name": "alexnet"})
    assert scratch.pretrained is None and scratch.backbone.name == "alexnet"
    tuned = load_recipe("studies/cpu/supervised", {"pretrained.file": "backbone.keras"})
    assert tuned.backbone is None and tuned.pretrained.file == "backbone.keras"
    with pytest.raises(RecipeError, match=r"expected one of \[backbone\]"):
        load_recipe("voc07_classification", {"backbone.name": "alexnet", "pretrained.frozen": "pool5"})


def test_pretraining_is_from_scratch_or_goes_on_from_weights():
    recipe = load_recipe("quickstart", {"pretrained.run": "compact4_cifar10"})
    assert recipe.backbone is None and recipe.pretrained.statistics == "model"
    assert load_recipe("quickstart", {"backbone.name": "nin"}).pretrained is None
    for overrides, complaint in (
        ({"pretrained.run": "a", "backbone.width": 0.5}, r"expected one of \[backbone\], to train from scratch"),
        ({"pretrained.run": "a", "pretrained.file": "b.keras"}, "expected exactly one of run, recipe and file"),
        ({"pretrained.run": "a", "pretrained.statistics": "old"}, "expected 'model' or 'images'"),
        ({"pretrained.run": "a", "data.mean": [1.0]}, "mean: the pretrained backbone keeps its own"),
    ):
        with pytest.raises(RecipeError, match=complaint):
            load_recipe("quickstart", overrides)
    with_own = {"pretrained.run": "a", "pretrained.statistics": "images", "data.mean": [1.0]}
    assert load_recipe("quickstart", with_own).data.mean == [1.0]


def test_each_mistake_has_its_location(written):
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(FIVE_MISTAKES))
    problems = dict(caught.value.problems)
    assert set(problems) == {
        ("data", "siz"),
        ("backbone", "name"),
        ("optimizer", "learning_rate"),
        ("train", "epohcs"),
        ("probe", 1, "head"),
    }
    assert "did you mean 'size'" in problems["data", "siz"]
    assert all(message in str(caught.value) for message in problems.values())


def test_a_mistake_between_sections_has_its_location_too(written):
    text = TINY_RECIPE.format(data="fashion_mini") + '[[probe]]\nhead = "mlp"\ntap = "conv7"\n'
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(text))
    ((location, message),) = caught.value.problems
    assert location == ("probe", 0, "tap") and "no tap 'conv7'" in message


def test_mistakes_between_sections_are_reported_with_the_others(written):
    text = TINY_RECIPE.format(data="fashion_mini") + '[[probe]]\nhead = "mlp"\ntap = "conv7"\nepochz = 1\n'
    message = complaint(written(text))
    assert "no tap 'conv7' in compact: expected 'all', conv1, conv2" in message and "epochz" in message


def test_views_are_of_augmented_images(written):
    text = TINY_RECIPE.format(data="fashion_mini") + '[[probe]]\nhead = "mlp"\nviews = 4\n'
    assert "set augment = true" in complaint(written(text))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("rotation.angles", [0, 30], "multiples of 45"),
        ("rotation.angles", [90, 90], "distinct"),
        ("schedule.name", "piecewise", "boundaries"),
        ("train.batch", 0, "greater than or equal to 1"),
        ("train.batch", "many", "expected an integer, got 'many'"),
        ("backbone.width", float("nan"), "got nan"),
        ("optimizer.learning_rate", float("inf"), "finite"),
        ("data.cache", "disc", "did you mean 'disk'"),
        ("trian.batch", 3, "did you mean 'train'"),
        ("title.x", 3, "no such key to override"),
    ],
)
def test_a_wrong_override_is_blamed_on_the_command_line(written, key, value, expected):
    message = complaint(written(TINY_RECIPE.format(data="fashion_mini")), {key: value})
    assert expected in message and "command line: " in message


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=3", 3), ("a.b=[1, 2]", [1, 2]), ("a.b=cifar10", "cifar10"), ('a.b="x y"', "x y"), ("a.b=true", True)],
)
def test_overrides_are_toml_values_and_bare_words(text, value):
    assert parse_override(text) == ("a.b", value)


@pytest.mark.parametrize("text", ["a.b", "=3", "a b=3", "a.b=[1", "a.b='x"])
def test_an_override_that_is_none_is_refused(text):
    with pytest.raises(RecipeError, match="command line"):
        parse_override(text)


def test_overrides_may_be_nested_and_reach_into_lists(written):
    text = TINY_RECIPE.format(data="fashion_mini") + '[[probe]]\nhead = "mlp"\n'
    recipe = load_recipe(written(text), {"train": {"batch": 7}, "probe.0.head": "knn"})
    assert recipe.train.batch == 7 and recipe.probe[0].head == "knn"


def test_another_backbone_replaces_the_recipes():
    recipe = load_recipe("imagenet_linear", {"backbone.run": "mine"})
    assert (recipe.backbone.run, recipe.backbone.recipe) == ("mine", None)
    with pytest.raises(RecipeError, match="exactly one of run, recipe and file"):
        load_recipe("imagenet_linear", {"backbone.run": "mine", "backbone.file": "b.keras"})


@pytest.mark.parametrize("text", ["kind = ", "\x00", "[a]\n[a]\n", "kind = 3", 'kind = "pretrian"', ""])
def test_files_that_are_no_recipes(written, text):
    assert "r.toml" in complaint(written(text))


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in complaint(tmp_path / "r.toml")


def test_check_goes_through_all_files(written):
    result = invoke("check", "quickstart", written(FIVE_MISTAKES), "cifar_nin")
    assert result.returncode == 2 and result.stdout.count("valid") == 2 and "5 errors" in result.stderr


def test_what_a_recipe_expects_is_read_without_checking_it(written):
    minutes, hardware = expected_minutes(find_recipe("cifar_cpu"))
    assert minutes is not None and 25 < minutes < 60 and "two cores" in hardware
    assert expected_minutes(find_recipe("folder")) == (None, "")
    for text in ("kind = ", "expect = 3", "[expect]\nminutes = 3\n", '[expect]\nminutes = "a"\nhardware = "b"\n'):
        assert expected_minutes(written(text)) == (None, "")


def test_what_a_recipe_expects_is_checked(written):
    text = TINY_RECIPE.format(data="fashion_mini") + "[expect]\nminuts = 3\nminutes = 0\n"
    message = complaint(written(text))
    assert "did you mean 'minutes'" in message and "greater than 0" in message and "expect.hardware: missing" in message


def test_show_writes_every_default_out():
    shown = tomllib.loads(invoke("show", "quickstart", "train.epochs=2").stdout)
    assert shown["train"]["epochs"] == 2 and shown["train"]["precision"] == "auto"


def test_the_events_of_a_long_run_average_more_steps():
    def steps_per_event(steps):
        return load_recipe("quickstart", {"train.steps": steps, "train.log_every": 20}).train.steps_per_event(4500)

    assert [steps_per_event(steps) for steps in (100, 2_000_000, 2_000_001, 50_000_000)] == [20, 20, 21, 500]


def test_schema_is_json():
    definitions = json.loads(invoke("schema").stdout)["$defs"]
    assert "PretrainRecipe" in definitions and "ProbeRecipe" in definitions


OLD_KEY = """
[[probe]]
head = "mlp"
controls = ["random"]
"""


def test_the_old_key_of_baselines_is_the_same_recipe_and_is_said_to_be_old(written):
    text = TINY_RECIPE.format(data="fashion_mini")
    notes = []
    old = load_recipe(written(text + OLD_KEY), warn=notes.append)
    assert old.probe[-1].baselines == ["random"]
    assert old == load_recipe(written(text + OLD_KEY.replace("controls", "baselines")), warn=pytest.fail)
    assert "controls" not in to_toml(old)
    assert len(notes) == 1 and notes[0].count("\n") == 0
    assert f"{old_position(old)}: 'controls' is now called 'baselines'" in notes[0]


def old_position(recipe):
    return f"probe.{len(recipe.probe) - 1}.controls"


@pytest.mark.parametrize(
    "overrides",
    [
        {"probe.0.controls": ["pixels"]},
        {"probe": {"0": {"controls": ["pixels"]}}},
        {"probe": [{"head": "mlp", "controls": ["pixels"]}]},
    ],
)
def test_the_old_key_of_baselines_is_accepted_in_overrides(written, overrides):
    notes = []
    recipe = load_recipe(written(TINY_RECIPE.format(data="fashion_mini") + OLD_KEY), overrides, notes.append)
    assert recipe.probe[0].baselines == ["pixels"]
    assert notes[-1].startswith("command line: probe.0.controls: 'controls' is now called 'baselines'")


def test_an_old_key_beside_the_new_one_is_a_mistake(written):
    text = TINY_RECIPE.format(data="fashion_mini") + OLD_KEY + "baselines = []\n"
    assert "the old name of 'baselines', which is given too" in complaint(written(text))


@pytest.mark.parametrize("key", ["'\\'", "'a\\Z'", "'a\\g<9>'", "'.'"])
def test_a_key_of_any_characters_is_an_unknown_key(written, key):
    assert "unknown key" in complaint(written(f"{TINY_RECIPE.format(data='fashion_mini')}\n{key} = 1\n[x]\n{key} = 1"))


def test_a_mistake_under_an_old_key_is_reported_at_its_line(written):
    text = TINY_RECIPE.format(data="fashion_mini") + OLD_KEY.replace("random", "rondom")
    line = text[: text.index('controls = ["rondom')].count("\n") + 1
    message = complaint(written(text))
    assert f"r.toml:{line}: probe." in message and "did you mean 'random'" in message


def test_old_keys_in_a_study_are_the_same_study(written):
    text = find_recipe("studies/fig5b_labels").read_text(encoding="utf-8")
    old = text.replace("probe.0.baselines", "probe.0.controls")
    assert old != text
    notes = []
    assert load_recipe(written(old), warn=notes.append) == load_recipe("studies/fig5b_labels")
    assert len(notes) == 1 and ".set.probe.0.controls" in notes[0]


def test_figure_5b_says_that_its_first_labels_are_not_the_papers():
    """The images are others, because TensorFlow Datasets has CIFAR-10 in another order than the original files."""
    scales = load_recipe("studies/fig5b_labels").scales
    order = "the first labels of each class in the order of TensorFlow Datasets, not of the original files"
    assert {name: order in scale.note for name, scale in scales.items()} == {"full": True, "cpu": True}


def test_check_says_that_a_key_is_old(written):
    result = invoke("check", written(TINY_RECIPE.format(data="fashion_mini") + OLD_KEY))
    assert result.returncode == 0 and result.stderr.startswith("Warning: ") and result.stderr.count("\n") == 1
    assert "'controls' is now called 'baselines'" in result.stderr


def test_every_key_of_the_schema_is_described():
    schema = json.loads(invoke("schema").stdout)
    for name, section in schema["$defs"].items():
        assert section.get("description", "").endswith("."), name
        for key, about in section["properties"].items():
            refers = "$ref" in about or any("$ref" in option for option in about.get("anyOf", []))
            assert refers or about.get("description", "").endswith("."), f"{name}.{key}"
