"""The files of `docker/` and `deploy/` pass the tools that know their formats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sglang_multiverse.engine.metrics import COUNTERS, GAUGES, HISTOGRAMS

from .tools import DASHBOARD, DOCKER, KUBERNETES, ROOT, passes, tool

PROMETHEUS = DOCKER / "prometheus"
# Of taste: we build and name an image, and order keys by meaning.
TASTE = (
    "no-build-and-image",
    "require-project-name-field",
    "require-quotes-in-ports",
    "service-keys-order",
    "services-alphabetical-order",
)
MANIFESTS = sorted(p for p in (KUBERNETES / "base").glob("*.yaml") if p.stem != "kustomization")
# The oldest and newest release of Kubernetes that the manifests are for.
VERSIONS = ("1.30", "1.37")


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_hadolint_accepts(name: str) -> None:
    passes(tool("hadolint"), DOCKER / name)


def test_the_compose_files_follow_the_specification() -> None:
    files = sorted(DOCKER.glob("compose*.yaml"))
    assert len(files) == 2
    passes(tool("dclint"), *files, "--max-warnings", "0", "--disable-rule", *TASTE)


def test_what_compose_mounts_is_there() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    mounted = [v.split(":")[0] for s in services.values() for v in s.get("volumes", [])]
    folders = [DOCKER / source for source in mounted if source.startswith(".")]
    assert folders and all(folder.is_dir() for folder in folders)
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DOCKER / "grafana" / Path(home).relative_to("/etc/grafana")) == DASHBOARD


def test_promtool_accepts_configuration_and_alerts() -> None:
    promtool = tool("promtool")
    passes(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    passes(promtool, "test", "rules", PROMETHEUS / "rules.test.yml")


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    fired = {
        case["alertname"]
        for test in tests["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert alerts and alerts == fired


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_manifests(version: str) -> None:
    said = passes(tool("kubernetes-validate"), "--strict", "-k", version, *MANIFESTS)
    assert said.count("passed") == len(MANIFESTS)


@pytest.mark.parametrize("overlay", ["base", "cpu"])
def test_kustomize_builds_valid_manifests(overlay: str, tmp_path: Path) -> None:
    built = tmp_path / "built.yaml"
    built.write_text(passes(tool("kubectl"), "kustomize", KUBERNETES / overlay))
    said = passes(tool("kubernetes-validate"), "--strict", "-k", VERSIONS[-1], built)
    assert said.count("passed") == len(MANIFESTS)
    (pod,) = (
        one["spec"]["template"]["spec"]
        for one in yaml.safe_load_all(built.read_text())
        if one["kind"] == "Deployment"
    )
    (container,) = pod["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "base")
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_selectors_name_the_pods() -> None:
    """An empty selector of a budget or a network policy would be every pod's."""
    named = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS}
    labels = named["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert named["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert named["disruption"]["spec"]["selector"]["matchLabels"] == labels
    assert named["network"]["spec"]["podSelector"]["matchLabels"] == labels
    assert named["service"]["spec"]["selector"] == labels


def test_probes_wait_longer_than_a_health_check_takes() -> None:
    """`/health_generate` answers after one second at the earliest, and after 20 at the latest."""
    deployment = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] == "/health_generate"
        assert container[probe]["timeoutSeconds"] > 20


def test_the_dashboard_is_of_grafanas_type(tmp_path: Path) -> None:
    """Grafana's own TypeScript schema; excess and misspelt fields are errors there."""
    schema = Path(tool("grafana-schema"))
    source = tmp_path / "dashboard.ts"
    source.write_text(
        f"import type {{ Dashboard }} from '{schema / 'dist' / 'types' / 'index'}';\n"
        f"export const dashboard: Dashboard = {DASHBOARD.read_text()};\n"
    )
    strict = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler".split()
    passes(tool("tsc"), *strict, source)


def test_panels_do_not_overlap() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_metric_of_ours_is_shown_and_documented() -> None:
    shown = set(re.findall(r"sglang:multiverse_(\w+)", DASHBOARD.read_text()))
    assert shown == (
        {f"{name}_total" for name in COUNTERS} | set(GAUGES) | {f"{n}_bucket" for n in HISTOGRAMS}
    )
    page = (ROOT / "docs" / "metrics.md").read_text()
    for name in [*COUNTERS, *GAUGES, *HISTOGRAMS]:
        assert f"`sglang:multiverse_{name}" in page
