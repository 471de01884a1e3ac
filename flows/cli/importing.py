"""The commands that make a model folder of a file in another format: import gguf."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.markup import escape

from flows.cli.console import make_console, quieten, say

app = App(name="import", help="Make a model folder of a file in another format.")


@app.command(name="gguf")
def gguf(
    file: Annotated[Path, Parameter(help="GGUF file, as llama.cpp and Ollama run them")],
    folder: Annotated[Path, Parameter(help="Folder to write; it must not exist, or be empty")],
) -> int:
    """Write the model of a GGUF file as a folder for base.model: fp32 safetensors, its tokenizer and chat template."""
    quieten()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of transformers, some of which obey nothing else
    from alignment.gguf import import_gguf

    made = import_gguf(file, folder)
    context = f"a context of {made.context:,} tokens" if made.context else "no limit of context"
    told = (
        f"{made.folder}: {made.architecture}, {made.parameters / 1e6:,.1f} million parameters, {made.size / 1e6:,.0f} "
        f"MB, {context}, texts end at {' or '.join(made.ends)}, {'with a' if made.chat else 'no'} chat template"
    )
    say(make_console(), escape(told))
    return 0
