"""The charts of the terminal UI: what is drawn, the cursor, and the grid that people arrange."""

import numpy as np
import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.state.metrics import chosen, layout_problem
from rotnet_tui.widgets.axes import labels, ticks
from rotnet_tui.widgets.braille import DotCanvas
from rotnet_tui.widgets.chart import Chart
from rotnet_tui.widgets.curves import shortened
from support.fake_runs import fake_run
from support.screen_words import drawn, text_of, until
from textual.content import Content
from textual.widgets import Input


def legend(app, number):
    """What is below a chart, without its colours."""
    return Content.from_markup(str(app.screen.query_one(f"#chart-{number}", Chart).border_subtitle)).plain


@pytest.mark.parametrize(
    ("low", "high", "most", "log", "expected"),
    [
        (0, 1, 5, False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 90_000, 4, False, ["0k", "50k"]),
        (3, 3, 4, False, ["3"]),
        (0.0001, 0.0009, 3, False, ["0.0005"]),
        (-3, 0, 5, True, ["0.001", "0.01", "0.1", "1"]),
        (-0.5, 0.5, 5, True, ["0.5", "1", "2"]),
    ],
)
def test_ticks_are_round_and_few(low, high, most, log, expected):
    found = ticks(low, high, most, log)
    assert labels(found, log) == expected and len(found) <= most + 1


def test_a_line_is_drawn_to_the_edge_and_no_farther():
    canvas = DotCanvas(4, 2)
    canvas.line(np.array([-100.0, 100.0]), np.array([3.0, 3.0]), 1)
    assert "".join(canvas.characters(0)) == "⣀⣀⣀⣀" and not canvas.characters(1).count("⣀")
    assert canvas.owners.tolist() == [[1] * 4, [-1] * 4]
    steep = DotCanvas(2, 2)
    steep.line(np.array([0.0, 3.0]), np.array([-1000.0, 1000.0]), 0)
    assert {row for row, column in zip(*np.nonzero(steep.dots), strict=True)} == {0, 1}
    outside = DotCanvas(2, 2)
    outside.line(np.array([0.0, 3.0]), np.array([50.0, 60.0]), 0)
    assert not outside.dots.any()


def test_names_of_a_legend_are_cut_where_there_is_no_room():
    assert shortened(["nin_blocks4", "a", "nin_blocks5"], 30) == ["nin_blocks4", "a", "nin_blocks5"]
    assert shortened(["nin_blocks4", "a", "nin_blocks5"], 15) == ["nin…ks4", "a", "nin…ks5"]
    assert shortened(["nin_blocks4"], 0) == ["ni…s4"] and shortened([], 5) == []


def test_patterns_choose_metrics_and_mistakes_are_named():
    names = ["loss", "accuracy_0", "accuracy_90", "validation_loss"]
    assert chosen("validation_loss + loss", names) == ["validation_loss", "loss"]
    assert chosen("accuracy_*", names) == ["accuracy_0", "accuracy_90"]
    assert layout_problem("2x2", ["loss"], names) == ""
    assert layout_problem("3x2", ["loss", "los", "x*"], names).endswith("no metric called los, x*")
    assert "1x1 to 3x3" in layout_problem("4x1", ["loss"], names) and layout_problem("2x", ["loss"], names)


async def test_a_cursor_shows_the_values_of_all_charts_at_one_step(runs_dir):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "one", epochs=8, outcome="finished"))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "cursor" in text_of(app, "#curves-hint"))
        await until(pilot, lambda: legend(app, 3) == "━ learning_rate 0.0001")
        await pilot.press("right")
        await until(pilot, lambda: "cursor step 480, epoch 8.00" in text_of(app, "#curves-hint"))
        await pilot.press(*["left"] * 24)
        await until(pilot, lambda: "cursor step 240, epoch 4.00" in text_of(app, "#curves-hint"))
        assert legend(app, 3) == "━ learning_rate 0.01"
        # The validation after epoch 4 found 25 + 70 * (1 - exp(-2)) % right.
        assert "validation 85.5" in legend(app, 2)
        assert legend(app, 4).startswith("━ 0 85.6  ╍ 90 85.6")
        await pilot.press("x", "escape")
        await until(pilot, lambda: "cursor step" not in text_of(app, "#curves-hint"))
        await pilot.click("#chart-1", offset=(60, 5))
        await until(pilot, lambda: "cursor step" in text_of(app, "#curves-hint"))
        assert app.screen.query("#run-tabs")


@pytest.mark.long
async def test_people_arrange_the_charts_and_find_them_again(runs_dir):
    run = fake_run(runs_dir, "one", epochs=3, outcome="finished")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "arrange" in text_of(app, "#curves-hint"))
        await pilot.press("g")
        await until(pilot, lambda: bool(app.screen.query("#charts-patterns")))
        assert "metrics: loss, accuracy, learning_rate, images_per_s, data_wait" in drawn(app)
        field = app.screen.query_one("#charts-patterns", Input)
        assert field.selected_text == field.value and field.cursor_position == 0
        await pilot.press("ctrl+u", *"probe_conv*,los", "enter")
        await until(pilot, lambda: "no metric called los" in text_of(app, "#charts-problem"))
        await pilot.press(*"s,images_per_s,data_wait,loss", "tab", "ctrl+u", *"3x1", "enter")
        await until(pilot, lambda: "charts 1 of 2" in text_of(app, "#curves-hint"))
        shown = [str(chart.border_title) for chart in app.screen.query(Chart) if chart.display]
        assert shown == ["probe_conv*, %", "loss", "images_per_s"]
        assert legend(app, 1) == "━ conv1 71.0  ╍ conv2 77.0  ┉ conv3 75.0  ╸· conv4 70.0"
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "charts 2 of 2" in text_of(app, "#curves-hint"))
        await pilot.press("q")
    remembered = RotnetApp(runs_dir).settings
    assert remembered.grid == "3x1" and remembered.charts[-1] == "loss"


async def test_runs_are_compared_at_the_cursor(runs_dir):
    fake_run(runs_dir, "a", epochs=2, outcome="finished")
    fake_run(runs_dir, "b", epochs=2, outcome="finished", reach=0.6)
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready)
        await pilot.press("space", "space", "c")
        await until(pilot, lambda: "rotation accuracy, validation, last" in drawn(app))
        await pilot.press("right")
        # After two of eight epochs they are at 25 + 70 * (1 - exp(-1)) and at 25 + 35 * (1 - exp(-1)) %.
        await until(pilot, lambda: legend(app, 1) == "━ a 69.2  ╍ b 47.1 (-22.1)")
        await pilot.press("escape")
        await until(pilot, lambda: legend(app, 1) == "━ a 69.2  ╍ b 47.1")
