"""How a drill went."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Of one kind of try.

    Attributes:
        what: was tried.
        lost: a word for each try that something was lost in.
        note: what else there is to say.
    """

    what: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    note: str = ""
