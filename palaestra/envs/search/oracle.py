"""The expert: it knows the supporting pages and the answer, and goes the honest way to them."""

from __future__ import annotations

from collections.abc import Collection

from palaestra.envs.search.corpus import Corpus
from palaestra.envs.search.questions import Question
from palaestra.envs.search.request import Request


def advise(
    question: Question, corpus: Corpus, shown: Collection[str], read: Collection[str], asked: Collection[str], left: int
) -> Request:
    """The next call: each supporting page is searched for, then read; then the answer is given.

    Args:
        question: with its supporting pages, if they are known.
        corpus: where they are.
        shown: ids of pages that a search or a page has led to.
        read: ids of pages that were read.
        asked: queries so far.
        left: turns, the coming one included.
    """
    titles = question.pages
    queries = question.queries or titles or (question.text,)
    pages = [corpus.find(title) for title in titles]
    for page, query in zip(pages or [None], queries, strict=False):
        if left <= 1 or (page is not None and page.id in read):
            continue
        if query not in asked and (page is None or page.id not in shown):
            return Request("search", query)
        if page is not None:
            return Request("read", page.title if corpus.find(page.title) is page else page.id)
    return Request("answer", question.answers[0])
