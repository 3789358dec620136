"""Pushes to a Hub: makes the repository private and gated first, then uploads all files in one commit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from dataset_scripts.counts import counted


HUB_GATES: dict[str, Literal["manual", "auto", False]] = {"manual": "manual", "auto": "auto", "no": False}
HUBS_OWN_FILES = {".gitattributes"}


class PushError(Exception):
    """A push that did not come to its end; the message says why, and what to do."""


def check_token(repo_id: str, token: str | None = None) -> None:
    """Ask the Hub whose token this is.

    Raises:
        PushError: where there is none, the Hub does not know it, or it cannot be reached.
    """
    with _explained(repo_id):
        HfApi(library_name="modeling-icd", token=token).whoami()


def push(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    private: bool,
    gated: str,
    message: str,
    repo_type: Literal["model", "dataset"] = "model",
    token: str | None = None,
) -> str:
    """Make the repository, or take up one of an earlier push, and commit the files.

    An interrupted push leaves a repository with the right settings and without a commit. Pushing again finds what was
    uploaded and goes on.

    Args:
        files (`dict`): Paths or contents by name.
        gated (`str`): `manual`, `auto` or `no`: how access is granted.
        token (`str`, *optional*): In place of the one that `hf auth login` or HF_TOKEN left.

    Returns:
        The commit's id, the revision to load the model at.

    Raises:
        PushError: where the Hub refuses or cannot be reached, or the repository holds files of someone else.
    """
    api = HfApi(library_name="modeling-icd", token=token)
    with _explained(repo_id):
        api.whoami()
        present = set()
        with suppress(RepositoryNotFoundError):
            siblings = api.repo_info(repo_id, repo_type=repo_type).siblings  # type: ignore[union-attr]
            present = {file.rfilename for file in siblings or []}
        foreign = sorted(present - files.keys() - HUBS_OWN_FILES)
        if foreign:
            raise PushError(
                f"{repo_id} exists and holds {counted(len(foreign), 'file')} of another origin than this release, e.g. {foreign[0]}. "
                "Delete them there, or take another `--repo_id`."
            )
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        api.update_repo_settings(repo_id, repo_type=repo_type, private=private, gated=HUB_GATES[gated])
        info = api.repo_info(repo_id, repo_type=repo_type)
        if bool(info.private) != private or (info.gated or False) != HUB_GATES[gated]:
            raise PushError(
                f"{repo_id} did not take its settings (private, gated); nothing was uploaded. Set them there."
            )
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=message,
            repo_type=repo_type,
        )
    return commit.oid


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's library raises into one message that says what to do."""
    again = "Nothing has changed here, and the same command goes on where it stopped."
    try:
        yield
    except LocalTokenNotFoundError:
        raise PushError("There is no token: run `hf auth login`, or set HF_TOKEN, with one that may write.") from None
    except OfflineModeIsEnabled:
        raise PushError("HF_HUB_OFFLINE is set: unset it to push.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        reasons = {
            401: "The Hub does not know this token: run `hf auth login`, or set HF_TOKEN, with a valid one.",
            403: f"This token may not write to {repo_id}: take one with write access, or a `--repo_id` of your own.",
            404: f"The Hub has no {repo_id} for this token: is OWNER in `--repo_id` right?",
            409: f"{repo_id} exists and is not yours to see, or someone is writing to it: take another `--repo_id`, or wait.",
            413: "The Hub finds a file too large.",
            422: "The Hub refuses a large file.",
        }
        reason = reasons.get(status, f"The Hub answered with status {status}.")
        raise PushError(f"{reason} {again}") from None
    except HTTPError:
        raise PushError(f"The Hub cannot be reached: check the network. {again}") from None
    except RuntimeError:  # what the library makes of a large file that did not go through
        raise PushError(f"The upload of a large file was refused or broken off. {again}") from None
    except (ValueError, OSError) as error:
        raise PushError(f"The push failed: {error}. {again}") from None
