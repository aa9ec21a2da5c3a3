"""How the report writes numbers."""


def figure(value: float | None) -> str:
    """A number in three digits; "-" for None."""
    if value is None:
        return "-"
    if 1e3 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def percent(part: int | float, whole: int | float) -> str:
    """A share of a whole."""
    return f"{100 * part / whole:.3g} %" if whole else "-"
