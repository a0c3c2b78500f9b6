"""Queries that choose runs, and the tags and notes that people give them."""

import json
import time

import pytest
from support.command_line import invoke
from support.fake_runs import fake_run, work_on

from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.queries import completion, parse_query
from rotnet_keras.runs.status import NUMBER_KEYS, comparison_table
from rotnet_keras.runs.tags import change_tags, read_labels, write_note

BLANK = dict.fromkeys((*NUMBER_KEYS, "recipe", "device", "message"))
RUNS = [
    BLANK | {"name": "nin-4", "state": "running", "recipe": "cifar_nin", "tags": ["paper"], "note": "With new Crops"},
    BLANK | {"name": "old", "state": "failed", "recipe": "cifar_cpu", "tags": ["v1", "paper2"], "note": ""},
    BLANK | {"name": "quick", "state": "finished", "recipe": "quickstart", "tags": [], "note": "as nin-4"},
]
RUNS[0] |= {"rotation_accuracy": 0.905, "loss": 0.3, "created": time.time() - 3600, "epoch": 12.5}
RUNS[1] |= {"rotation_accuracy": 0.5, "created": time.time() - 3 * 86400}
RUNS[2] |= {"rotation_accuracy": 0.9, "loss": 0.2, "created": time.time() - 60}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "nin-4 old quick"),
        ("NIN-4", "nin-4 quick"),
        ("-nin-4", "old"),
        ("state:running", "nin-4"),
        ("-state:failed recipe:cifar*", "nin-4"),
        ("recipe:cifar", ""),
        ("rot>90", "nin-4"),
        ("rot>=90%", "nin-4 quick"),
        ("rot=50", "old"),
        ("tag:paper", "nin-4"),
        ("tag:paper*", "nin-4 old"),
        ("-tag:*", "quick"),
        ('note:"new crops"', "nin-4"),
        ("loss<0.25", "quick"),
        ("loss>0 -", "nin-4 quick"),
        ("age<2h", "nin-4 quick"),
        ("age>1d", "old"),
        ("name:i epoch>12", "nin-4"),
    ],
)
def test_a_query_chooses_runs(text, expected):
    query = parse_query(text)
    assert [run["name"] for run in RUNS if query.matches(run)] == expected.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rott>90", "no field called 'rott'; did you mean 'rot'?; there are: name, recipe"),
        ("cifar rot>", "rot>: expected a value, as in rot>90"),
        ("rot>high", "rot>high: expected a number, got 'high'"),
        ("age>2x", "age>2x: expected a time such as 30m, 2h or 3d"),
        ("state>running", "state is a text; expected state:running"),
        ("-tag:", "tag:cifar*"),
    ],
)
def test_a_mistake_in_a_query_is_named(text, message):
    with pytest.raises(RecipeError) as error:
        parse_query(text)
    assert message in str(error.value)


def test_what_is_understood_of_a_query_still_chooses():
    assert [run["name"] for run in RUNS if parse_query("state:failed rott>9 rot>", strict=False).matches(run)] == [
        "old"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cifar st", "cifar state:"),
        ("-ro", "-rot>"),
        ("state:fi", "state:finished"),
        ("-tag:pa", "-tag:paper"),
        ("tag:paper ", None),
        ("zzz", None),
        ("state:running", None),
    ],
)
def test_the_last_term_is_completed(text, expected):
    assert completion(text, RUNS) == expected


def test_tags_and_notes_are_written_beside_a_live_run_and_shown_everywhere(runs_dir):
    run = fake_run(runs_dir, "one", epochs=2, outcome="finished")
    other = fake_run(runs_dir, "two", epochs=1, outcome="finished")
    before = run.recipe.read_bytes(), run.events_file.read_bytes()
    work_on(run)
    assert invoke("tag", "one", "paper", "v2", "paper").stdout == "one: paper v2\n"
    assert invoke("tag", "one", "v2", "--remove").stdout == "one: paper\n"
    assert invoke("note", "one", " -new   crops").stdout == "one: -new crops\n"
    assert (run.recipe.read_bytes(), run.events_file.read_bytes()) == before
    found = json.loads(invoke("runs", "tag:paper note:crops", "--json").stdout)
    assert [(each["name"], each["tags"], each["note"]) for each in found] == [("one", ["paper"], "-new crops")]
    assert "tags: paper\nnote: -new crops" in invoke("status", "one").stdout
    _, rows = comparison_table([run, other])
    assert ["tags", "paper", ""] in rows and ["note", "-new crops", ""] in rows
    invoke("report", "one")
    assert "| note | -new crops |" in (run.path / "report.md").read_text()
    assert invoke("note", "one", "").stdout == "one: no note\n"
    assert "matches 'rot>99'" in invoke("runs", "rot>99").stdout


def test_bad_tags_and_damaged_files_of_tags(runs_dir):
    run = fake_run(runs_dir, "one", epochs=1)
    assert "no tag: expected a word" in invoke("tag", "one", "two words").stderr
    assert "one has no tag nosuch; it has: none" in invoke("tag", "one", "nosuch", "--remove").stderr
    change_tags(run, ["good"])
    with run.tags_file.open("ab") as file:
        file.write(b'\n{"kind":"note","note":5}\n[]\n{"kind":"tags","tags":["fine","\\u001b[2J",3]}\n{"kind":"no')
    assert read_labels(run) == (("fine",), "")
    write_note(run, "after a torn line")
    assert read_labels(run) == (("fine",), "after a torn line")
    run.tags_file.unlink()
    run.tags_file.symlink_to(run.recipe)
    assert read_labels(run) == ((), "")
    assert invoke("tag", "one", "x").returncode == 1
