"""One of the processes of test_ranks.py, as ``torchrun`` starts it: runs commands and writes what they printed.

``ranks_worker.py COMMANDS.json OUT``: lists of words, in which ``{rank}`` is the process's number.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from fluvial.cli import launched, main


def run(commands: str, out: str) -> None:
    launched.PATIENCE = 0.2
    found = []
    for words in json.loads(Path(commands).read_text()):
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            status = main([word.replace("{rank}", os.environ["RANK"]) for word in words])
        found.append({"status": status, "out": said.getvalue(), "err": told.getvalue()})
    (Path(out) / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
    launched.end_launched(0)
