"""A run's folder and its copy in a model repository on the hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from sem.huggingface import hub_errors, huggingface_hub
from sem.run_names import LOCK_FILE, OVERWRITTEN, UNFINISHED

CHECKPOINTS = ("checkpoints/*.pt", "checkpoints/*.ckpt")
REPLACED = (*CHECKPOINTS, "tensorboard/*")
"""What an upload deletes from the repository when it is not in the folder any more; all else there stays."""
_SNAPSHOT = ".upload-"
_LEFT_HERE = (".*", "*.writing", "*.pt.*", LOCK_FILE, f"{OVERWRITTEN}*", f"{UNFINISHED}*")


def is_checkpoint(name: str) -> bool:
    """Whether a file, by its path in a run's folder or repository, is a checkpoint."""
    return any(fnmatch(name, pattern) for pattern in CHECKPOINTS)


class RunMirror:
    """Keeps ``repo`` like ``folder``: what a run there needs to go on, on another machine.

    Args:
        folder: the run's folder.
        repo: ``owner/name`` of a model repository; a private one is made where there is none.
    """

    def __init__(self, folder: str | Path, repo: str) -> None:
        self.folder = Path(folder)
        self.repo = repo
        self._api = huggingface_hub().HfApi()

    def restore(self) -> bool:
        """Make the repository if need be, and fetch the run it holds into a folder that holds none.

        Returns:
            Whether a run was fetched.

        Raises:
            HubError: the repository cannot be made, read or written.
        """
        with hub_errors(f"{self.repo}: the run cannot be fetched"):
            self._api.create_repo(self.repo, private=True, exist_ok=True)
            if self.checkpoints() or not any(map(is_checkpoint, self._api.list_repo_files(self.repo))):
                return False
            self._api.snapshot_download(self.repo, local_dir=self.folder)
        return True

    def upload(self) -> None:
        """Make the repository like the folder, in one commit; checkpoints that are gone here go there too.

        Raises:
            HubError: the hub refused or failed.
            OSError: a file vanished meanwhile, or the disk is full.
        """
        # a snapshot first: the run goes on writing and deletes its oldest checkpoint
        for left in self.folder.glob(f"{_SNAPSHOT}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_SNAPSHOT) as snapshot:
            copy = Path(snapshot) / "run"
            shutil.copytree(self.folder, copy, copy_function=_snapshot, ignore=shutil.ignore_patterns(*_LEFT_HERE))
            with hub_errors(f"{self.repo}: the run cannot be uploaded"):
                self._api.upload_folder(
                    repo_id=self.repo,
                    folder_path=copy,
                    delete_patterns=list(REPLACED),
                    commit_message=f"Run after {self.newest() or 'its beginning'}",
                )

    def checkpoints(self) -> frozenset[tuple[str, int]]:
        """Names and times of the checkpoints in the folder: when these change, there is something to upload."""
        found = set()
        for path in self.folder.glob("checkpoints/*"):
            if is_checkpoint(path.relative_to(self.folder).as_posix()):
                try:
                    found.add((path.name, path.stat().st_mtime_ns))
                except FileNotFoundError:  # the run keeps only its newest
                    continue
        return frozenset(found)

    def newest(self) -> str | None:
        """The name of the checkpoint of the latest step, without its ending."""
        return max((Path(name).stem for name, _ in self.checkpoints()), default=None)


def _snapshot(source: str, target: str) -> None:
    if Path(source).suffix == ".pt":
        try:
            return os.link(source, target)  # never written again once it bears its name, and large
        except FileNotFoundError:
            raise
        except OSError:  # a file system without links
            pass
    shutil.copy2(source, target)
