"""Labels from a table, `labels.csv`, next to images that are not sorted into folders."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_cgan.core.class_names import check_names, in_order
from lightning_cgan.core.errors import UsageError, printable, reason_of
from lightning_cgan.data.listing import ENDINGS, files_in, folders_in

TABLE = "labels.csv"
_COLUMNS, _SPLITS = ("file", "label"), ("train", "test")
_SEPARATORS = ",;\t"
_NAMED, _FEW = 5, 20  # the most files and classes that a message lists; images of a class


@dataclass(frozen=True)
class LabelTable:
    """The images that a table names.

    Attributes:
        path: The table.
        images: The images of each label and split, sorted by their paths; "" is the split if there are none.
        class_names: All labels: in numerical order if all are whole numbers, else in alphabetical order.
    """

    path: Path
    images: dict[tuple[str, str], list[str]]
    class_names: tuple[str, ...]

    @cached_property
    def has_splits(self) -> bool:
        """Whether the table says which images are for testing."""
        return any(split for _, split in self.images)

    def images_of(self, class_name: str, split: str) -> list[str]:
        """The images of a class; of one split, if the table has them."""
        return self.images.get((class_name, split if self.has_splits else ""), [])


class _Row(NamedTuple):
    """A line of the table; `place` identifies the file, which may have several paths."""

    line: int
    path: str
    place: str
    label: str
    split: str


def find_table(root: Path) -> LabelTable | None:
    """Reads `labels.csv` in a folder, if there is one that names images.

    A table of something else next to folders of classes is none. Says how many images and classes there are, and warns
    of classes with few images and of images without a label.

    Raises:
        UsageError: The table has no columns `file` and `label`, or rows that cannot be used.
    """
    path = root / next((name for name in sorted(_names_in(root)) if name.lower() == TABLE), TABLE)
    if not path.is_file():
        return None
    try:
        header, lines = _read(path)
    except UsageError:
        if not folders_in(root):
            raise
        rank_zero_warn(f"--data.data_dir: {path} is not used, since it is no table with the columns file and label")
        return None
    rows = _once(path, _rows(root, path, header, lines))
    counts = Counter(row.label for row in rows)
    if not rows:
        raise _wrong(path, "a row for each image", "none", "add them")
    check_names("--data.data_dir", counts)
    names = in_order(counts)
    _tell(root, rows, [(name, counts[name]) for name in names])
    images: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: os.path.split(row.path)):  # whatever the order of the table
        images[row.label, row.split].append(row.path)
    return LabelTable(path, dict(images), names)


def _names_in(root: Path) -> list[str]:
    try:
        return os.listdir(root)
    except OSError:
        return []


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and the lines that are not empty, as cells, with their numbers."""
    try:
        text = list(StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, "a table in UTF-8", reason_of(error), "save it as CSV in UTF-8") from error
    if text and text[0].startswith("sep="):  # as Excel writes it
        text[0] = "\n"
    faults = []
    for separator in _SEPARATORS:
        reader = csv.reader(text, delimiter=separator, strict=True)
        try:
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
        except csv.Error as error:  # another separator may be the right one
            faults.append(f"{error} in line {reader.line_num}")
            continue
        header = [name.strip().lower() for name in lines[0][1]] if lines else []
        if all(header.count(name) == 1 for name in _COLUMNS):
            return header, lines[1:]
    if faults:
        raise _wrong(path, "a table", faults[0], "put texts with quotes in quotes, and write theirs twice")
    got = printable("".join(text[:1]).strip(), 100) or "an empty table"
    raise _wrong(path, "the columns file and label in the first line", got, "name the columns so")


def _rows(root: Path, path: Path, header: list[str], lines: list[tuple[int, list[str]]]) -> Iterator[_Row]:
    files = _Files(root)
    has_folders = set(folders_in(root)) == set(_SPLITS) and "split" not in header
    missing = []
    for line, cells in lines:
        if len(cells) != len(header):
            got, expected = f"{len(cells)} in line {line}", f"{len(header)} cells in each line, as in the first"
            raise _wrong(path, expected, got, "put texts with commas in quotes")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        if not row["file"] or not row["label"]:
            raise _wrong(path, "a file and a label in each line", f"line {line} without one", "add it")
        split = row.get("split", "").lower()
        if "split" in header and split not in _SPLITS:
            got = f"{printable(row['split'], 40) or 'nothing'} in line {line}"
            raise _wrong(path, "train or test in the column split", got, "write one of them, or remove the column")
        found = files.find(row["file"])
        if found is None:
            missing.append(f"{row['file']} (line {line})")
            continue
        if not found.lower().endswith(ENDINGS):
            got = f"{printable(row['file'], 100)} in line {line}"
            raise _wrong(path, f"images ({', '.join(ENDINGS)})", got, "convert it, or remove the row")
        if has_folders:
            split = Path(found).relative_to(root).parts[0] if Path(found).is_relative_to(root) else ""
            split = split if split in _SPLITS else "train"
        yield _Row(line, found, os.path.realpath(found), normalize("NFC", row["label"]), split)
    if missing:
        more = f", … ({len(missing):,} files)" if len(missing) > _NAMED else ""
        got = printable(", ".join(missing[:_NAMED]), 300) + more
        raise _wrong(path, f"files in {root}", f"{got}, which are not there", "give their paths in this folder")


class _Files:
    """Finds files by names that may lack the extension, or differ in case or Unicode form, as on other systems."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, defaultdict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """The path of a file; None if there is none, or several."""
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            path = self.root / written
            try:
                if path.is_file():
                    return str(path)
            except OSError:  # such as a name that is too long
                return None
            candidates = self._in(path.parent)[_folded(path.name)]
            if len(candidates) == 1:
                return str(path.parent / candidates[0])
        return None

    def _in(self, folder: Path) -> defaultdict[str, list[str]]:
        if folder not in self._known:
            names: defaultdict[str, list[str]] = defaultdict(list)
            for file in files_in(folder):
                for name in dict.fromkeys((_folded(file), _folded(Path(file).stem))):
                    names[name].append(file)
            self._known[folder] = names
        return self._known[folder]


def _folded(name: str) -> str:
    return normalize("NFC", name).casefold()


def _once(path: Path, rows: Iterator[_Row]) -> list[_Row]:
    """Each image once; refuses an image with two labels, or in both splits."""
    found: dict[str, _Row] = {}
    for row in rows:
        first = found.setdefault(row.place, row)
        if (first.label, first.split) != (row.label, row.split):
            got = [printable(f"{one.label} {one.split}".strip(), 60) + f" in line {one.line}" for one in (first, row)]
            expected = f"one label of {printable(row.path, 100)}"
            raise _wrong(path, expected, " and ".join(got), "remove one of the rows")
    return list(found.values())


def _tell(root: Path, rows: list[_Row], counts: list[tuple[str, int]]) -> None:
    rank_zero_info(f"--data.data_dir: {TABLE} has {len(rows):,} images of {len(counts):,} classes")
    few = [f"{name} ({count})" for name, count in counts if count < _FEW]
    if few:
        shown = printable(", ".join(few[:_NAMED]), 200) + (", …" if len(few) > _NAMED else "")
        rank_zero_warn(
            f"--data.data_dir: {TABLE} has fewer than {_FEW} images of {len(few):,} classes: {shown}; "
            "--data.balance true repeats them, and --data.classes selects others"
        )
    named = {row.path for row in rows}
    folders = sorted({str(root), *map(os.path.dirname, named)})
    without = [
        path for folder in folders for name in files_in(Path(folder)) if (path := f"{folder}/{name}") not in named
    ]
    if without:
        rank_zero_warn(
            f"--data.data_dir: skipped {len(without):,} images in {root} that {TABLE} does not name, such as "
            f"{without[0]!r}"
        )


def _wrong(path: Path, expected: str, got: str, remedy: str) -> UsageError:
    return UsageError(f"--data.data_dir: {path}: expected {expected}, got {got}; {remedy}")
