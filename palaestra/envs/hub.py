"""Single files of data sets on a model hub. No code of a data set is ever run."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from palaestra.errors import DataError, require


def dataset_file(repo: str, file: str, revision: str) -> Path:
    """A file of a data set on the Hugging Face hub, downloaded where the hub's cache does not have it yet.

    `HF_ENDPOINT` (a mirror), `HF_HOME` (where the cache is), `HF_HUB_OFFLINE` and `HF_TOKEN` mean what they mean to
    `huggingface_hub`.

    Args:
        repo: `owner/name`.
        file: its path within the data set.
        revision: commit, tag or branch; only a commit gives the same file for ever.

    Raises:
        DataError: no connection and not in the cache, no such data set, file or revision, or it needs a token. The
            message says how to use a local copy instead.
        MissingExtraError: huggingface_hub is not installed.
    """
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(f"{file!r} is not the path of a file within a data set")
    hub = require("huggingface_hub", "hub")
    errors, transport = require("huggingface_hub.errors", "hub"), require("huggingface_hub.utils", "hub")
    transport.disable_progress_bars()
    try:
        return Path(hub.hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError, ValueError) as error:
        why = _why(errors, error)
    except Exception as error:  # its transport's own, which differs between versions of it
        why = f"the hub cannot be reached ({type(error).__name__})"
    raise DataError(
        f"cannot get {file} of {repo} at {revision[:12]} from the hub: {why}; "
        f"or download it elsewhere and name its folder: data=FOLDER"
    )


def _why(errors: object, error: Exception) -> str:
    """The reason in a few words: the hub's own messages have paragraphs."""
    reasons = (
        ("GatedRepoError", "it is gated: accept its terms on the hub and set HF_TOKEN"),
        ("RepositoryNotFoundError", "there is no such data set, or it is private: set HF_TOKEN"),
        ("RevisionNotFoundError", "it has no such revision"),
        ("RemoteEntryNotFoundError", "it has no such file"),
        (
            "LocalEntryNotFoundError",
            "the cache does not have it, and the hub cannot be reached, or HF_HUB_OFFLINE is set",
        ),
    )
    for name, why in reasons:
        if isinstance(error, getattr(errors, name, ())):
            return why
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
