"""YAML 1.2 core schema, with the line each value stands on.

YAML 1.1 readers turn `no` into false, `1e-5` into text and `010` into 8. Here plain words follow the core schema of YAML 1.2
(section 10.3.2) and nothing else: `no` and `2024-05-01` are strings, `1e-5` is a float, `010` is 10. ruamel.yaml does the
syntax; values are resolved here, late, so that `${NAME}` is looked up only where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, MappingStartEvent, NodeEvent, ScalarEvent, SequenceStartEvent

from align.errors import RecipeError

DEPTH_LIMIT = 32
WORDS: dict[str, Any] = {
    word: value
    for words, value in [("~ null Null NULL", None), ("true True TRUE", True), ("false False FALSE", False)]
    for word in words.split()
}
WORDS[""] = None
INTEGER = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A scalar as written. `plain` ones (without quotes) may turn out to be numbers, booleans or null."""

    text: str
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value and where it was written: "file.yaml:12", or "command line"."""

    value: dict[str, Node] | list[Node] | Text
    origin: str


def parse(text: str, where: Callable[[int], str]) -> Node:
    """The document in `text`; `where(line)` gives the origin of a line, counted from 1. RecipeError for anything else."""
    try:
        events = YAML(typ="safe", pure=True).parse(text)
        return _Builder(iter(events), where).document()
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _syntax_error(str(error.problem or error.context), where(line)) from None
    except YAMLError as error:
        raise _syntax_error(" ".join(str(error).split()), where(1)) from None


def _syntax_error(problem: str, place: str) -> RecipeError:
    fix = "check indentation, colons and brackets here; text with special characters, and ${NAME} inside { }, needs quotes"
    if r"'\t'" in problem or "tab" in problem:
        fix = "indent with spaces, not tabs"
    return RecipeError(f"not valid YAML: {problem}", place=place, fix=fix)


class _Builder:
    """Turns ruamel's events into nodes."""

    def __init__(self, events: Iterator[Any], where: Callable[[int], str]) -> None:
        self.events, self.where = events, where
        self.anchors: dict[str, Node] = {}

    def document(self) -> Node:
        root: Node | None = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                raise RecipeError(
                    "a second document begins here", place=self._origin(event), fix="one recipe a file: remove the `---`"
                )
            if isinstance(event, NodeEvent):
                root = self._node(event, depth=0)
        return root or Node(value=Text(text="", plain=True), origin=self.where(1))

    def _origin(self, event: Any) -> str:
        return self.where(event.start_mark.line + 1)

    def _node(self, event: Any, depth: int) -> Node:
        origin = self._origin(event)
        if isinstance(event, AliasEvent):
            if event.anchor not in self.anchors:
                raise RecipeError(
                    f"*{event.anchor} refers to no anchor above it", place=origin, fix="quote a text that begins with *"
                )
            return self.anchors[event.anchor]
        if depth > DEPTH_LIMIT:
            raise RecipeError(f"nested more than {DEPTH_LIMIT} levels deep", place=origin, fix="check the brackets")
        if event.tag is not None:
            raise RecipeError(
                f"tag {event.tag} is not supported", place=origin, fix="write the value itself; quotes make it a string"
            )
        if isinstance(event, ScalarEvent):
            node = Node(value=Text(text=event.value, plain=event.style is None), origin=origin)
        elif isinstance(event, SequenceStartEvent):
            node = Node(value=[self._node(item, depth + 1) for item in self._items()], origin=origin)
        else:
            assert isinstance(event, MappingStartEvent)
            node = Node(value=self._mapping(depth), origin=origin)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _items(self) -> Iterator[Any]:
        """The events that begin a node, up to the end of the sequence or mapping."""
        for event in self.events:
            if not isinstance(event, NodeEvent):
                return
            yield event

    def _mapping(self, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_event in self._items():
            origin = self._origin(key_event)
            if not isinstance(key_event, ScalarEvent):
                raise RecipeError("a key must be a word", place=origin, fix="write `key: value`")
            key = key_event.value
            if key == "<<":
                raise RecipeError(
                    "`<<` is YAML 1.1 and not supported", place=origin, fix="use `include: file.yaml`, or repeat the keys"
                )
            if key in entries:
                raise RecipeError(
                    f"duplicate key {key!r}, first at {entries[key].origin}", place=origin, fix="keep one of the two"
                )
            value = self._node(next(self.events), depth + 1)
            entries[key] = Node(value=value.value, origin=origin)  # a block stands where its key stands
        return entries


def plain_value(node: Node, environ: Mapping[str, str]) -> Any:
    """The node as dicts, lists, strings, numbers, booleans and None, with `${NAME}` filled in from `environ`."""
    if isinstance(node.value, dict):
        return {key: plain_value(child, environ) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain_value(child, environ) for child in node.value]
    text = _interpolate(node.value.text, environ, node.origin)
    return _core_schema(text, node.origin) if node.value.plain else text


def _interpolate(text: str, environ: Mapping[str, str], place: str) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if not match[0].endswith("}") or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            fix = "only ${NAME} is known, without defaults or expressions; a literal ${ is written $${"
            raise RecipeError(f"{match[0]} is not the name of an environment variable", place=place, fix=fix)
        if name not in environ:
            fix = f"`export {name}=...` before the command; a literal ${{ is written $${{"
            raise RecipeError(f"environment variable {name} is not set", place=place, fix=fix)
        return environ[name]

    return VARIABLE.sub(variable, text)


def _core_schema(text: str, place: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    try:
        if INTEGER.fullmatch(text):
            return int(text)
        if BASED.fullmatch(text):
            return int(text[2:], 8 if text[1] == "o" else 16)
    except ValueError:  # Python's limit of 4,300 digits
        raise RecipeError(
            f"a number of {len(text)} digits", place=place, fix="write a smaller number, or quote it as text"
        ) from None
    if FLOAT.fullmatch(text):
        return float(text)
    if SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def to_yaml(tree: Mapping[str, Any]) -> str:
    """Plain data as YAML that this module (and any YAML 1.2 reader) reads back to equal data; `${` is escaped."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 120
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.representer.ignore_aliases = lambda *_: True
    yaml.representer.add_representer(str, _represent_string)
    stream = StringIO()
    yaml.dump(_escaped(tree), stream)
    return stream.getvalue()


def _represent_string(representer: Any, text: str) -> Any:
    """Readable block text for several lines, quotes for whatever some YAML version would take for another type."""
    word = re.fullmatch(r"[A-Za-z./_][\w./@:+=-]*", text, re.ASCII) and not text.endswith(":")
    yaml_1_1 = re.fullmatch(r"y|n|yes|no|on|off|true|false|null|\.inf|\.nan|[.\d_:]+(e[+-]?\d+)?", text, re.IGNORECASE)
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if word and not yaml_1_1 else '"')


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _escaped(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(child) for child in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def from_yaml(text: str, name: str = "resolved.yaml") -> dict[str, Any]:
    """The inverse of `to_yaml`, for trees the toolkit wrote itself."""
    tree = plain_value(parse(text, lambda line: f"{name}:{line}"), {})
    if not isinstance(tree, dict):
        raise RecipeError(
            "not a mapping of keys to values", place=name, fix="restore the file, or start the run again with --overwrite"
        )
    return tree
