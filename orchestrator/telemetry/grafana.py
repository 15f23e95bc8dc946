"""The boards as Grafana's JSON, by its own typed builders; every version from 9 on takes it.

Needs the extra `grafana`.
"""

import json
from collections.abc import Mapping

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as model_common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as model_prometheus

from orchestrator.telemetry.boards import BOARDS, Board, Panel, Shape
from orchestrator.telemetry.promql import reads

FOLDER_UID, FOLDER_TITLE = "r1-serve", "R1"
_DATASOURCE = "datasource"  # the dashboard's variable
_HEIGHT, _WIDTH = 8, 12  # of a panel, in Grafana's grid of 24
_DATA = model.DataSourceRef(type_val="prometheus", uid=f"${{{_DATASOURCE}}}")
_AnyBuilder = timeseries.Panel | stat.Panel | table.Panel


def dashboards() -> Mapping[str, str]:
    """Each board's JSON, by its uid; the same boards give the same text."""
    return {board.uid: _text(board) for board in BOARDS}


def _text(board: Board) -> str:
    made = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.help)
        .tags(["r1-serve"])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(builders.DatasourceVariable(_DATASOURCE).type("prometheus"))
        .link(
            builders.DashboardLink("Boards")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["r1-serve"])
            .as_dropdown(True)
        )
    )
    for number, panel in enumerate(board.panels, start=1):
        made = made.with_panel(_panel(panel).id(number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _panel(panel: Panel) -> _AnyBuilder:
    made: _AnyBuilder
    match panel.shape:
        case Shape.SERIES:
            made = _series(panel)
        case Shape.NOW:
            made = stat.Panel()
        case Shape.TABLE:
            made = table.Panel()
    made = made.title(panel.title).description(panel.help).datasource(_DATA)
    made = made.unit(panel.show.value).no_value(f"No data. {panel.absent}")
    made = made.height(_HEIGHT).span(2 * _WIDTH if panel.wide else _WIDTH)
    for at, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.promql).legend_format(query.legend)
        target = target.ref_id(chr(ord("A") + at)).datasource(_DATA)
        if panel.shape is Shape.TABLE:
            target = target.format(model_prometheus.PromQueryFormat.TABLE)
        made = made.with_target(target.range() if panel.shape is Shape.SERIES else target.instant())
    return made


def _series(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().min(0).line_width(1).show_points(model_common.VisibilityMode.NEVER)
    legend = common.VizLegendOptions().show_legend(True)
    legend = legend.display_mode(model_common.LegendDisplayMode.LIST)
    made = made.legend(legend.placement(model_common.LegendPlacement.BOTTOM))
    if panel.stacked:
        stacking = common.StackingConfig().mode(model_common.StackingMode.NORMAL)
        made = made.stacking(stacking).fill_opacity(25)
    return made


def series_of(text: str) -> frozenset[str]:
    """The names of all series that a dashboard's JSON asks for."""
    found: set[str] = set()
    for panel in json.loads(text)["panels"]:
        for target in panel["targets"]:
            found |= reads(target["expr"]).series
    return frozenset(found)
