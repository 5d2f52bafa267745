"""Questions from files as tasks: the user's own, and published sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from palaestra.envs.datafiles import check_file, find_data
from palaestra.envs.hub import dataset_file
from palaestra.envs.params import split_of, whole
from palaestra.envs.search.corpus import Corpus, Page
from palaestra.envs.search.files import Asked, find_file, read_corpus, read_questions
from palaestra.envs.search.kept import Kept
from palaestra.envs.search.options import NAMES
from palaestra.envs.search.questions import Question
from palaestra.envs.search.rows import Row
from palaestra.envs.search.sets import SETS
from palaestra.envs.search.shelf import Shelved
from palaestra.envs.tasks import SPLITS, Task, TaskSuite
from palaestra.errors import ConfigError, DataError, UnknownNameError

ENV = "search/Questions-v0"
FILE = "file"
MOST_QUESTIONS = 10_000
"""Read of one file of a published set, unless somebody asks for more: their paragraphs are the corpus."""


class Source(NamedTuple):
    """Files, with their size and time of change: a changed file is read anew."""

    set: str
    """`file` or a name of `SETS`."""
    questions: Path
    corpus: Path | None
    """`None`: the paragraphs that come with the questions."""
    most: int
    """Questions that are read of a published set."""
    stamp: tuple[tuple[int, int], ...]


class Filed:
    """The questions of a source by id, and their corpus, which is built when it is first needed."""

    def __init__(self, asked: Iterable[Asked], pages: Callable[[], Iterable[Page]]) -> None:
        self.asked = _by_id(asked)
        self._pages, self._corpus = pages, Kept[Corpus](1)

    def corpus(self) -> Corpus:
        """The pages, searchable.

        Raises:
            DataError: a corpus file holds something else.
        """
        return self._corpus.get("corpus", lambda: Corpus(self._pages()))


_sources = Kept[Filed](4)


def load_filed(split: str, level: str, params: Mapping[str, Any]) -> TaskSuite:
    """The questions of one split of a source.

    Args:
        split: `train`, `validation` or `test`.
        level: `file` or a name of `SETS`.
        params: any of `Options`, and: `data`, the folder with the files (of `file`; of a set, where its files were
            downloaded by hand); `corpus`, a corpus file to search instead of the set's paragraphs; `questions`, how
            many of a set to read at most.

    Raises:
        ConfigError: a parameter that does not exist, or no corpus where one is needed.
        DataError: the files are missing, or hold something else.
        MissingExtraError: huggingface_hub is not installed and the set is not at hand.
        UnknownNameError: no such split.
    """
    known = {"data", *NAMES} if level == FILE else {"data", "corpus", "questions", *NAMES}
    unknown = sorted(set(params) - known)
    if unknown:
        raise ConfigError(
            f"search/{level} takes no parameter {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
        )
    params = {**params, "set": level, "split": split}
    filed = _filed(_source(params))
    asked = [one for one in filed.asked.values() if one.split == split]
    return TaskSuite(f"search/{level}", split, len(asked), lambda index: _task(asked[index], index, params))


def _task(one: Asked, index: int, params: Mapping[str, Any]) -> Task:
    return Task(
        env=ENV,
        name=f"{params['set']}-{one.id}",
        split=one.split,
        seed=index,
        params={**params, "question": one.id},
        kind=one.question.kind,
    )


def fetch_filed(params: Mapping[str, Any]) -> Shelved:
    """The question of a task from files.

    Raises:
        DataError: there is none of that id.
    """
    filed = _filed(_source(params))
    one = filed.asked.get(str(params.get("question")))
    if one is None:
        raise DataError(f"there is no question {str(params.get('question'))[:80]!r} in {params.get('set')}")
    return Shelved(one.question, filed.corpus)


def _source(params: Mapping[str, Any]) -> Source:
    name, split = str(params.get("set")), str(params.get("split"))
    if split not in SPLITS:
        raise UnknownNameError("split of search", split, SPLITS)
    if name == FILE:
        folder = _folder(params) or find_data("search")
        if folder is None:
            raise ConfigError("search/file needs data=FOLDER, a folder with corpus.jsonl and questions.jsonl")
        return _stamped(name, find_file(folder, "questions.jsonl"), find_file(folder, "corpus.jsonl"), 0)
    if name not in SETS:
        raise UnknownNameError("level of search", name, [FILE, *SETS])
    found, corpus = SETS[name], params.get("corpus")
    file = found.test if split == "test" else found.train
    if not file:
        raise UnknownNameError(f"split of search/{name}", split, ["test"])
    if corpus is None and not found.paragraphs:
        raise ConfigError(f"{name} comes without paragraphs to search: name a corpus file, corpus=FILE.jsonl")
    most = whole(params, "questions", "a search task", default=MOST_QUESTIONS, least=1, most=1_000_000)
    folder = _folder(params)
    local = dataset_file(found.repo, file, found.revision) if folder is None else _in(folder, file)
    return _stamped(name, local, None if corpus is None else check_file(str(corpus)), most)


def _folder(params: Mapping[str, Any]) -> Path | None:
    given = params.get("data")
    if given is None:
        return None
    if not isinstance(given, str | Path):
        raise DataError(f"data of a search task is a folder, not {str(given)[:80]!r}")
    return Path(given).expanduser()


def _in(folder: Path, file: str) -> Path:
    """A set's file in a folder that has the hub's structure, or none."""
    below = folder / file
    return below if below.exists() else find_file(folder, below.name)


def _stamped(name: str, questions: Path, corpus: Path | None, most: int) -> Source:
    files = [check_file(file) for file in (questions, corpus) if file is not None]
    return Source(name, questions, corpus, most, tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in files))


def _filed(source: Source) -> Filed:
    return _sources.get(source, lambda: _read(source))


def _read(source: Source) -> Filed:
    if source.set == FILE:
        assert source.corpus is not None
        return Filed(read_questions(source.questions), partial(read_corpus, source.corpus))
    rows = list(islice(SETS[source.set].rows(source.questions), source.most))
    test = source.questions.name == Path(SETS[source.set].test).name
    if source.corpus is not None:
        return Filed((_asked(row, test, ()) for row in rows), partial(read_corpus, source.corpus))
    pages: dict[tuple[str, str], Page] = {}
    return Filed([_asked(row, test, _shelve(row, pages)) for row in rows], pages.values)


def _shelve(row: Row, pages: dict[tuple[str, str], Page]) -> tuple[Page, ...]:
    """Put its paragraphs among `pages`, each once; those that support its answer."""
    found = []
    for place, (title, text) in enumerate(row.paragraphs):
        page = pages.setdefault((title, text), Page(f"p{len(pages)}", title or f"p{len(pages)}", text))
        if place in row.supporting:
            found.append(page)
    return tuple(found)


def _asked(row: Row, test: bool, support: tuple[Page, ...]) -> Asked:
    """Of a set's own training questions, those that a hash says are our validation."""
    split = "test" if test else "validation" if split_of(f"search/{row.question}") == "validation" else "train"
    ids, titles = tuple(page.id for page in support), tuple(page.title for page in support)
    return Asked(row.id, split, Question(row.question, row.answers, row.kind, 0, ids, titles))


def _by_id(asked: Iterable[Asked]) -> dict[str, Asked]:
    """A second question of the same id is told apart by a number."""
    found: dict[str, Asked] = {}
    for one in asked:
        id, copy = one.id, 2
        while id in found:
            id, copy = f"{one.id}#{copy}", copy + 1
        found[id] = Asked(id, one.split, one.question)
    return found
