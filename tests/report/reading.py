"""Reading a report's page without a browser: its elements as a tree, checked for being well-formed on the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None]
    children: list["Node | str"] = field(default_factory=list)

    def all(self, tag: str, **wanted: str) -> list["Node"]:
        """Elements below with that tag and these attributes (``class_`` matches one of its classes)."""
        found = (node for node in self.walk() if node.tag == tag)
        return [node for node in found if all(node.has(name, value) for name, value in wanted.items())]

    def one(self, tag: str, **wanted: str) -> "Node":
        found = self.all(tag, **wanted)
        assert len(found) == 1, f"{len(found)} <{tag}> with {wanted}"
        return found[0]

    def walk(self) -> Iterator["Node"]:
        """Every element below."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()

    def has(self, name: str, value: str) -> bool:
        found = self.attributes.get(name.rstrip("_").replace("_", "-")) or ""
        return value in found.split() if name == "class_" else found == value

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def number(self, name: str) -> float:
        return float(self.attributes[name] or "")


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), f"an attribute twice in <{tag}>"
        node = Node(tag, dict(attributes))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Node:
    """The page as a tree; every element must be closed in order."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert builder.open == [builder.root], f"<{builder.open[-1].tag}> is left open"
    return builder.root


def table_rows(node: Node) -> list[list[str]]:
    """Texts of a table's rows, headings first."""
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in node.all("tr")]


def table(page: Node, caption: str) -> Node:
    """The table whose caption contains `caption`."""
    found = [node for node in page.all("table") if caption in node.one("caption").text]
    assert len(found) == 1, [node.one("caption").text for node in page.all("table")]
    return found[0]
