"""The stack of compose.yaml says what our processes understand, and nothing in it is more open than it
must be. No container runs here: this is what can be told by reading."""

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest

from deployment import INFRA, documents, known_variables, parsed
from penstock.core.settings import Settings
from penstock.ui.up import metrics_ports

HOUSE = INFRA.parent
COMPOSE: dict[str, Any] = documents(INFRA / "compose.yaml")[0]
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: it for name, it in SERVICES.items() if it["image"].startswith("penstock")}
DOCKERFILE = (INFRA / "Dockerfile").read_text()


def test_every_role_is_there() -> None:
    roles = {name: parsed(service["command"])[0] for name, service in OURS.items()}
    assert sorted(roles.values()) == [
        *("api", "archiver", "dashboard", "flows", "projector", "scheduler", "webhooks"),
        *("worker", "worker", "worker"),
    ]
    others = {"secrets", "valkey", "mail", "prometheus", "grafana"}
    assert set(SERVICES) - set(OURS) == others


def test_each_queue_of_ours_has_a_worker() -> None:
    served = [
        queue
        for service in OURS.values()
        if service["command"][0] == "worker"
        for queue in parsed(service["command"])[1]["queues"].split(",")
    ]
    assert sorted(served) == ["ai", "email", "image", "penstock"]


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_we_read(name: str) -> None:
    ours = {it for it in OURS[name]["environment"] if it.startswith("PENSTOCK_")}
    assert ours <= known_variables()


def test_ports_are_the_defaults() -> None:
    plain = Settings()
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:{plain.api_port}:{plain.api_port}"]
    assert OURS["api"]["environment"]["PENSTOCK_API_PORT"] == plain.api_port
    assert SERVICES["dashboard"]["ports"] == [f"127.0.0.1:{plain.dashboard_port}:{plain.dashboard_port}"]
    assert OURS["dashboard"]["environment"]["PENSTOCK_API_URL"] == f"http://api:{plain.api_port}"
    assert SERVICES["grafana"]["ports"] == ["127.0.0.1:3002:3000"]
    assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]


def test_prometheus_scrapes_each_process_at_its_port() -> None:
    [ours] = [
        job
        for job in documents(INFRA / "prometheus/prometheus.yml")[0]["scrape_configs"]
        if job["job_name"] == "penstock"
    ]
    told = {(it["labels"]["process"], target) for it in ours["static_configs"] for target in it["targets"]}
    for found in ours["dns_sd_configs"]:
        told |= {(name, f"{name}:{found['port']}") for name in found["names"]}
    relabelled = {(it["regex"], it["replacement"]) for it in ours["relabel_configs"]}
    assert relabelled == {(name, name) for name, service in OURS.items() if "profiles" in service}
    assert told == {
        (name, f"{name}:{service['environment']['PENSTOCK_METRICS_PORT']}") for name, service in OURS.items()
    }
    usual = metrics_ports(Settings(archive_url="/data/archive"))
    assert told == {(name, f"{name}:{usual[name]}") for name in OURS}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert name == "secrets" or (service["healthcheck"]["test"] and service["restart"] == "unless-stopped")
    image, _, tag = service["image"].partition(":")
    assert image == "penstock" or re.search(r"\d+\.\d+\.\d+", tag), "pinned"
    assert not service.get("privileged")
    if name != "secrets":
        assert service.get("user") != "0:0"


@pytest.mark.parametrize("name", OURS)
def test_a_process_has_the_time_to_end_in_order(name: str) -> None:
    grace = float(OURS[name]["environment"].get("PENSTOCK_GRACE", Settings().grace))
    assert float(OURS[name]["stop_grace_period"].removesuffix("s")) >= grace + 10


def test_who_is_waited_for_can_say_that_he_is_ready() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            other = SERVICES[name]
            if wanted["condition"] == "service_healthy":
                assert other["healthcheck"]
            else:
                assert (wanted["condition"], other["restart"]) == ("service_completed_successfully", "no")


def test_only_who_needs_it_reaches_the_store() -> None:
    assert COMPOSE["networks"]["store"] == {"internal": True}
    reach = {name for name, it in SERVICES.items() if "store" in it.get("networks", [])}
    assert reach == set(OURS) - {"dashboard"} | {"valkey"}
    assert SERVICES["valkey"]["networks"] == ["store"]


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (INFRA / source).exists(), source
                assert mode == ["ro"]
            else:
                assert source in COMPOSE["volumes"]
            assert target.startswith("/")


def test_no_secret_stands_in_a_file() -> None:
    made = re.findall(
        r'^keep "\$(folder|grafana)/(\w+[.\w]*)"', (INFRA / "secrets.sh").read_text(), re.MULTILINE
    )
    files = {f"/run/secrets/{name}" for _, name in made}
    for service in SERVICES.values():
        environ = service.get("environment", {})
        named = {value for name, value in environ.items() if name.endswith("_FILE")}
        assert named <= files
        secret = [it for it in environ if re.search("PASSWORD|KEYS?|SECRET|TOKEN", it)]
        assert all(it.endswith("_FILE") for it in secret)
    assert "include /run/secrets/valkey.conf" in (INFRA / "valkey/valkey.conf").read_text()


def test_an_engine_s_own_parser_takes_the_file() -> None:
    """Where there is one: `docker compose`, or its predecessor, which does not know `name`."""
    file = INFRA / "compose.yaml"
    if _runs("docker", "compose", "version").returncode == 0:
        asked = _runs("docker", "compose", "-f", str(file), "config", "--quiet")
    elif _runs("docker-compose", "version").returncode == 0:
        nameless = re.sub(r"^name: .*\n", "", file.read_text(), flags=re.MULTILINE)
        words = ("--project-directory", str(INFRA), "-f", "-", "config", "--quiet")
        asked = _runs("docker-compose", *words, given=nameless)
    else:
        pytest.skip("no docker compose here")
    assert (asked.returncode, asked.stderr) == (0, "")


def test_the_image_is_made_of_what_is_sent_to_be_built() -> None:
    ignore = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore
    sent = {line[1:] for line in ignore if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (HOUSE / source).exists(), source
        assert any(source == it or source.startswith(f"{it}/") for it in sent), source


def test_the_image_runs_as_nobody_of_importance() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert 'ENTRYPOINT ["penstock"]' in last
    assert "pip" not in last
    assert set(re.findall(r"(PENSTOCK_\w+)=", last)) <= known_variables()
    bases = re.findall(r"^ARG \w+=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert all(re.match(r"\d+\.\d+\.\d+-", base) for base in bases), bases
    assert len(bases) == 2


def test_the_tools_that_build_come_by_the_hashes_of_the_lock() -> None:
    [program] = re.findall(r"awk '([^']+)' requirements\.lock", DOCKERFILE)
    lines = _runs("awk", program, str(HOUSE / "requirements.lock")).stdout.splitlines()
    assert [re.split("==", line)[0] for line in lines if "==" in line] == ["setuptools", "uv"]
    assert sum("--hash=sha256:" in line for line in lines) >= 3
    assert not any(line.lstrip().startswith("#") for line in lines)


def test_the_extras_of_the_image_exist() -> None:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    wanted = set(re.findall(r"--extra (\w+)", DOCKERFILE))
    assert wanted <= set(project["optional-dependencies"])


def _runs(program: str, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program; exit code 127 where it is not there."""
    found = shutil.which(program)
    if found is None:
        return subprocess.CompletedProcess(program, 127, "", "not found")
    return subprocess.run([found, *words], check=False, input=given, capture_output=True, text=True)
