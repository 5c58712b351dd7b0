"""Labels from a table, `labels.csv`, next to images that are not sorted into folders."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_cgan.core.class_names import check_names
from lightning_cgan.core.errors import UsageError, printable, reason_of
from lightning_cgan.data.listing import files_in, folders_in

TABLE = "labels.csv"
_COLUMNS, _SPLITS = ("file", "label"), ("train", "test")
_SEPARATORS = ",;\t"
_NAMED, _FEW = 5, 20  # the most files and classes that a message lists; images of a class


@dataclass(frozen=True)
class LabelTable:
    """The images that a table names.

    Attributes:
        path: The table.
        images: The images of each label and split, in the order of the table; "" is the split if there are none.
        class_names: All labels: in numerical order if all are whole numbers, else in alphabetical order.
    """

    path: Path
    images: dict[tuple[str, str], list[str]]
    class_names: tuple[str, ...]

    @property
    def has_splits(self) -> bool:
        """Whether the table says which images are for testing."""
        return any(split for _, split in self.images)

    def images_of(self, class_name: str, split: str) -> list[str]:
        """The images of a class; of one split, if the table has them."""
        return self.images.get((class_name, split if self.has_splits else ""), [])


def find_table(root: Path) -> LabelTable | None:
    """Reads `labels.csv` in a folder, if there is one that names images.

    A table of something else next to folders of classes is none. Says how many images and classes there are, and warns
    of classes with few images and of images without a label.

    Raises:
        UsageError: The table has no columns `file` and `label`, or rows that cannot be used.
    """
    path = root / TABLE
    if not path.is_file():
        return None
    lines = _lines(path)
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    if any(header.count(name) != 1 for name in _COLUMNS):
        if folders_in(root):
            return None
        got = printable(", ".join(header), 100) or "an empty table"
        raise _wrong(path, "the columns file and label in the first line", got, "name the columns so")
    rows = _once(path, _rows(root, path, header, lines[1:]))
    counts = Counter(label for label, _ in rows.values())
    check_names("--data.data_dir", counts)
    are_numbers = all(re.fullmatch(r"-?(0|[1-9][0-9]*)", name) for name in counts)
    names = tuple(sorted(counts, key=int if are_numbers else None))
    if not names:
        raise _wrong(path, "a row for each image", "none", "add them")
    _tell(root, rows, [(name, counts[name]) for name in names])
    images: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for file, about in rows.items():
        images[about].append(file)
    return LabelTable(path, dict(images), names)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, as cells, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(_SEPARATORS, key=first.count), strict=True)
            return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, "a table in UTF-8", reason_of(error), "save it as CSV in UTF-8") from error


def _rows(
    root: Path, path: Path, header: list[str], lines: Iterable[tuple[int, list[str]]]
) -> Iterator[tuple[str, str, str]]:
    """Path, label and split of each row."""
    known: dict[str, dict[str, list[str]]] = {}  # names without extensions, by folder
    missing = []
    for number, cells in lines:
        if len(cells) != len(header):
            got, expected = f"{len(cells)} in line {number}", f"{len(header)} cells in each line, as in the first"
            raise _wrong(path, expected, got, "put texts with commas in quotes")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not row["file"] or not row["label"]:
            raise _wrong(path, "a file and a label in each line", f"line {number} without one", "add it")
        if "split" in header and row["split"] not in _SPLITS:
            got = f"{printable(row['split'], 40) or 'nothing'} in line {number}"
            raise _wrong(path, "train or test in the column split", got, "write one of them, or remove the column")
        found = _find(root, row["file"], known)
        if found is None:
            missing.append(row["file"])
        else:
            yield found, normalize("NFC", row["label"]), row.get("split", "")
    if missing:
        more = f", … ({len(missing):,} files)" if len(missing) > _NAMED else ""
        got = printable(", ".join(missing[:_NAMED]), 200) + more
        raise _wrong(path, f"files in {root}", f"{got}, which are not there", "give their paths in this folder")


def _find(root: Path, name: str, known: dict[str, dict[str, list[str]]]) -> str | None:
    """The path of a file; its name in the table may lack the extension."""
    path = root / name
    if path.is_file():
        return str(path)
    folder = str(path.parent)
    if folder not in known:
        known[folder] = {}
        for file in files_in(path.parent):
            known[folder].setdefault(Path(file).stem, []).append(file)
    candidates = known[folder].get(path.name, [])
    return str(path.parent / candidates[0]) if len(candidates) == 1 else None


def _once(path: Path, rows: Iterable[tuple[str, str, str]]) -> dict[str, tuple[str, str]]:
    """Label and split of each image; refuses an image with two of them."""
    found: dict[str, tuple[str, str]] = {}
    for file, *about in rows:
        label, split = found.setdefault(file, (about[0], about[1]))
        if [label, split] != about:
            got = f"{label} {split}".strip() + " and " + " ".join(about).strip()
            remedy = "remove one of the rows"
            raise _wrong(path, f"one label of {printable(file, 100)}", printable(got, 100), remedy)
    return found


def _tell(root: Path, named: Mapping[str, object], counts: list[tuple[str, int]]) -> None:
    rank_zero_info(f"--data.data_dir: {TABLE} has {len(named):,} images of {len(counts):,} classes")
    few = [f"{name} ({count})" for name, count in counts if count < _FEW]
    if few:
        shown = printable(", ".join(few[:_NAMED]), 200) + (", …" if len(few) > _NAMED else "")
        rank_zero_warn(
            f"--data.data_dir: {TABLE} has fewer than {_FEW} images of {len(few):,} classes: {shown}; "
            "--data.balance true repeats them, and --data.classes selects others"
        )
    without = [name for name in files_in(root) if str(root / name) not in named]
    if without:
        rank_zero_warn(
            f"--data.data_dir: skipped {len(without):,} images in {root} that {TABLE} does not name, such as "
            f"{without[0]!r}"
        )


def _wrong(path: Path, expected: str, got: str, remedy: str) -> UsageError:
    return UsageError(f"--data.data_dir: {path}: expected {expected}, got {got}; {remedy}")
