"""What a study's recipe may say: its runs, at which scale, and the tables, pictures and findings they fill."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rotnet_keras.config.schema import Recipe
from rotnet_keras.config.sections import Control, PositiveFloat, Section


class StudyRun(Section):
    """One of a study's runs, made once with each seed."""

    name: str = Field(pattern=r"^\w[\w.+-]*$")
    recipe: str = Field(description="Which of the scale's recipes it takes.")
    of: str | None = Field(None, description="The run of this study whose backbone it goes on from.")
    like: str | None = Field(None, description="The run of this study whose backbone it has, with random weights.")
    set: dict[str, Any] = Field({}, description="What it changes of the recipe.")
    once: bool = Field(False, description="Do it with the first of the seeds alone.")

    @model_validator(mode="after")
    def _one_backbone(self) -> "StudyRun":
        if self.of and self.like:
            raise ValueError("expected of, to go on from a run's backbone, or like, to have it with random weights")
        return self


class Scale(Section):
    """How large the runs of a study are."""

    note: str = Field(min_length=1, description="In words, for the tables.")
    remark: str = Field("", description="Why claims of the paper do not hold at this scale, as far as that is known.")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([0], min_length=1)
    recipes: dict[str, str] = Field(description="Files or shipped recipes, by what the study's runs call them.")
    set: dict[str, dict[str, Any]] = Field({}, description="What runs change of their recipes, by the runs' names.")


class Entry(Section):
    """Cells of a table: what one run came to, as mean and standard deviation over the seeds."""

    row: str
    run: str | None = Field(None, description="None for what only the paper has, others' results for example.")
    column: str | None = Field(None, description="By default the taps there are, or what `by` says.")
    probe: int | None = Field(None, ge=0, description="Its position in the run's recipe; else the run's own accuracy.")
    tap: str | None = None
    weights: Literal["rotnet"] | Control = "rotnet"
    by: Literal["epoch", "class"] | None = Field(None, description="A column for each.")
    paper: dict[str, float] | float | None = Field(None, description="In percent; by column where there are several.")

    @model_validator(mode="after")
    def _something_is_shown(self) -> "Entry":
        if self.run is None and not isinstance(self.paper, dict):
            raise ValueError("expected a run, or the paper's numbers by column")
        return self


class StudyTable(Section):
    """Results side by side, as a table or, over a number, as curves."""

    title: str
    x: str | None = Field(None, description="What the columns count; draws them as curves.")
    log: bool = Field(False, description="Logarithmic x.")
    entry: list[Entry] = Field(min_length=1)


class Picture(Section):
    """A figure of what networks look at, on the first test images; of the study's first seed."""

    kind: Literal["attention", "turning", "filters"] = Field(
        description="Attention maps; how they turn with the image; kernels of the first layer, of one network."
    )
    title: str
    models: dict[str, str] = Field(min_length=1, description="Runs, by what the figure calls them.")
    taps: list[str] = Field([])
    powers: list[PositiveFloat] = Field([], description="Of the activations, one for each tap: 1, 2, 4 in the paper.")

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> "Picture":
        if self.kind == "filters" and len(self.models) != 1:
            raise ValueError("models: 'filters' shows one network")
        if self.kind != "filters" and (not self.taps or len(self.taps) != len(self.powers)):
            raise ValueError("taps: expected at least one, and as many powers")
        return self


class Finding(Section):
    """A claim of the paper, and the cells (row, column) that have to be in this order for it to hold.

    The columns of a table with an x are also called "first" and "last".
    """

    claim: str
    table: int = Field(0, ge=0)
    higher: list[str] = Field(min_length=2, max_length=2)
    lower: list[str] = Field(min_length=2, max_length=2)


class StudyRecipe(Recipe):
    """Runs that belong together, and the tables they fill."""

    kind: Literal["study"]
    paper: str = Field(description="Which table or figure of the paper it repeats.")
    scale: str = "full"
    set: dict[str, Any] = Field({}, description="What all runs change of their recipes.")
    scales: dict[str, Scale]
    run: list[StudyRun] = Field(min_length=1)
    table: list[StudyTable] = Field([])
    picture: list[Picture] = Field([])
    finding: list[Finding] = Field([])
