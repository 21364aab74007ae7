"""How all panels look: one unit a panel, the same colour for the same thing everywhere, and words that
say what one sees and what would be wrong.

Heights are rows of 30 pixels, widths are of 24 columns; the panels of a line fill it.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as commons
from grafana_foundation_sdk.models import dashboard as models

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG: Final = "penstock"

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    *("#73BF69", "#FADE2A", "#FF9830", "#F2495C", "#5794F2", "#B877D9", "#8E8E8E"),
)
# The quick, the slow and the slowest of the same: light to dark.
QUANTILES: Final = ((0.5, "#8AB8FF"), (0.95, "#3274D9"), (0.99, "#E02F44"))

SECONDS, BYTES, SHARE, COUNT, PER_SECOND = "s", "bytes", "percentunit", "short", "ops"


class Series(NamedTuple):
    """One query of a chart: its legend, and a colour where the thing has one."""

    query: str
    legend: str
    colour: str = ""


Steps = Sequence[tuple[float | None, str]]  # from which value on which colour; the first from None
GOOD: Final[Steps] = ((None, GREEN),)
PLAIN: Final[Steps] = ((None, BLUE),)
BAD_ABOVE_0: Final[Steps] = ((None, GREEN), (1e-9, RED))
BAD_AT_0: Final[Steps] = ((None, RED), (1, GREEN))


def chart(
    title: str, description: str, unit: str, *series: Series, width: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time, with a table of their last and highest values."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .height(8)
        .span(width)
        .line_width(1)
        .fill_opacity(35 if stacked else 8)
        .show_points(commons.VisibilityMode.NEVER)
        .span_nulls(False)
        .tooltip(
            common.VizTooltipOptions()
            .mode(commons.TooltipDisplayMode.MULTI)
            .sort(commons.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(commons.LegendDisplayMode.TABLE)
            .placement(commons.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(commons.StackingMode.NORMAL))
    for number, (query, legend, colour) in enumerate(series):
        panel.with_target(_target(query, number).legend_format(legend))
        if colour:
            panel.override_by_name(legend, [_colour(colour)])
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    query: str,
    steps: Steps = PLAIN,
    *,
    width: int = 4,
    none: str = "none",
    words: dict[str, str] | None = None,
) -> stat.Panel:
    """One number as it is now, coloured by what it means, over its course; `none`: what is shown where
    there is nothing to show."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .height(4)
        .span(width)
        .no_value(none)
        .color_mode(commons.BigValueColorMode.VALUE)
        .graph_mode(commons.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(models.ThresholdsMode.ABSOLUTE)
            .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
        )
        .with_target(_target(query, 0))
    )
    if words:
        options = {value: models.ValueMappingResult(text=text) for value, text in words.items()}
        panel.mappings([models.ValueMap(options=options)])
    return panel


def row(title: str) -> dashboard.Row:
    """A heading over what follows."""
    return dashboard.Row(title)


def page(uid: str, title: str, description: str, *parts: Any, choose: Sequence[tuple[str, str]] = ()) -> Any:
    """A dashboard of rows and panels, with links to its siblings; `choose`: variables and their queries."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .refresh("10s")
        .time("now-1h", "now")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Penstock")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Source").type("prometheus"))
    )
    for name, query in choose:
        made.with_variable(_variable(name, query))
    for part in parts:
        if isinstance(part, dashboard.Row):
            made.with_row(part)
        else:
            made.with_panel(part)
    built = made.build()
    for number, panel in enumerate(built.panels or (), start=1):
        panel.id_val = number  # links to a panel name it
    return built


def _variable(name: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(name.title())
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _target(query: str, number: int) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query).ref_id(chr(ord("A") + number)).range()


def _colour(colour: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
