"""The manifests: valid, complete, of one mind with our processes, and no more open than they must be."""

import json
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from deployment import INFRA, documents, known_variables, parsed
from penstock.core.settings import Settings
from penstock.core.telemetry import INSTRUMENTS
from penstock.projections.scaling import Scaling

BASE = INFRA / "kubernetes/base"
FOLDERS = ("base", "keda", "hpa")
FILES = sorted((INFRA / "kubernetes").rglob("*.yaml"))
VERSION = kubernetes_validate.latest_version()


def laid_over(below: Any, above: Any) -> Any:
    """A strategic merge as far as ours needs it: maps by key, lists of things by their name."""
    if isinstance(below, dict) and isinstance(above, dict):
        merged = {key: laid_over(below[key], it) if key in below else it for key, it in above.items()}
        return {**below, **merged}
    if isinstance(below, list) and above and isinstance(above[0], dict) and "name" in above[0]:
        names = {it["name"]: it for it in below}
        new = [it for it in above if it["name"] not in names]
        more = {it["name"]: it for it in above}
        return [laid_over(it, more[it["name"]]) if it["name"] in more else it for it in below] + new
    return above


def resources(folder: str = "base") -> list[dict[str, Any]]:
    """What the files of a kustomization say, without its patches."""
    listed = documents(INFRA / "kubernetes" / folder / "kustomization.yaml")[0]["resources"]
    return [
        it for file in listed if file != "../base" for it in documents(INFRA / "kubernetes" / folder / file)
    ]


POD: dict[str, Any] = documents(BASE / "pods.yaml")[0]["spec"]
DEPLOYMENTS = {
    it["metadata"]["name"]: laid_over(it["spec"], POD) for it in resources() if it["kind"] == "Deployment"
}


@pytest.mark.parametrize("file", FILES, ids=lambda it: f"{it.parent.name}/{it.name}")
def test_each_document_is_valid_to_the_letter(file: Any) -> None:
    for document in documents(file):
        group = document["apiVersion"].partition("/")[0]
        if group not in {"kustomize.config.k8s.io", "keda.sh"} and file.name != "pods.yaml":
            kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_as_it_is_applied_is_valid_too(name: str) -> None:
    whole = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}}
    kubernetes_validate.validate({**whole, "spec": DEPLOYMENTS[name]}, VERSION, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_applied(folder: str) -> None:
    said = documents(INFRA / "kubernetes" / folder / "kustomization.yaml")[0]
    patches = {it["path"] for it in said["patches"] if "path" in it}
    files = {it.name for it in (INFRA / "kubernetes" / folder).iterdir()} - {"kustomization.yaml"}
    assert {*said["resources"], *patches} - {"../base"} == files


def test_every_role_is_there() -> None:
    roles = {name: parsed(_container(name)["args"]) for name in DEPLOYMENTS}
    assert sorted({role for role, _ in roles.values()}) == [
        *("api", "archiver", "dashboard", "flows", "projector", "scheduler", "webhooks", "worker"),
    ]
    served = ",".join(options["queues"] for role, options in roles.values() if role == "worker")
    assert sorted(served.split(",")) == ["ai", "email", "image", "penstock"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_may_do_no_more_than_it_must(name: str) -> None:
    pod, container = DEPLOYMENTS[name]["template"]["spec"], _container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["resources"]["limits"]["memory"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        assert probe not in container or container[probe]["httpGet"]["port"] in ports
    assert "livenessProbe" in container


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_the_time_to_end_in_order(name: str) -> None:
    stop = _container(name).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
    grace = float(_settings()["PENSTOCK_GRACE"])
    assert DEPLOYMENTS[name]["template"]["spec"]["terminationGracePeriodSeconds"] >= grace + 10 + float(
        stop[1]
    )


def test_every_variable_is_one_that_we_read() -> None:
    told = {it["name"] for name in DEPLOYMENTS for it in _container(name).get("env", [])}
    told |= set(_settings())
    assert {it for it in told if it.startswith("PENSTOCK_")} <= known_variables()


def test_ports_are_the_defaults() -> None:
    def port(name: str, purpose: str) -> int:
        [found] = [it["containerPort"] for it in _container(name)["ports"] if it["name"] == purpose]
        assert isinstance(found, int)
        return found

    plain = Settings()
    assert port("api", "http") == plain.api_port
    assert port("dashboard", "http") == plain.dashboard_port
    assert {port(name, "metrics") for name in DEPLOYMENTS} == {int(_settings()["PENSTOCK_METRICS_PORT"])}
    services = {it["metadata"]["name"]: it["spec"] for it in resources() if it["kind"] == "Service"}
    assert (
        parsed(_container("dashboard")["args"])[1]["url"]
        == f"http://api:{services['api']['ports'][0]['port']}"
    )


def test_selectors_find_their_pods() -> None:
    labels = {name: it["template"]["metadata"]["labels"] for name, it in DEPLOYMENTS.items()}
    for name, deployment in DEPLOYMENTS.items():
        assert deployment["selector"]["matchLabels"] == labels[name]
    for it in resources():
        if it["kind"] == "Service":
            assert it["spec"]["selector"] == labels[it["metadata"]["name"]]
        if it["kind"] == "PodDisruptionBudget":
            assert it["spec"]["selector"]["matchLabels"] == labels[it["metadata"]["name"]]
    budgets = {it["metadata"]["name"] for it in resources() if it["kind"] == "PodDisruptionBudget"}
    assert budgets == {name for name, it in DEPLOYMENTS.items() if it["replicas"] > 1}


@pytest.mark.parametrize("folder", ["keda", "hpa"])
def test_scalers_scale_workers_by_metrics_that_exist(folder: str) -> None:
    known = {it.prometheus for it in INSTRUMENTS}
    found = [it for it in resources(folder) if "scaleTargetRef" in it["spec"]]
    assert found
    for it in found:
        assert it["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
        assert set(re.findall(r"penstock_\w+", json.dumps(it))) <= known
    [patch] = documents(INFRA / "kubernetes" / folder / "kustomization.yaml")[0]["patches"]
    scaled = {it["spec"]["scaleTargetRef"]["name"] for it in found}
    assert {name for name in DEPLOYMENTS if re.fullmatch(patch["target"]["name"], name)} == scaled


def test_a_scaler_looks_at_the_queues_that_its_workers_serve() -> None:
    for it in resources("keda"):
        for trigger in it["spec"].get("triggers", []):
            told = trigger["metadata"]
            asked = re.findall(r'queue=~?"([^"]+)"', told["query"]) if "query" in told else _of_api(told)
            served = parsed(_container(it["spec"]["scaleTargetRef"]["name"])["args"])[1]["queues"]
            assert [name.replace("|", ",") for name in asked] == [served]


def _of_api(told: dict[str, str]) -> list[str]:
    """The queue that a scaler asks the API about, at an address and for a field that exist."""
    assert told["valueLocation"] in Scaling.__struct_fields__
    asked = re.fullmatch(r"http://api\.penstock\.svc:3001/queues/(\w+)/scaling", told["url"])
    return [asked[1]] if asked else []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_makes_of_it_what_is_tested_here(folder: str) -> None:
    command = ["kubectl", "kustomize", str(INFRA / "kubernetes" / folder)]
    made = list(yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True).stdout))
    pods = {it["metadata"]["name"]: it["spec"] for it in made if it["kind"] == "Deployment"}
    assert pods.keys() == DEPLOYMENTS.keys()
    for name, spec in pods.items():
        container, ours = spec["template"]["spec"]["containers"][0], _container(name)
        assert container.pop("image") == "penstock:latest"
        ports = container.pop("ports")
        assert sorted(ports, key=str) == sorted(ours["ports"], key=str)
        assert container == {key: it for key, it in ours.items() if key not in {"image", "ports"}}
        assert spec["template"]["spec"]["securityContext"] == POD["template"]["spec"]["securityContext"]
    assert {it["metadata"].get("namespace", "penstock") for it in made} == {"penstock"}


def _container(name: str) -> dict[str, Any]:
    [found] = DEPLOYMENTS[name]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def _settings() -> dict[str, str]:
    [found] = [it["data"] for it in resources() if it["kind"] == "ConfigMap"]
    return {str(name): value for name, value in found.items()}
