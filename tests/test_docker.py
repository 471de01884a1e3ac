"""What can be known of docker/ without an engine: its files parse, agree with one another, and give nothing away."""

import fnmatch
import json
import re
import shutil
import stat
import subprocess
import tomllib
from base64 import urlsafe_b64decode
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from alignment.errors import ConfigError
from flows.stack.bootstrap import _template
from flows.stack.deployments import read_deployments
from tasks.home import DEFAULTS, HEARTBEAT, TELEMETRY_OFF
from tests.kubernetes import faults
from tests.stack.docker import DOCKER, SECRETS, compose_services, image_environment, instructions, stages

ROOT = Path(__file__).parents[1]
COMPOSE = (DOCKER / "compose.yaml").read_text("utf-8")
EXAMPLE = (DOCKER / ".env.example").read_text("utf-8")
BASE = DOCKER / "kubernetes" / "base"
GPU = DOCKER / "kubernetes" / "gpu"
JOB: dict[str, Any] = json.loads((BASE / "job-template.json").read_text("utf-8"))
SERVICES = compose_services()
CLIENT = {"PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
OWN = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"bootstrap"}
STORE = {"name": "store", "optional": True}
"""The secret of a store in a bucket, which a cluster may lack."""


def texts() -> dict[str, str]:
    """Every file of docker/ but the secrets, by its path."""
    files = [path for path in sorted(DOCKER.rglob("*")) if path.is_file() and path.name != ".env"]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files}


# The image


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_as_nobody_in_particular_and_reports_its_health(target: str) -> None:
    found = dict(stages()[target])  # the last of each kind counts
    assert found["USER"] == "10001:10001"
    assert found["VOLUME"] == "/data"
    assert "HEALTH_URL" in found["HEALTHCHECK"]
    copied = [rest for word, rest in stages()[target] if word == "COPY"]
    assert copied == [f"--from={target}-builder /opt/venv /opt/venv", f"--from={target}-builder /app /app"]
    assert all(word != "USER" for word, _ in stages()[f"{target}-builder"]), "only the last stage runs"


def test_every_stage_starts_from_the_one_base_whose_tag_is_exact() -> None:
    argument = next(rest for word, rest in instructions() if word == "ARG")
    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-bookworm", argument)
    bases = {rest.partition(" AS ")[0] for word, rest in instructions() if word == "FROM"}
    assert bases == {"${BASE}", "builder", "runtime"}


def test_the_image_installs_the_tested_versions_and_only_those() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 5
    assert all("--constraint constraints.txt" in rest or "--no-deps" in rest for rest in installs)


def asked_of_uv(target: str, arguments: dict[str, str], folder: Path) -> list[list[str]]:
    """What a target's builder calls uv with, by running its shell with a uv that only writes down what it is given."""
    stub = folder / "uv"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$0.log"\n', "utf-8")
    stub.chmod(0o755)
    found = [(word, rest) for word, rest in stages()[f"{target}-builder"] if word in {"ARG", "RUN"}]
    values = dict(rest.partition("=")[::2] for word, rest in found if word == "ARG") | arguments
    for word, rest in found:
        if word == "RUN" and rest.find("uv pip install") >= 0 and "--editable" not in rest:
            subprocess.run(["sh", "-euc", rest], check=True, env=values | {"PATH": f"{folder}:/usr/bin:/bin"})
    return [line.split() for line in (folder / "uv.log").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("target", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("given", "extras"), [(None, ["remote"]), ("", []), ("remote gguf ray", ["remote", "gguf", "ray"])]
)
def test_further_extras_are_installed_where_the_build_asks_for_them(
    target: str, given: str | None, extras: list[str], tmp_path: Path
) -> None:
    (asked,) = asked_of_uv(target, {} if given is None else {"EXTRAS": given}, tmp_path)
    found = [name for before, name in pairwise(asked) if before == "--extra"]
    assert found == ["server", "judge", "kubernetes", *extras]
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert set(found) <= tomllib.loads(text)["project"]["optional-dependencies"].keys()


def test_the_context_holds_what_the_image_needs_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line[0] == "!"}
    found = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert found is not None
    packages = {name.rstrip("*") for name in found[1].split('"')[1::2]}
    assert kept == packages | {"constraints.txt", "pyproject.toml", "prefect.yaml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in kept)
    assert not any(fnmatch.fnmatch(name, pattern) for name in kept for pattern in ("tests*", "docker*", "*.env"))


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_sends_no_telemetry_and_has_the_defaults_of_the_code(target: str) -> None:
    """The servers in it do not import the project, so the image has to say it again."""
    found = image_environment(target)
    assert found.items() >= TELEMETRY_OFF.items()
    shared = found.keys() & DEFAULTS.keys()
    assert {name: found[name] for name in shared} == {name: DEFAULTS[name] for name in shared}


# Compose


def test_a_run_sends_the_heartbeats_that_the_bootstrap_waits_for() -> None:
    name = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
    assert SERVICES["worker-cpu"]["environment"][name] == str(HEARTBEAT)
    assert JOB["variables"]["properties"]["env"]["default"][name] == str(HEARTBEAT)


def test_compose_asks_for_exactly_the_variables_of_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    optional = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE))
    assert set(re.findall(r"(?m)^(\w+)=$", EXAMPLE)) == asked == set(SECRETS)
    assert set(re.findall(r"(?m)^# (\w+)=", EXAMPLE)) == set(optional)
    assert re.findall(r"(?m)^\w+=.+$", EXAMPLE) == [], "no default that works"


@pytest.mark.parametrize("name", SECRETS)
def test_compose_refuses_to_start_without_a_secret(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        compose_services({other: value for other, value in SECRETS.items() if other != name})


def test_every_secret_in_compose_is_one_that_must_be_given() -> None:
    secret = re.compile(r"PASSWORD|SECRET|AUTH_STRING|REDISCLI_AUTH|ENCRYPTION_KEY|DOCKET_URL")
    for name, service in yaml.safe_load(COMPOSE)["services"].items():
        for variable, value in service["environment"].items():
            if secret.search(variable):
                assert ":?" in value, f"{name}: {variable}"
        assert ":?" not in str(service.get("command", "")), "a command line is public"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_confined_and_rotates_its_log(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":\d+\.\d+(\.\d+)?-\w+$", service["image"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert name in OWN or service["user"] not in {"root", "0"}
    assert "/tmp" in service["tmpfs"]


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_a_service_reports_whether_it_is_healthy(name: str) -> None:
    service = SERVICES[name]
    if name not in OWN:
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        return
    port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/[\w/]+", service["environment"]["HEALTH_URL"])
    assert port is not None
    if "--port" in service["command"]:
        assert service["command"][service["command"].index("--port") + 1] == port[1]
    else:
        assert "--with-healthcheck" in service["command"]


def test_a_start_waits_for_what_can_be_waited_for() -> None:
    for name, service in SERVICES.items():
        for other, wanted in service.get("depends_on", {}).items():
            kind = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert wanted["condition"] == kind, f"{name} on {other}"
            assert "profiles" not in SERVICES[other], f"{name} on {other}: which a profile leaves out"


def test_only_loopback_is_published_and_the_databases_are_not() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"prefect", "mlflow"}
    assert all(port.startswith("127.0.0.1:") for listed in ports.values() for port in listed)
    networks = yaml.safe_load(COMPOSE)["networks"]
    assert networks["data"]["internal"] is True
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["data"]


def test_each_volume_and_file_that_is_mounted_exists() -> None:
    named = set(yaml.safe_load(COMPOSE)["volumes"])
    used = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert {name for name in used if not name.startswith("./")} == named
    assert all((DOCKER / name).exists() for name in used if name.startswith("./"))


def test_models_and_data_of_ones_own_are_read_only_where_runs_are_and_where_forms_are_checked() -> None:
    has = {name for name, service in SERVICES.items() if "./inputs:/inputs:ro" in service.get("volumes", [])}
    assert has == {"prefect", "worker-cpu", "worker-gpu"}
    moved = compose_services(SECRETS | {"INPUTS": "/srv/models"})
    assert "/srv/models:/inputs:ro" in moved["worker-gpu"]["volumes"]


def test_the_store_of_a_bucket_is_known_where_stages_are_read_or_written_and_its_file_need_not_be_there() -> None:
    has = {name: service["env_file"] for name, service in SERVICES.items() if "env_file" in service}
    assert has.keys() == {"receiver", "worker-cpu", "worker-gpu"}
    assert all(files == [{"path": "store.env", "required": False}] for files in has.values())
    assert "store.env" in (DOCKER / ".gitignore").read_text("utf-8").split(), "it has keys"


def test_the_bootstrap_alone_is_mlflow_s_administrator() -> None:
    """It makes the account that the others sign in with."""
    admin = "${MLFLOW_ADMIN_PASSWORD"
    given = yaml.safe_load(COMPOSE)["services"]
    has = {
        name
        for name, service in given.items()
        if any(str(v).startswith(admin) for v in service["environment"].values())
    }
    assert has == {"mlflow", "bootstrap"}
    made, used = SERVICES["bootstrap"]["environment"], SERVICES["worker-gpu"]["environment"]
    for ours, theirs in (("USER", "USERNAME"), ("PASSWORD", "PASSWORD")):
        assert made[f"PLUMBLINE_MLFLOW_{ours}"] == used[f"MLFLOW_TRACKING_{theirs}"]


def test_a_container_that_asks_for_no_gpu_sees_none() -> None:
    """Docker and the device plugin name the cards that were asked for; `all` in the image would show every one."""
    assert "NVIDIA_VISIBLE_DEVICES" not in image_environment("gpu")


def test_a_gpu_is_reserved_by_the_one_profile_only() -> None:
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "1", "capabilities": ["gpu"]}
    assert SERVICES["worker-gpu"]["build"]["target"] == "gpu"
    assert {SERVICES[name]["build"]["target"] for name in OWN - {"worker-gpu"}} == {"cpu"}
    assert {str(SERVICES[name]["build"]["args"]) for name in OWN} == {"{'EXTRAS': 'remote'}"}
    assert SERVICES["worker-gpu"]["environment"] == SERVICES["worker-cpu"]["environment"]


def test_compose_and_the_project_have_one_version() -> None:
    version = re.search(r'(?m)^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert version is not None
    found = {name: SERVICES[name]["image"].partition(":")[2].rpartition("-")[0] for name in OWN}
    assert set(found.values()) == {version[1]}


def test_the_secrets_are_made_once_each_its_own_for_the_owner_only(tmp_path: Path) -> None:
    for name in ("secrets.sh", ".env.example"):
        shutil.copy(DOCKER / name, tmp_path)
    subprocess.run(["sh", str(tmp_path / "secrets.sh")], check=True)
    made = tmp_path / ".env"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    values = dict(re.findall(r"(?m)^(\w+)=(.*)$", made.read_text("utf-8")))
    assert set(values) == set(SECRETS)
    assert len(set(values.values())) == len(values)
    assert all(len(urlsafe_b64decode(value)) == 32 for value in values.values())
    before = made.read_bytes()
    again = subprocess.run(["sh", str(tmp_path / "secrets.sh")], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "in use" in again.stderr
    assert made.read_bytes() == before


def test_the_file_with_the_secrets_is_kept_out_of_git() -> None:
    assert ".env" in (DOCKER / ".gitignore").read_text("utf-8").split()


@pytest.mark.parametrize("name", texts())
def test_no_file_names_a_registry_of_its_own_or_holds_a_key(name: str) -> None:
    text = texts()[name]
    assert (
        re.findall(r"index-url|--find-links|--trusted-host|//[\w.-]*(?:pypi|pythonhosted|registry)[\w.-]*", text) == []
    )
    assert re.findall(r"-----BEGIN|AKIA[0-9A-Z]{16}|gh[ps]_\w{20}", text) == []


# Kubernetes


def test_the_job_template_names_only_variables_that_it_has_and_uses_each() -> None:
    named = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(JOB["job_configuration"])))
    assert named == set(JOB["variables"]["properties"])


def test_the_job_templates_defaults_fit_their_own_schema() -> None:
    schema = JOB["variables"]
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = {name: field["default"] for name, field in schema["properties"].items()}
    jsonschema.validate(defaults, schema)
    assert all(field["description"] for field in schema["properties"].values())
    with pytest.raises(jsonschema.ValidationError, match="minimum"):
        jsonschema.validate(defaults | {"gpus": -1}, schema)


def job(deployment: str, defaults: Path | None = None) -> dict[str, Any]:
    """The job of a deployment's run, with its variables put in as Prefect does it."""
    from prefect.utilities.templating import apply_values

    template = _template(BASE / "job-template.json", defaults)
    assert template is not None
    values = {name: field["default"] for name, field in template["variables"]["properties"].items()}
    jsonschema.validate(values, template["variables"])
    (spec,) = (each for each in read_deployments(ROOT) if each["name"] == deployment)
    found = apply_values(
        template["job_configuration"]["job_manifest"], values | spec["work_pool"].get("job_variables", {})
    )
    assert isinstance(found, dict)
    return found


def gpus(deployment: str, defaults: Path | None = None) -> int:
    (container,) = job(deployment, defaults)["spec"]["template"]["spec"]["containers"]
    found: int = container["resources"]["limits"]["nvidia.com/gpu"]
    return found


@pytest.mark.parametrize("deployment", [each["name"] for each in read_deployments(ROOT)])
def test_what_trains_or_samples_asks_for_gpus_and_what_decides_or_loads_one_model_for_none(deployment: str) -> None:
    on_gpus = deployment in {"align", "retrain", "sweep", "frontier", "shards"}
    assert gpus(deployment, GPU / "job-defaults.yaml") == (1 if on_gpus else 0)
    assert gpus(deployment, BASE / "job-defaults.yaml") == 0, (
        "a cluster without GPUs never has a job that waits for one"
    )


def test_what_asks_for_no_gpu_goes_to_any_node() -> None:
    anywhere = {"promote": True, "rollback": True, "smoke": True, "shards-cpu": True, "align": False, "shards": False}
    for deployment, is_on_any in anywhere.items():
        pod = job(deployment, GPU / "job-defaults.yaml")["spec"]["template"]["spec"]
        assert (pod["nodeSelector"] == {}, pod["tolerations"] == []) == (is_on_any, is_on_any)


@pytest.mark.parametrize("defaults", [None, GPU / "job-defaults.yaml"])
def test_a_job_is_one_that_kubernetes_takes(defaults: Path | None) -> None:
    for deployment in ("align", "promote", "shards", "shards-cpu"):
        found = job(deployment, defaults)
        found["spec"]["template"]["spec"]["containers"][0]["env"] = []  # a list once Prefect's worker has it
        found["spec"]["template"]["spec"]["containers"][0]["args"] = []
        assert list(faults(found)) == []
        assert (found["spec"]["parallelism"], found["spec"]["completions"]) == (1, 1)


def test_a_value_of_no_variable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("gpu: 1", "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: gpu is no variable of job-template\.json"):
        _template(BASE / "job-template.json", tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("- gpus", "utf-8")
    with pytest.raises(ConfigError, match="give a value a variable"):
        _template(BASE / "job-template.json", tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match="give it with --job-template"):
        _template(None, tmp_path / "mine.yaml")


def test_a_job_is_confined_like_the_container() -> None:
    pod = JOB["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    secrets = [source["secretRef"] for source in container["envFrom"] if "secretRef" in source]
    assert secrets == [{"name": "{{ secret }}"}, STORE]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]}
    assert {path: volumes[name] for path, name in mounts.items()} == {
        "/data": {"persistentVolumeClaim"},
        "/inputs": {"persistentVolumeClaim"},
        "/tmp": {"emptyDir"},
        "/dev/shm": {"emptyDir"},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")] == ["/inputs"]
    (shared,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == mounts["/dev/shm"])
    assert shared["medium"] == "Memory"
    assert pod["restartPolicy"] == "Never"


def test_the_processes_of_a_training_share_as_much_memory_in_compose_as_in_a_job_on_gpus() -> None:
    defaults = yaml.safe_load((GPU / "job-defaults.yaml").read_text("utf-8"))
    assert defaults["shared_memory"] == "16Gi"
    assert SERVICES["worker-gpu"]["shm_size"] == "16gb", "Docker's gb is 2**30 bytes, too"


def test_a_job_runs_the_version_of_compose() -> None:
    assert JOB["variables"]["properties"]["image"]["default"] == SERVICES["worker-gpu"]["image"]


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def rendered(folder: Path) -> list[dict[str, Any]]:
    """What kubectl would apply."""
    made = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(made.stdout))


def of_a_job(folder: Path) -> dict[str, dict[str, str]]:
    """The maps that a job's environment is made of, by name; a cluster of another's making may lack them."""
    (container,) = job("promote")["spec"]["template"]["spec"]["containers"]
    named = [source["configMapRef"] for source in container["envFrom"] if "configMapRef" in source]
    assert all(each["optional"] for each in named)
    maps = {each["metadata"]["name"]: each["data"] for each in rendered(folder) if each["kind"] == "ConfigMap"}
    return {each["name"]: maps[each["name"]] for each in named}


def pods(folder: Path) -> dict[str, dict[str, Any]]:
    """The pods of the deployments and stateful sets, by name."""
    kinds = {"Deployment", "StatefulSet"}
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in rendered(folder) if each["kind"] in kinds
    }


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_each_manifest_is_one_that_kubernetes_takes(folder: Path) -> None:
    found = rendered(folder)
    assert [fault for manifest in found for fault in faults(manifest)] == []
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(names)) == len(names)
    assert {each["metadata"].get("namespace", "plumbline") for each in found} == {"plumbline"}


def test_a_misspelled_field_and_a_wrong_type_are_faults() -> None:
    """The check itself: the mistake that the job template once had, and two others."""
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    pod = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
    assert list(faults(job | {"spec": {"template": {"spec": pod}}})) == []
    assert list(faults(job | {"spec": {"template": {"spec": pod | {"parallelism": 1}}}})) == [
        "Job x.spec.template.spec: no field parallelism"
    ]
    assert list(faults(job | {"spec": {"template": {"spec": pod | {"tolerations": {}}}}})) == [
        "Job x.spec.template.spec.tolerations: dict, not list[V1Toleration]"
    ]
    assert list(faults(job | {"spec": {"template": {"spec": pod | {"containers": [{"image": "i"}]}}}})) == [
        "Job x.spec.template.spec.containers[0]: name is missing"
    ]


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_every_pod_is_confined_and_each_volume_secret_and_map_that_it_names_exists(folder: Path) -> None:
    maps = {each["metadata"]["name"]: set(each["data"]) for each in rendered(folder) if each["kind"] == "ConfigMap"}
    claims = {each["metadata"]["name"] for each in rendered(folder) if each["kind"] == "PersistentVolumeClaim"}
    accounts = {each["metadata"]["name"] for each in rendered(folder) if each["kind"] == "ServiceAccount"}
    secrets = {"plumbline-servers": set(SECRETS) | {"NOTIFY_URL"}, "plumbline": CLIENT}
    for name, pod in pods(folder).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.get("serviceAccountName") in {None, *accounts}
        assert pod.get("automountServiceAccountToken") is (None if "serviceAccountName" in pod else False)
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
            assert volume.get("configMap", {}).get("name") in {None, *maps}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} == set(container["resources"])
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted - volumes.keys() <= {name}, "but for a stateful set's own claim"
            for variable in container["env"]:
                source = variable.get("valueFrom", {})
                if secret := source.get("secretKeyRef"):
                    assert secret["key"] in secrets[secret["name"]]
                if found := source.get("configMapKeyRef"):
                    assert found["key"] in maps[found["name"]]
                assert (
                    not re.search("PASSWORD|SECRET$|KEY$", variable["name"])
                    or source
                    or "SECRET_KEY" in variable["name"]
                )
    for name in ("volume_claim", "inputs_claim"):
        assert JOB["variables"]["properties"][name]["default"] in claims
    assert JOB["variables"]["properties"]["secret"]["default"] in secrets


@needs_kubectl
@pytest.mark.parametrize("name", ["postgres", "redis", "prefect", "mlflow", "receiver", "bootstrap"])
def test_a_service_has_the_command_and_the_settings_that_it_has_in_compose(name: str) -> None:
    pod = pods(BASE)["worker" if name == "bootstrap" else name]
    (container,) = pod["initContainers"] if name == "bootstrap" else pod["containers"]
    there = SERVICES[name]
    if name in OWN:
        assert container["image"] == SERVICES["prefect"]["image"]
        assert container["command"][:2] == there["command"][:2]
        assert name == "bootstrap" or container["command"] == there["command"]
    else:
        assert container["image"] == there["image"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    from_secrets = CLIENT if container.get("envFrom") else set()
    assert set(there["environment"]) - {"HEALTH_URL"} <= values.keys() | from_secrets
    plain = {key: value for key, value in values.items() if value is not None and "$(" not in value}
    shared = plain.keys() & there["environment"].keys()
    assert {key: plain[key] for key in shared} == {key: there["environment"][key] for key in shared}


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_a_job_knows_the_addresses_that_people_open_as_a_worker_of_compose_does(folder: Path) -> None:
    assert set(of_a_job(folder)["links"]) == {"PREFECT_UI_URL", "PLUMBLINE_MLFLOW_URL"}
    assert set(of_a_job(folder)["links"]) <= set(SERVICES["worker-cpu"]["environment"])


@needs_kubectl
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_a_job_is_told_what_computes_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.runners import runner, shards_per_job

    for name, value in of_a_job(folder)["runs"].items():
        monkeypatch.setenv(name, value)
    assert (runner(), shards_per_job()) == ("threads", 8)


@needs_kubectl
def test_inputs_are_read_only_where_forms_are_checked_and_are_filled_from_the_receiver() -> None:
    found = {
        name: mount.get("readOnly", False)
        for name, pod in pods(BASE).items()
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["mountPath"] == "/inputs"
    }
    assert found == {"prefect": True, "receiver": False}


@needs_kubectl
def test_nothing_that_runs_a_job_can_read_the_administrators_password() -> None:
    for name, pod in pods(BASE).items():
        for container in pod["containers"]:
            named = {each.get("valueFrom", {}).get("secretKeyRef", {}).get("key") for each in container["env"]}
            assert ("MLFLOW_ADMIN_PASSWORD" in named) == (name == "mlflow")
    given = [each["secretRef"] for each in pods(BASE)["receiver"]["containers"][0]["envFrom"]]
    assert given == [{"name": "plumbline"}, STORE]


@needs_kubectl
def test_a_network_policy_selects_pods_that_exist_and_everybody_else_is_kept_out() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in rendered(BASE) if each["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    named = set(re.findall(r"'(postgres|redis|prefect|mlflow|receiver|worker)'", str(policies)))
    assert named <= set(pods(BASE))
    ports = {
        port["port"] for name in ("databases", "servers", "receiver") for port in policies[name]["ingress"][0]["ports"]
    }
    services = {port["port"] for each in rendered(BASE) if each["kind"] == "Service" for port in each["spec"]["ports"]}
    assert ports == services


@needs_kubectl
def test_the_secrets_of_kubernetes_are_those_of_compose(tmp_path: Path) -> None:
    (tmp_path / "kubernetes").mkdir()
    for name in ("secrets.sh", ".env.example", "kubernetes/secrets.sh"):
        shutil.copy(DOCKER / name, tmp_path / name)
    subprocess.run(["sh", str(tmp_path / "secrets.sh")], check=True)
    made = subprocess.run(
        ["sh", str(tmp_path / "kubernetes" / "secrets.sh")], check=True, capture_output=True, text=True
    )
    found = {each["metadata"]["name"]: each["data"] for each in yaml.safe_load_all(made.stdout)}
    assert set(found) == {"plumbline-servers", "plumbline"}
    assert set(found["plumbline-servers"]) == set(SECRETS)
    assert set(found["plumbline"]) == CLIENT
    assert found["plumbline"]["MLFLOW_TRACKING_PASSWORD"] == found["plumbline-servers"]["MLFLOW_WORKER_PASSWORD"]
