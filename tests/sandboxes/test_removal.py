"""Trees of every kind go, and nothing beside them."""

import os
from pathlib import Path

import pytest

from palaestra.sandboxes.removal import remove_tree


def test_a_tree_goes_and_what_it_points_to_stays(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "a" / "link").symlink_to(outside)
    (tree / "loose").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    (tree / "a\nb\udcff").mkdir()
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()


def test_one_that_is_gone_is_no_error(tmp_path):
    remove_tree(tmp_path / "nothing")


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="Not a directory"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "real").exists()


def test_depth_costs_nothing(tmp_path):
    """Deeper than a path can be long, a stack can be deep, or descriptors there are."""
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    remove_tree(tree)
    assert not tree.exists()


def test_folders_that_may_not_be_entered_go_too(tmp_path):
    tree = tmp_path / "tree"
    (tree / "shut" / "in").mkdir(parents=True)
    (tree / "shut" / "in" / "file").touch()
    for folder in (tree / "shut" / "in", tree / "shut", tree):
        folder.chmod(0)
    if os.geteuid() != 0:
        remove_tree(tree)
        assert not tree.exists()
        return
    os.chown(tmp_path, 65534, 65534)
    for folder in [tree, *sorted(tree.rglob("*"))]:
        os.chown(folder, 65534, 65534)
    child = os.fork()
    if child == 0:
        os.chdir(tmp_path)  # whoever owns the folders above need not let others pass
        os.setgid(65534)
        os.setuid(65534)
        try:
            remove_tree(Path("tree"))
        finally:
            os._exit(1 if os.path.lexists("tree") else 0)
    assert os.waitpid(child, 0)[1] == 0
