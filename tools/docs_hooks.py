"""Hooks of mkdocs: pages that are lists of what the sources hold, and docstrings that say :func:`torch.sum`."""

import ast
import re
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

ROOT = Path(__file__).parents[1]
TORCH = "https://docs.pytorch.org/docs/stable/generated/torch.nn."
SHOWN = """
    options:
      show_root_heading: true
      show_root_toc_entry: true
      show_root_full_path: false
      show_bases: false
      members: false"""


class _Shapes(Preprocessor):
    """[*, N] in a docstring is a shape, not emphasis."""

    def run(self, lines: list[str]) -> list[str]:
        return [re.sub(r"(?<=[\[ ])\*(?=[,\]]|\w+\])", r"\\*", line) for line in lines]


class _Docstrings(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(_Shapes(md), "shapes", 0)


def on_config(config: Any, **_: Any) -> Any:
    config.markdown_extensions.append(_Docstrings())
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """A line `EACH module` becomes the reference of each name that a module imports under itself (`import x as x`); the
    page of decisions becomes the list of its folder."""
    if page.file.src_uri == "decisions/index.md":
        return markdown + _decisions(Path(page.file.abs_src_path).parent)
    return re.sub(r"^EACH ([\w.]+)$", lambda match: _each(match[1]), markdown, flags=re.M)


def _decisions(folder: Path) -> str:
    pages = sorted(path for path in folder.glob("*.md") if path.name != "index.md")
    titles = [(path.read_text().splitlines()[0].lstrip("# "), path.name) for path in pages]
    return "\n".join(f"- [{title}]({name})" for title, name in titles)


def _each(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = [
        (alias.name, node.module)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("trident.")
        for alias in node.names
        if alias.asname == alias.name
    ]
    if not names:
        raise ValueError(f"docs: {module} re-exports nothing")
    names.sort(key=lambda pair: pair[0].lower())
    own = [(name, home) for name, home in names if _documented(name, home)]
    torchs = [f"[{name}]({TORCH}{name}.html)" for name, home in names if (name, home) not in own]
    listed = f"Documented by torch: {', '.join(torchs)}.\n\n" if torchs else ""
    return listed + "\n\n".join(f"::: {home}.{name}{SHOWN}" for name, home in own)


def _documented(name: str, home: str) -> bool:
    """Has a function or class a docstring of its own? Else a class has torch's (`__doc__ = torch.nn.ReLU.__doc__`)."""
    for node in ast.parse((ROOT / home.replace(".", "/")).with_suffix(".py").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) is not None
    raise ValueError(f"docs: no {name} in {home}")


def on_page_content(html: str, **_: Any) -> str:
    return re.sub(r":(?:func|class|meth|mod):(?=<code>)", "", html)
