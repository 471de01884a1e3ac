"""A configuration's YAML file: every key once, and every value as it was written, for its field to read.

YAML 1.1 makes False of `no`, 8 of 010 and 750 of 12:30. Here every value is a text, but for an empty one, `~` and
`null`; what is a number, a truth value or a label, the field decides, as it does for a flag.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from alignment.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._looked_at: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Mix in what a mapping merges, once it is known to have each key once: a key may override a merged one."""
        if node not in self._looked_at:
            self._looked_at.add(node)
            self._require_unique(node)
        super().flatten_mapping(node)

    def _require_unique(self, node: yaml.MappingNode) -> None:
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
            line = key.start_mark.line + 1
            if name in lines:
                raise ConfigError(
                    f"line {line}: `{name}` is written twice, first on line {lines[name]}; write it once, "
                    "with everything that belongs to it"
                )
            lines[name] = line


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag in (_MERGE, _NULL)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds, values as texts. Raises ConfigError where it cannot be read or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror or error}; give the path of a YAML file") from error
    except ValueError as error:
        raise ConfigError(f"config {path}: not readable as YAML ({' '.join(str(error).split())})") from error
    return parse_yaml(text, f"config {path}")


def parse_yaml(text: str, name: str = "config") -> dict[str, Any]:
    """The mapping that a text holds, values as texts. Raises ConfigError, begun with `name`, where it is none."""
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not readable as YAML ({' '.join(str(error).split())})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "text" if isinstance(values, str) else type(values).__name__
        raise ConfigError(f"{name}: holds a {kind}, expected names with values, a line each")
    return values


def read_value(text: str) -> Any:
    """A list in brackets or a mapping in braces as YAML writes it, with values as texts; any other text is itself.

    Raises ConfigError where brackets or braces hold no YAML.
    """
    if not text.strip().startswith(("[", "{")):
        return text
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"not readable as YAML ({' '.join(str(error).split())[:160]})") from error
