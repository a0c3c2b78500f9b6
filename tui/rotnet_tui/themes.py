"""Themes whose colours differ for every kind of colour vision."""

from textual.theme import Theme

# Any two differ by more than 20 in CIELAB, also after a simulation of protanopia, deuteranopia and tritanopia, and each
# has a contrast of 4.5 to 1 on the background. Strokes, signs and words say the same as colours.
DARK = {
    **{"primary": "#9977FF", "warning": "#FF9F07", "success": "#098C83"},
    **{"error": "#DB5235", "accent": "#FEC3F3", "secondary": "#D3FFA6"},
}
LIGHT = {
    **{"primary": "#033CA7", "warning": "#553309", "success": "#12804B"},
    **{"error": "#BB4D01", "accent": "#903C86", "secondary": "#4A4A4A"},
}


def _theme(name: str, colors: dict[str, str], background: str, foreground: str, dark: bool) -> Theme:
    variables = {f"text-{role}": color for role, color in colors.items()}
    return Theme(
        name=name,
        **colors,  # type: ignore[arg-type]
        background=background,
        surface=background,
        foreground=foreground,
        dark=dark,
        variables=variables,
    )


THEMES = (
    _theme("colour-blind-dark", DARK, "#121212", "#E6E6E6", True),
    _theme("colour-blind-light", LIGHT, "#F4F4F4", "#1A1A1A", False),
)
