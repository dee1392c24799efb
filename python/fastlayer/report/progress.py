"""How far something is: told to a callable, or shown by a bar."""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = Callable[[int, int | None], object]


@contextmanager
def reporting(
    progress: bool | Progress, total: int | None, unit: str = "rows"
) -> Iterator[Callable[[int], object]]:
    """Give what is told of rows, or others, that are done: it tells a callable, or moves a bar.

    There is a bar where tqdm is installed and stderr is a terminal.
    """
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if callable(progress):
            progress(done, total)

    tqdm = None
    if progress and not callable(progress):
        with suppress(ImportError):
            tqdm = import_module("tqdm.auto").tqdm
    if tqdm is None:
        yield tell
        return
    # None: no bar where nobody would see it move. Notebooks count as terminals.
    with closing(
        tqdm(total=total, unit=f" {unit}", unit_scale=unit == "rows", disable=None)
    ) as bar:
        yield bar.update
