# SPDX-License-Identifier: MIT
"""The alerts and the dashboard in the documentation name what a server really shows."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.server.process import Site
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "docs/observability"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yml").read_text())
ALERTS: list[dict[str, Any]] = [
    rule for group in RULES["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PAGE = (REPOSITORY / "docs/reference/metrics.md").read_text()
OF_PROMETHEUS = {"up": set[str]()}
"""What Prometheus says of a server that it scrapes, and no server itself."""

OCCASIONAL = {"ferrohsm_vault_violations_total"}
"""What is shown once it has happened, and not before."""

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}


def _labels() -> dict[str, set[str]]:
    """Return the labels of each metric, as the reference has them."""
    row = re.compile(r"^\| `(ferrohsm_\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
    rows = row.findall(PAGE)
    found = {name: set(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}
    for name, kind, _ in rows:
        if kind == "histogram":
            for suffix in _SUFFIXES[kind]:
                found[name + suffix] = found[name] | {"le"}
    return found


LABELS = _labels() | OF_PROMETHEUS


class _Selectors:
    """Collects what an expression reads."""

    def __init__(self, expression: str) -> None:
        self.found: list[Any] = []
        self._walk(promql.parse(expression))

    def _walk(self, node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            self.found.append(node)
        for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
            inner = getattr(node, name, None)
            for each in inner if isinstance(inner, list) else [inner]:
                if each is not None and not isinstance(each, str | int | float):
                    self._walk(each)


def _expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield f"{panel['title']} {target['refId']}", expression


EXPRESSIONS = dict(_expressions())


def _names(expression: str) -> set[str]:
    return {selector.name for selector in _Selectors(expression).found}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Give the names of everything that a server with a trail on disk shows."""
    site = Site(tmp_path_factory.mktemp("observed"))
    with site.serve("--rate-limit-per-second", "1000") as server:
        server.send("POST", "/api/v1/keys", {"algorithm": "Ed25519", "name": "key"})
        server.send("GET", "/api/v1/keys/nothing")
        text = server.send("GET", "/metrics").body.decode()
    return {
        family.name + suffix
        for family in text_string_to_metric_families(text)
        for suffix in _SUFFIXES[family.type]
    }


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_every_metric_is_shown(shown: set[str], name: str) -> None:
    """What an expression reads is there in the exposition of a running server."""
    names = _names(EXPRESSIONS[name])

    assert names
    assert names - set(OF_PROMETHEUS) - OCCASIONAL <= shown


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_every_label_is_documented(name: str) -> None:
    """A matcher on a label that a metric doesn't have would match nothing, or all."""
    for selector in _Selectors(EXPRESSIONS[name]).found:
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= LABELS[selector.name] | {"instance", "job"}


def test_everything_shown_is_documented(shown: set[str]) -> None:
    """The reference has each metric of a running server."""
    assert {name for name in shown if name.startswith("ferrohsm_")} <= set(LABELS)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong(rule: dict[str, Any]) -> None:
    """It has a severity, a sentence with the server, and what to do."""
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert re.fullmatch(r"FerroHSM[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"[1-9][0-9]*[mhd]", rule.get("for", "1m"))
    assert {"severity"} == set(rule["labels"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description"} == set(rule["annotations"])
    for sentence in rule["annotations"].values():
        assert sentence.endswith(".")
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert "instance" in shown
    for name in _names(rule["expr"]):
        assert shown <= LABELS[name] | {"instance", "job"}


def test_alerts_cover_what_impairs_an_hsm() -> None:
    """Whatever makes the state another than operational wakes somebody."""
    read = set().union(*(_names(rule["expr"]) for rule in ALERTS))

    # Two of one name would be one to whoever is woken.
    assert len(ALERTS) == len({rule["alert"] for rule in ALERTS})
    assert {
        "ferrohsm_audit_available",
        "ferrohsm_audit_state",
        "ferrohsm_store_available",
        "ferrohsm_locked",
        "ferrohsm_tampered_keys",
        "ferrohsm_policy_current",
        "ferrohsm_approvals_available",
        "ferrohsm_approvals_tampered",
        "ferrohsm_destructions_held",
        "ferrohsm_self_test_stopped",
        "ferrohsm_retention_healthy",
        "ferrohsm_tls_certificate_not_after_seconds",
    } <= read


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_is_whole(panel: dict[str, Any]) -> None:
    """It explains itself, and asks the chosen source about the chosen server."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert "${datasource}" == panel["datasource"]["uid"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert panel["datasource"] == target["datasource"]
        for selector in _Selectors(
            target["expr"].replace("$__rate_interval", "5m")
        ).found:
            matchers = {m.name: m.value for m in selector.matchers.matchers}
            assert "$instance" == matchers["instance"]


def _is_before(one: dict[str, int], other: dict[str, int]) -> bool:
    is_beside = one["x"] + one["w"] <= other["x"]
    return is_beside or one["y"] + one["h"] <= other["y"]


def test_panels_have_room() -> None:
    """None lies upon another, and their numbers differ."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        assert _is_before(one, other) or _is_before(other, one)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_the_dashboard_can_be_imported() -> None:
    """It has no id of somebody's Grafana, and its variables are those it uses."""
    variables = {row["name"] for row in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))

    assert "id" not in DASHBOARD
    assert variables == used - {"__rate_interval"}
    assert 39 == DASHBOARD["schemaVersion"]
