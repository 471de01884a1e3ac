"""Shares among machines what was paid for, such as a judge's answers: many small files, in few objects."""

import json
import logging
import uuid
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from alignment.locks import alone
from alignment.remote.layout import inside
from alignment.remote.objects import Bucket
from alignment.stages.files import disk_errors


class Paid:
    """The files below `kept`, in objects of one line a file; a file beside `kept` names what is both here and there."""

    def __init__(self, bucket: Bucket, kept: Path) -> None:
        """Nothing is made or asked yet."""
        self.bucket, self.kept = bucket, kept

    def pull(self) -> None:
        """Fetch what other machines have paid for and this one has not yet."""
        with self._alone(), disk_errors(self.kept, self.kept.parent):
            names = self._names()
            new = [each for each in self.bucket.listing("kept") if each.name not in names]
            for each, lines in self.bucket.read(new):
                for line in lines.decode().splitlines():
                    file, text = json.loads(line)
                    path = self.kept / inside(file)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if not path.exists():
                        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
                        draft.write_text(text, encoding="utf-8")
                        draft.rename(path)
                    names.add(file)
                names.add(each.name)
            if new:
                self._note(names)

    def push(self) -> None:
        """Upload what was paid for here and no other machine has yet, as one object."""
        if not self.kept.is_dir():
            return
        with self._alone():
            names = self._names()
            files = {str(file.relative_to(self.kept)) for file in self.kept.rglob("*.json") if file.name[0] != "."}
            if new := sorted(files - names):
                lines = [json.dumps([file, (self.kept / file).read_text(encoding="utf-8")]) for file in new]
                name = f"kept/{uuid.uuid4().hex}.jsonl"
                self.bucket.create(name, "\n".join(lines).encode())
                self._note(names | set(new) | {name})

    def _alone(self) -> AbstractContextManager[None]:
        path = self.kept.with_name(".kept.lock")
        return alone(path, "another process shares what was paid for", level=logging.DEBUG)

    def _names(self) -> set[str]:
        with suppress(FileNotFoundError):
            return set(self.kept.with_name(".kept").read_text(encoding="utf-8").splitlines())
        return set()

    def _note(self, names: set[str]) -> None:
        draft = self.kept.with_name(f".kept.{uuid.uuid4().hex[:8]}")
        draft.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
        draft.rename(self.kept.with_name(".kept"))
