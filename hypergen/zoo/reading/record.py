"""What a run that was trained on a zoo keeps of it: where it is, and who is in which split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, RunNotFoundError
from hypergen._utils.io import read_json, write_json
from hypergen.zoo.store import Zoo

RECORD = "zoo.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ZooRecord:
    """The zoo of a run and its splits.

    Attributes:
        kind: What the conditions are: `"pairs"` (another checkpoint of the run), `"tasks"`,
            `"text"` or `"none"`.
        splits: Name → view of the zoo.
        settings: What else the data module knows that an evaluation needs.
    """

    kind: str
    splits: dict[str, Zoo]
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, run: str | Path) -> None:
        """Writes `zoo.json` into a run folder; checkpoints are named by run and step."""
        folder = next(iter(self.splits.values())).folder
        write_json(
            Path(run) / RECORD,
            {
                "format_version": FORMAT_VERSION,
                "kind": self.kind,
                "zoo": str(folder),
                "absolute": str(folder.absolute()),
                "settings": self.settings,
                "splits": {
                    name: [[row.run, row.step, row.architecture] for row in view.rows]
                    for name, view in self.splits.items()
                },
            },
        )

    @staticmethod
    def load(run: str | Path, zoo: str | Path | None = None) -> ZooRecord:
        """Reads what `save` wrote, and opens the zoo.

        Args:
            run: The run folder.
            zoo: Where the zoo is now; where it was when not given.

        Raises:
            RunNotFoundError: The run has no such record, or the zoo is gone.
            RunError: The record is damaged, or names a checkpoint that the zoo lacks.
        """
        path = Path(run) / RECORD
        if not path.is_file():
            raise RunNotFoundError(f"{path} does not exist: the run was not trained on a zoo")
        data = read_json(path)
        try:
            if data["format_version"] != FORMAT_VERSION:
                raise RunError(f"{path} has format version {data['format_version']}")
            places = [zoo] if zoo is not None else [data["zoo"], data["absolute"]]
            found = next((Path(p) for p in places if Path(p).is_dir()), None)
            if found is None:
                raise RunNotFoundError(
                    f"the zoo {places[0]} that {run} was trained on is gone: say where it is"
                )
            opened = Zoo(found)
            splits = {name: _view(opened, names, path) for name, names in data["splits"].items()}
            return ZooRecord(data["kind"], splits, dict(data["settings"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(f"{path} is damaged: {error!r}") from error


def has_record(run: str | Path) -> bool:
    """Whether a run folder keeps a record of a zoo."""
    return (Path(run) / RECORD).is_file()


def _view(zoo: Zoo, names: list[list[Any]], path: Path) -> Zoo:
    place = {(row.run, row.step, row.architecture): i for i, row in enumerate(zoo.rows)}
    for run, step, architecture in names:
        if (run, step, architecture) not in place:
            raise RunError(f"{path}: the zoo has no checkpoint of run {run!r} at step {step}")
    return zoo[[place[run, step, architecture] for run, step, architecture in names]]
