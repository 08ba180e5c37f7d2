"""Files written whole or not at all, and checkpoints that know which run they belong to."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["CheckpointError", "load_checkpoint", "replacing", "save_checkpoint"]

_FORMAT = "pyro_manifolds.checkpoint/1"


class CheckpointError(ValueError):
    """A file is not a checkpoint, or not one of the run at hand."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, moved there at the end, removed on an error.

    Readers see the old file or the new one, never half of one.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "table.txt"
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('whole', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_checkpoint(path: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: Where to; a file there is replaced.
        settings: What tells this run from others: numbers, strings, and lists of them.
        state: What the run needs to go on: tensors, numbers, and containers of them.
    """
    content = {"format": _FORMAT, "settings": dict(settings), "state": dict(state)}
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state in a checkpoint of the run that ``settings`` describe.

    Nothing is unpickled but tensors and plain containers.

    Args:
        path: The checkpoint.
        settings: Those of the run at hand.

    Raises:
        CheckpointError: If the file cannot be read, is not a checkpoint, or has other settings.
    """
    content = _read(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path}: expected a file written by this program, got something else; "
            "move it away, or choose another place"
        )
    theirs = content["settings"]
    names = sorted(theirs.keys() | settings.keys())
    differing = [name for name in names if theirs.get(name) != settings.get(name)]
    if differing:
        raise CheckpointError(
            f"checkpoint {path}: expected one of a run with "
            f"{_listing(settings, differing)}, got one with {_listing(theirs, differing)}; "
            "move it away, or choose another place"
        )
    return content["state"]


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file raises whatever its bytes lead to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"checkpoint {path}: expected a readable file, got {reason!r}; "
            "move it away, or choose another place"
        ) from error


def _listing(settings: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {settings.get(name)!r}" for name in names)
