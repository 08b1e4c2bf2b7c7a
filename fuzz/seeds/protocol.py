#!/usr/bin/env python3
"""Writes the seeds of the target `protocol`: short stories, one operation at a time. They are the same each time."""

from pathlib import Path

# In the order of fuzz_targets/protocol.rs.
KINDS = (
    "fork_root fork_here fork_from run end switch_in switch_out attach_task attach_children attach_global detach reset "
    "exit limit tick"
).split()

STORIES = {
    "global": """
        fork_root 0; attach_global 0; fork_from 0 1; run 0 0; tick 5; end; run 1 1; tick 3; end; exit 0; detach 0
    """,
    "both": """
        fork_root 0; attach_task 0 0; attach_global 0; run 0 0; tick 2; end; detach 0; reset 0; run 0 0; end; exit 0
    """,
    "family": """
        fork_root 0; attach_children 1 0; run 0 0; fork_here 0 1; fork_here 0 0; run 0 1; tick 7; end; end; exit 1;
        exit 0; detach 0
    """,
    "carried": """
        fork_root 2; fork_root 1; attach_global 1; switch_in 2 0; tick 9; switch_in 2 0; attach_task 1 1; switch_out 2;
        switch_out 2; run 0 0; switch_in 0 0; end
    """,
    "refused": """
        fork_root 0; fork_root 1; limit 0 1; attach_global 0; attach_children 0 0; fork_from 0 1; limit 0 12;
        attach_global 0; limit 0 3; fork_from 1 2; exit 0; attach_task 0 0
    """,
}


def encode(operation: str) -> bytes:
    kind, *numbers = operation.split()
    return bytes([KINDS.index(kind), *map(int, numbers + ["0", "0"])][:3])


folder = Path(__file__).with_suffix("")
folder.mkdir(exist_ok=True)
for name, story in STORIES.items():
    (folder / name).write_bytes(b"".join(map(encode, story.split(";"))))
