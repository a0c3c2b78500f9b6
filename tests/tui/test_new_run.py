"""The terminal UI's form of a new run."""

import asyncio
import subprocess
import sys
import threading

import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.screens import new_run
from rotnet_tui.widgets.field_row import Choice, FieldRow
from rotnet_tui.widgets.form_fields import form_fields, form_sections
from rotnet_tui.widgets.form_section import FormSection, SectionHeader, section_shape
from support.screen_words import text_of, until
from support.voc_kit import make_kit
from textual.events import Mount
from textual.widgets import Button, Input, Select, Static

from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.runs.folder import list_runs


async def test_the_form_explains_mistakes_beside_the_field(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 50)) as pilot:
        await pilot.press("n")
        await until(
            pilot, lambda: bool(list(app.screen.query("FieldRow"))) and "426 steps" in text_of(app, "#form-steps")
        )
        rows = {row.field.key: row for row in app.screen.query("FieldRow")}
        rows["train.epochs"].query_one(Input).value = "ten"
        rows["optimizer.learning_rate"].query_one(Input).value = "-1"
        rows["seed"].query_one(Input).value = ""
        await until(pilot, lambda: rows["train.epochs"].has_class("-wrong"))
        assert "expected an integer, got 'ten'" in rows["train.epochs"].error
        assert "greater than 0" in rows["optimizer.learning_rate"].error
        assert "a value is required" in rows["seed"].error
        assert not rows["train.batch"].has_class("-wrong")
        assert app.screen.query_one("#start", Button).disabled
        await pilot.press("f2")
        rows["train.epochs"].query_one(Input).value = "2"
        rows["optimizer.learning_rate"].query_one(Input).value = "0.05"
        rows["seed"].query_one(Input).value = "0"
        rows["backbone.name"].query_one(Select).value = "nin"
        rows["title"].query_one(Input).value = "a 'title' = 3"
        await until(pilot, lambda: "142 steps" in text_of(app, "#form-steps"))
        command = text_of(app, "#form-command")
        for words in ("train.epochs=2", "optimizer.learning_rate=0.05", "backbone.name=nin"):
            assert words in command
        assert "seed" not in command and not app.screen.query_one("#start", Button).disabled
        shown = subprocess.run(
            command.replace("rotnet-keras run", f"{sys.executable} -m rotnet_keras show"),
            shell=True, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "title = \"a 'title' = 3\"" in shown and "learning_rate = 0.05" in shown
    assert not list_runs(runs_dir)


@pytest.mark.long
async def test_the_form_opens_for_every_shipped_recipe(runs_dir):
    """Its fields hold the values of the recipe, and an untouched form overrides none of them.

    Tables in which a recipe sets nothing, and those of a list, are closed and have no rows yet.
    """
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#recipe-choice")))
        form = app.screen
        sections_of = {name: form_sections(load_recipe(name)) for name in shipped_recipes()}
        # In an order in which the form can reuse its rows.
        for name, parts in sorted(sections_of.items(), key=lambda item: repr(list(map(section_shape, item[1])))):
            form.query_one("#recipe-choice", Select).value = name
            await until(pilot, lambda: text_of(app, "#form-command") == f"rotnet-keras run {name}", 60)  # noqa: B023
            sections = list(form.query(FormSection))
            assert [section.fields for section in sections] == parts, name
            opened = [section for section in sections if section.is_open]
            assert {field.key for part in parts for field in part if field.is_set and "probe." not in field.key} <= {
                field.key for section in opened for field in section.fields
            }, name
            rows = list(form.query(FieldRow))
            assert [row.field for row in rows] == [field for section in opened for field in section.fields], name
            assert all(row.region for row in rows), name
            assert [row.value() for row in rows] == [row.field.value for row in rows], name
            assert rows and form.overrides() == [], name
            assert not form.query(".-wrong"), name


async def test_a_recipe_may_be_changed_while_the_form_of_another_is_in_the_making(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "426 steps" in text_of(app, "#form-steps"), 60)
        for name in ("cifar_cpu", "voc07_detection", "quickstart", "cifar_cpu", "imagenet_s4l"):
            app.screen.query_one("#recipe-choice", Select).value = name
            for _ in range(5):
                await asyncio.sleep(0.02)
                command = text_of(app, "#form-command")
                fields = [section.fields for section in app.screen.query(FormSection)]
                # The command is never shown above the fields of another recipe.
                assert command != f"rotnet-keras run {name}" or fields == form_sections(load_recipe(name))
        await until(pilot, lambda: text_of(app, "#form-command") == "rotnet-keras run imagenet_s4l", 60)


async def test_a_list_that_is_removed_while_it_is_mounted_ends_nothing(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(80, 24)) as pilot:
        choice = Choice([("one", 1), ("two", 2)], value=1)
        await app.screen.mount(choice)
        assert str(choice.query_one("#label", Static).content) == "one"
        await choice.query("*").remove()
        choice.post_message(Mount())
        await pilot.pause()
        assert app.is_running


async def test_a_closed_table_is_opened_by_a_key_and_by_an_error_in_it(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "426 steps" in text_of(app, "#form-steps"))
        sections = {section.key: section for section in app.screen.query(FormSection)}
        probe, devices = sections["probe.0"], sections["devices"]
        assert sections["data"].is_open and not probe.is_open and not probe.rows()
        head = str(probe.query_one(SectionHeader).content)
        assert head.startswith("▸ probe.0") and "head = " in head, head
        assert "all defaults" in str(devices.query_one(SectionHeader).content)
        probe.query_one(SectionHeader).focus()
        await until(pilot, lambda: "probe.0: enter shows the" in text_of(app, "#form-help"))
        await pilot.press("enter")
        await until(pilot, lambda: len(probe.rows()) == len(probe.fields))
        await until(pilot, lambda: "probe.0: enter hides the" in text_of(app, "#form-help"))
        rows = {row.field.label: row for row in probe.rows()}
        rows["epochs"].query_one(Input).value = "3"
        await until(pilot, lambda: "probe.0.epochs=3" in text_of(app, "#form-command"))
        # What was typed stays while the table is closed.
        await pilot.press("enter")
        await until(pilot, lambda: not probe.is_open)
        assert "probe.0.epochs=3" in app.screen.overrides()
        assert "epochs = 3" in str(probe.query_one(SectionHeader).content)
        rows["epochs"].query_one(Input).value = "none"
        await until(pilot, lambda: probe.is_open)
        await until(pilot, lambda: "expected an integer" in rows["epochs"].error)


@pytest.mark.parametrize("name", ["quickstart", "cifar_nin", "folder", "probe", "finetune"])
def test_every_field_of_a_form_gives_the_recipe_back(name):
    recipe = load_recipe(name)
    fields = list(form_fields(recipe))
    given = {f.key: f.value for f in fields if f.value}
    overrides = {key: value for key, value in given.items() if next(f for f in fields if f.key == key).is_string}
    assert load_recipe(name, overrides) == recipe
    assert {"data.name", "seed", "title"} <= given.keys() and all(f.choices is None or f.choices for f in fields)


def test_the_form_of_a_study_asks_for_its_scale_and_data():
    recipe = load_recipe("studies/table1_blocks")
    fields = {f.key: f for f in form_fields(recipe)}
    assert fields["scale"].choices == ("full", "cpu") and fields["scale"].value == "full"
    changed = load_recipe("studies/table1_blocks", {"scale": "cpu", "set.data.data_dir": "/data"})
    assert {f.key: f.value for f in form_fields(changed)} == {
        **{"title": recipe.title, "scale": "cpu", "set.data.data_dir": "/data"},
    }


@pytest.mark.long
async def test_the_form_of_a_transfer_counts_its_steps(runs_dir, tmp_path):
    """Its backbone can be found, so that the form goes on to the size of the run."""
    kit = make_kit(tmp_path / "VOC2007", 16)
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 50)) as pilot:
        await pilot.press("n")
        await until(
            pilot, lambda: bool(list(app.screen.query("FieldRow"))) and "426 steps" in text_of(app, "#form-steps")
        )
        app.screen.query_one("#recipe-choice", Select).value = "voc07_classification"
        form = app.screen
        await until(pilot, lambda: text_of(app, "#form-command") == "rotnet-keras run voc07_classification")
        rows = {row.field.key: row for row in form.query("FieldRow")}
        rows["data.name"].query_one(Input).value = str(kit)
        rows["data.splits.train"].query_one(Input).value = "train"
        rows["data.splits.test"].query_one(Input).value = "val"
        rows["pretrained.run"].query_one(Input).value = "airbench4_photos"
        rows["train.steps"].query_one(Input).value = "3"
        await until(pilot, lambda: "3 steps of 16 images" in text_of(app, "#form-steps"))
        assert "3 steps of 16 images" in text_of(app, "#form-steps")


async def test_keys_are_answered_while_the_form_is_being_read(runs_dir, monkeypatch):
    """Its frame comes at once, and a slow disk holds up neither typing nor leaving."""
    read, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slowly(*arguments):
        read.set()
        go_on.wait(20)
        try:
            return load_recipe(*arguments)
        finally:
            done.set()

    monkeypatch.setattr(new_run, "load_recipe", slowly)
    app = RotnetApp(runs_dir)
    try:
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.press("n")
            await until(pilot, read.is_set)
            await until(pilot, lambda: "Reading the recipe" in text_of(app, "#form-steps"))
            assert not app.screen.query("FieldRow")
            await pilot.press("tab", *"mine")
            assert app.screen.query_one("#run-name", Input).value == "mine"
            await pilot.press("f2")
            await until(pilot, lambda: any("still being read" in n.message for n in app._notifications))
            await pilot.press("escape")
            await until(pilot, lambda: bool(app.screen.query("#run-table")))
            go_on.set()
            await until(pilot, done.is_set)
            await pilot.pause()
            assert app.is_running and not list_runs(runs_dir)
    finally:
        go_on.set()
