"""Write examples as notebooks: `python docs/notebooks.py FOLDER [--run STEPS]`.

jupytext cuts a script into cells; its docstring becomes text, and its last lines, which read the
command line, a call. `--run` executes the notebooks too, with that many steps of training.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import jupytext
from nbformat import NotebookNode, write
from nbformat.v4 import new_code_cell, new_markdown_cell

EXAMPLES = Path(__file__).parents[1] / "examples"
CALLS = {
    "refine_photograph": 'main("refine_photograph.png")',
    "layer_behind_torchvision": 'main("layer_behind_torchvision.png", {steps})',
}
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def notebook(name: str, steps: int) -> NotebookNode:
    """Turn a script into a notebook without outputs."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    title, *body = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")
    words = "\n\n".join(part for part in body if not part.startswith(" "))  # but the commands
    script = text.split('"""', 2)[2].split('\nif __name__ == "__main__":')[0]
    for line in ("from __future__ import annotations\n", "import sys\n"):
        script = script.replace(line, "")
    book = jupytext.reads(script.strip(), fmt="py:light")
    call = new_code_cell(CALLS[name].format(steps=steps))
    book.cells = [new_markdown_cell(f"# {title}\n\n{words}"), *book.cells, call]
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"  # the same file from the same script
    book.metadata = {"kernelspec": KERNEL}
    return book


def main(folder: Path, steps: int | None) -> None:
    """Write all notebooks, executed if there are steps."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CALLS:
        book = notebook(name, steps or 150)
        if steps is not None:
            from nbclient import NotebookClient

            NotebookClient(book, resources={"metadata": {"path": str(folder)}}).execute()
        write(book, folder / f"{name}.ipynb")
        print(folder / f"{name}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[3]) if sys.argv[2:3] == ["--run"] else None)
