"""Recipes of studies: several runs, the scale they are made at, and the tables, figures and findings that follow."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rotnet_keras.config.probes import Baseline
from rotnet_keras.config.schema import Recipe
from rotnet_keras.config.sections import PositiveFloat, Section


class StudyRun(Section):
    """A run of a study, made once with each seed."""

    name: str = Field(pattern=r"^\w[\w.+-]*$", description="Name of the run within the study.")
    recipe: str = Field(description="Its recipe, by the name that `scales.<scale>.recipes` gives it.")
    of: str | None = Field(None, description="Earlier run of the study whose backbone is used, with its weights.")
    like: str | None = Field(
        None, description="Earlier run of the study whose architecture is used, with random weights."
    )
    set: dict[str, Any] = Field({}, description="Overrides of its recipe.")
    once: bool = Field(
        False, description="Make the run with the first seed only; runs of other seeds that start from it share it."
    )

    @model_validator(mode="after")
    def _check_of_and_like(self) -> "StudyRun":
        if self.of and self.like:
            raise ValueError("expected either `of`, for a run's trained backbone, or `like`, for random weights")
        return self


class Scale(Section):
    """The size at which a study is made: its recipes and seeds."""

    note: str = Field(min_length=1, description="Short description of the scale, shown with the tables.")
    remark: str = Field("", description="Why findings of the paper do not hold at this scale, where that is known.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0], min_length=1, description="Seeds that every run is made with."
    )
    recipes: dict[str, str] = Field(
        description="Recipe files or shipped recipes, by the names that the study's runs use for them."
    )
    set: dict[str, dict[str, Any]] = Field(
        {}, description="Overrides of the runs' recipes at this scale, by the runs' names."
    )


class Entry(Section):
    """Cells of a table: the results of one run, as mean and standard deviation over the seeds."""

    row: str = Field(description="Label of the table's row.")
    run: str | None = Field(
        None, description="Run whose results are shown; leave it out for rows of published numbers only."
    )
    column: str | None = Field(None, description="Label of the column; one column per tap, or per `by`, by default.")
    probe: int | None = Field(
        None, ge=0, description="Position of the probe in the run's recipe, from 0; the run's own accuracy by default."
    )
    tap: str | None = Field(None, description="Tap of the probe; all of them by default.")
    weights: Literal["rotnet"] | Baseline = Field(
        "rotnet", description="Weights that the probe measured: the run's own, or a baseline's."
    )
    novelty: Literal["probabilities", "logarithms"] | None = Field(
        None,
        description="Show the AUROC of a run with `data.only`, where images are scored by the probabilities of their "
        "rotations or by the logarithms of these.",
    )
    by: Literal["epoch", "class"] | None = Field(None, description="Make a column for each epoch or class.")
    paper: dict[str, float] | float | None = Field(
        None, description="The paper's numbers in percent: one number, or one by the label of each column."
    )

    @model_validator(mode="after")
    def _check_content(self) -> "Entry":
        if self.run is None and not isinstance(self.paper, dict):
            raise ValueError("expected a run, or the paper's numbers by column")
        return self


class StudyTable(Section):
    """Results side by side: a table, or curves over a number."""

    title: str = Field(description="Heading of the table.")
    x: str | None = Field(
        None, description="Quantity that the columns' labels are values of; the results are then drawn as curves."
    )
    log: bool = Field(False, description="Draw the x axis on a logarithmic scale.")
    mean: str | None = Field(None, description="Label of a further row with the mean of each column.")
    entry: list[Entry] = Field(min_length=1, description="The table's entries.")


class Picture(Section):
    """A figure of what backbones respond to, drawn on the first test images for the study's first seed."""

    kind: Literal["attention", "turning", "filters"] = Field(
        description="attention: attention maps of several models; turning: attention maps of rotated copies of an "
        "image; filters: the first layer's kernels of one model."
    )
    title: str = Field(description="Heading of the figure.")
    models: dict[str, str] = Field(min_length=1, description="Runs whose backbones are shown, by their labels.")
    taps: list[str] = Field([], description="Layers whose activations the attention maps are computed from.")
    powers: list[PositiveFloat] = Field(
        [], description="Power that each tap's activations are raised to; 1, 2 and 4 in the paper."
    )

    @model_validator(mode="after")
    def _check_keys_of_kind(self) -> "Picture":
        if self.kind == "filters" and len(self.models) != 1:
            raise ValueError(f"models: expected one model for 'filters', got {len(self.models)}")
        if self.kind != "filters" and (not self.taps or len(self.taps) != len(self.powers)):
            raise ValueError("taps: expected at least one tap, and as many powers as taps")
        return self


class Finding(Section):
    """A finding of the paper, and the two cells of a table that are compared to check it.

    A cell is [row, column]. In a table with `x` the columns can also be called "first" and "last".
    """

    claim: str = Field(description="The finding in words.")
    table: int = Field(0, ge=0, description="Position of the table, from 0.")
    higher: list[str] = Field(
        min_length=2, max_length=2, description="Cell that has the higher value if the finding holds: [row, column]."
    )
    lower: list[str] = Field(
        min_length=2, max_length=2, description="Cell that has the lower value if the finding holds: [row, column]."
    )


class StudyRecipe(Recipe):
    """Makes several runs that belong together, and fills tables and figures with their results."""

    kind: Literal["study"] = Field(description="The kind of recipe.")
    paper: str = Field("", description="Table or figure of the paper that the study repeats; empty if it repeats none.")
    scale: str = Field("full", description="The scale, from `scales`, at which the runs are made.")
    set: dict[str, Any] = Field({}, description="Overrides of the recipes of all runs.")
    scales: dict[str, Scale] = Field(description="The scales at which the study can be made, by name.")
    run: list[StudyRun] = Field(min_length=1, description="The runs, in the order in which they are made.")
    table: list[StudyTable] = Field([], description="The tables of the report.")
    picture: list[Picture] = Field([], description="The figures of the report.")
    finding: list[Finding] = Field([], description="The findings of the paper that the report checks.")
