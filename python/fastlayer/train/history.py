"""`History`: what `Network.fit` tells of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.report.tables import Shown, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

# Rows of the table at each end of a long run.
_ROWS = 5


class History(Shown):
    """The losses of a run, epoch by epoch: what `Network.fit` returns.

    Attributes
    ----------
    loss : list of float
        The mean loss of the batches of each epoch, each before its step.
    val_loss : list of float
        The loss of the validation samples after each epoch, empty without any.
    val_accuracy : list of float
        The share of them that is classified right, where the targets are classes.
    lr : list of float
        The learning rate of the last step of each epoch.
    best_epoch : int or None
        The epoch, from 0 on, whose weights the network has where `patience` was given.
    stopped_by : str
        ``"epochs"``, ``"patience"`` or ``"callback"``.
    """

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.val_loss: list[float] = []
        self.val_accuracy: list[float] = []
        self.lr: list[float] = []
        self.best_epoch: int | None = None
        self.stopped_by = "epochs"

    @property
    def epochs(self) -> int:
        """How many epochs there were."""
        return len(self.loss)

    def _table(self) -> Table:
        columns = {"loss": self.loss, "val_loss": self.val_loss, "val_accuracy": self.val_accuracy}
        shown = {name: values for name, values in columns.items() if values}
        rows = [
            [str(i), *(f"{values[i]:.5g}" for values in shown.values())] for i in self._numbers()
        ]
        if self.epochs > len(rows):
            rows.insert(_ROWS, ["..."] + [""] * len(shown))
        notes = []
        if self.best_epoch is not None:
            notes.append(f"the weights are those of epoch {self.best_epoch}")
        if self.stopped_by != "epochs":
            notes.append(f"ended by {self.stopped_by} after {self.epochs} epochs")
        return Table(["epoch", *shown], rows, left=0, notes=tuple(notes))

    def _numbers(self) -> list[int]:
        if self.epochs <= 2 * _ROWS:
            return list(range(self.epochs))
        return [*range(_ROWS), *range(self.epochs - _ROWS, self.epochs)]

    def _curves(self) -> Iterator[tuple[str, list[float]]]:
        yield "loss", self.loss
        if self.val_loss:
            yield "val_loss", self.val_loss

    def _repr_html_(self) -> str:
        return self._svg() + self._table().html()

    def _svg(self) -> str:
        """Draw the losses over the epochs, on a logarithmic scale where they are positive."""
        width, height, left, low = 420, 200, 48, 24
        curves = [(name, np.array(values)) for name, values in self._curves()]
        every = np.concatenate([values for _, values in curves])
        every = every[np.isfinite(every)]
        if self.epochs < 2 or not every.size:
            return ""
        scaled = bool((every > 0).all())
        low_y, high_y = float(every.min()), float(every.max())
        bottom, top = (np.log(low_y), np.log(high_y)) if scaled else (low_y, high_y)
        span = (top - bottom) or 1.0
        lines = []
        for (name, values), dash in zip(curves, ("", ' stroke-dasharray="5 3"'), strict=False):
            with np.errstate(all="ignore"):
                y = (np.log(values) if scaled else values) - bottom
            x = left + np.arange(values.size) * (width - left - 8) / (self.epochs - 1)
            points = " ".join(
                f"{a:.1f},{height - low - b / span * (height - low - 12):.1f}"
                for a, b in zip(x, y, strict=True)
                if np.isfinite(b)
            )
            lines.append(
                f'<polyline fill="none" stroke="currentColor"{dash} points="{points}">'
                f"<title>{name}</title></polyline>"
            )
        texts = [
            f'<text x="{left - 4}" y="16" text-anchor="end">{high_y:.3g}</text>',
            f'<text x="{left - 4}" y="{height - low}" text-anchor="end">{low_y:.3g}</text>',
            f'<text x="{left}" y="{height - 6}">epoch 0</text>',
            f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{self.epochs - 1}</text>',
        ]
        names = "loss" + (", dashed: val_loss" if self.val_loss else "")
        return (
            f'<svg width="{width}" height="{height}" font-size="11" fill="currentColor" role="img" '
            f'aria-label="{names} over {self.epochs} epochs">{"".join(lines)}{"".join(texts)}</svg>'
            f"<div>{names}</div>"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the epochs with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to; by default a figure of its own.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        from importlib import import_module

        if ax is None:
            try:
                ax = import_module("matplotlib.pyplot").subplots()[1]
            except ImportError as error:
                raise ImportError(
                    "History.plot draws with matplotlib: pip install matplotlib"
                ) from error
        for name, values in self._curves():
            ax.plot(values, label=name)
        if all(min(values, default=1) > 0 for _, values in self._curves()):
            ax.set_yscale("log")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.legend()
        return ax
