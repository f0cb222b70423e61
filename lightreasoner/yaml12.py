"""YAML as DVC reads it: version 1.2, by DVC's own library; repeated keys are errors.

`1e3` is a number, `on` and `1:30` are texts, `0o17` is 15. A whole number with a leading zero, such
as `0300`, is refused: it is 300 in YAML 1.2 and 192 in YAML 1.1.
"""

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.scanner import Scanner

from lightreasoner import untrusted

MERGE = "tag:yaml.org,2002:merge"
MERGED = 1_000
"""Keys of a mapping that merges others, which may merge others, each several times."""

INTEGER = "tag:yaml.org,2002:int"
VALUES = 10_000
"""In lists and mappings; aliases, each a few letters, can stand for any number."""

_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


class _Scanner(Scanner):
    def fetch_flow_collection_start(self, *arguments: Any, **more: Any) -> None:
        """Begin a list or mapping in brackets; hundreds in each other take seconds to refuse."""
        if len(self.flow_context) >= untrusted.DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(*arguments, **more)


class _Constructor(SafeConstructor):
    def flatten_mapping(self, node: MappingNode) -> None:
        """Merge `<<` into a mapping, whose keys the library would not check thereafter."""
        seen = set()
        for key, _ in () if getattr(node, "merge", None) else node.value:
            if isinstance(key, ScalarNode) and (key.tag, key.value) in seen:
                problem = f"the key {key.value} appears twice; remove one of the two"
                raise ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add((key.tag, str(key.value)))
        merged = [len(each.value) for key, each in node.value if key.tag == MERGE]
        super().flatten_mapping(node)
        if merged and max(*merged, len(node.value)) > MERGED:
            problem = f"merges over {MERGED} keys"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)

    def construct_integer(self, node: ScalarNode) -> int:
        if _LEADING_ZERO.fullmatch(node.value):
            problem = (
                f"{node.value} has a leading zero, which YAML versions read differently; remove it"
            )
            raise ConstructorError(problem=problem, problem_mark=node.start_mark)
        try:
            if len(node.value) > untrusted.DIGITS:
                raise ValueError(f"over {untrusted.DIGITS} digits")
            return self.construct_yaml_int(node)
        except (ValueError, IndexError) as error:  # `!!int x`, `!!int ""`
            problem = f"{untrusted.shown(node.value)} is not a whole number ({error})"
            raise ConstructorError(problem=problem, problem_mark=node.start_mark) from error


_Constructor.add_constructor(INTEGER, _Constructor.construct_integer)


class _Representer(SafeRepresenter):
    def represent_str(self, data: str) -> ScalarNode:
        """Quoted where it begins with a colon, which in brackets the library cannot read back."""
        style = '"' if data.startswith(":") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


def load(text: str) -> Any:
    """What a text says, within the limits of untrusted.py and of at most VALUES.

    Raises ValueError, one line that names the place where there is one.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner, yaml.Constructor = _Scanner, _Constructor
    try:
        value = yaml.load(text)
        untrusted.check_tree(value, VALUES)
        return value
    except Exception as error:  # also what the library stumbles over, as in `!!bool x`
        raise ValueError(_fault(error)) from error


def dump(value: Any, *, inline: bool = False) -> str:
    """A value as text that `load` reads as the same value; `inline`: on one line, in brackets."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = inline
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.allow_unicode = False  # else U+0085 would come back as a space
    yaml.width = 2**20 if inline else 100
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()


def _fault(error: Exception) -> str:
    """What is wrong, and where."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if isinstance(error, RecursionError):
        problem = f"nested over {untrusted.DEPTH} deep"
    said = problem or (error if isinstance(error, (YAMLError, ValueError)) else repr(error))
    said = " ".join(str(said).split())
    said = said if len(said) < 200 and said.isprintable() else untrusted.shown(said)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark else said
