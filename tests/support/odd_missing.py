"""An environment whose extra is not installed."""

from palaestra.errors import require

quizzes = require("no_such_quizzes", "quiz")


class Missing:
    """Never made."""
