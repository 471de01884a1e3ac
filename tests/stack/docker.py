"""What docker/ says, read as Docker and Compose read it, and what its services need where they are processes here."""

import re
import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from flows.stack.processes import LOOPBACK, MARK
from tests.stack.processes import quiet_ports

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
PORTS = {"postgres": 5432, "redis": 6379, "prefect": 4200, "mlflow": 5000, "receiver": 5055, "worker-cpu": 8080}
SECRETS = {
    name: secrets.token_urlsafe(24)
    for name in (
        *("POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "REDIS_PASSWORD", "PREFECT_PASSWORD"),
        *("MLFLOW_ADMIN_PASSWORD", "MLFLOW_WORKER_PASSWORD", "MLFLOW_SESSION_KEY", "WEBHOOK_SECRET"),
    )
} | {"MLFLOW_WEBHOOK_KEY": secrets.token_urlsafe(32) + "="}

Service = dict[str, Any]
Env = dict[str, str]


def compose_services(values: Mapping[str, str] = SECRETS) -> dict[str, Service]:
    """The services of compose.yaml with `values` put in; raises KeyError where a secret has none."""
    whole = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    found: dict[str, Service] = _filled(whole["services"], values)
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, each with its whole argument."""
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in joined.splitlines())
        if word
    ]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, those of the stages that it starts from included."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, []))
        elif name:
            found[name].append((word, rest))
    return found


def image_environment(target: str) -> Env:
    """What the image of a target sets."""
    pairs = (pair for word, rest in stages()[target] if word == "ENV" for pair in shlex.split(rest))
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@dataclass(frozen=True)
class Site:
    """The services of compose.yaml on this machine: a folder for what is mounted, and a port of loopback for each."""

    folder: Path
    ports: Mapping[str, int]

    @classmethod
    def free(cls, folder: Path) -> "Site":
        """A site in an empty folder, on ports that nobody uses."""
        return cls(folder, dict(zip(PORTS, quiet_ports(len(PORTS)), strict=True)))

    def with_another_port(self, name: str) -> "Site":
        """The same site, with one service on another port."""
        (port,) = quiet_ports(1, besides=self.ports.values())
        return replace(self, ports={**self.ports, name: port})

    def url(self, name: str) -> str:
        """The address of a service."""
        return f"http://{LOOPBACK}:{self.ports[name]}"

    def health(self, name: str) -> str:
        """The address that a service's health check asks."""
        return self.environment(name)["HEALTH_URL"]

    def mounts(self, name: str) -> dict[str, Path]:
        """Each folder or file that a service's container has from outside the image, and what it is here."""
        service = compose_services()[name]
        found = {"/app": PROJECT}
        for mount in service.get("volumes", []):
            source, target, *_ = mount.split(":")
            found[target] = DOCKER / source if source.startswith("./") else self.folder / source
        for mount in service.get("tmpfs", []):
            target = mount.partition(":")[0]
            found[target] = self.folder / name / target.strip("/")
        return found

    def environment(self, name: str) -> Env:
        """The whole environment of a service, with the addresses and folders of this machine."""
        service = compose_services()[name]
        image = image_environment("cpu") if "build" in service else {}
        mounts = self.mounts(name)
        found = {key: self._moved(key, value, mounts) for key, value in (image | service["environment"]).items()}
        if name == "worker-cpu":  # in a container it has the port 8080 for itself
            found |= {"PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK, "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports[name])}
        programs = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return found | {"PATH": programs, "CUDA_VISIBLE_DEVICES": "", MARK: str(self.folder)}

    def command(self, name: str) -> list[str]:
        """The command of a service of ours, on loopback and on its port here."""
        program, *arguments = compose_services()[name]["command"]
        places = {"0.0.0.0": LOOPBACK, **self._port_names()}
        return [str(Path(sys.executable).parent / program), *(places.get(part, part) for part in arguments)]

    def _port_names(self) -> dict[str, str]:
        return {str(port): str(self.ports[name]) for name, port in PORTS.items()}

    def _moved(self, key: str, value: str, mounts: Mapping[str, Path]) -> str:
        """A value with its host, its port or its folder moved; a list of names to answer to stays as it is."""
        if key.endswith("HOST"):
            return LOOPBACK
        if key.endswith("PORT"):
            return self._port_names()[value]
        for target, here in mounts.items():
            if value == target or value.startswith(f"{target}/"):
                return str(here) + value.removeprefix(target)
        if "," in value:
            return value
        address = re.compile(
            rf"(?<=[/@])({'|'.join(PORTS)}|{re.escape(LOOPBACK)}):({'|'.join(map(str, PORTS.values()))})\b"
        )
        return address.sub(lambda found: f"{LOOPBACK}:{self._port_names()[found[2]]}", value)


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Compose's interpolation: `${NAME:?message}`, `${NAME:-default}` and `$$`."""
    if isinstance(value, dict):
        return {name: _filled(part, values) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, values) for part in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if name is None:
            return "$"
        return values[name] if kind == ":?" else values.get(name) or rest

    return re.sub(r"\$(?:\$|\{(?P<name>\w+)(?P<kind>:[?-])(?P<rest>[^}]*)\})", fill, value)
