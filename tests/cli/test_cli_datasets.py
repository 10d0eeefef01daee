"""What is wrong with somebody's images is said with its reason, the way out and the designed exit status."""

from __future__ import annotations

import pytest
from PIL import Image


@pytest.fixture
def images(tmp_path):
    """Four members and four non-members, with captions in text files."""
    for number in range(8):
        path = tmp_path / "own" / ("members" if number % 2 else "non-members") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (30 * number, 7, 90)).save(path)
        path.with_suffix(".txt").write_text(f"square {number}")
    return tmp_path / "own"


def test_a_folder_of_both_classes(tiny_run, images):
    done = tiny_run("--dataset", f"folder:{images}")
    assert done.status == 0 and "3 members, 3 non-members" in done.out


def test_an_unreadable_caption_costs_its_sample(tiny_run, images):
    (images / "members" / "1.txt").write_bytes(b"\xff\xfe\xff")
    done = tiny_run("--dataset", f"folder:{images}", limit=9)
    assert done.status == 3 and "3 members, 4 non-members (1 more left out)" in done.out
    assert "1.txt cannot be read: not UTF-8 text; save it as UTF-8, or remove it ('members/1.png')" in done.out


def test_images_without_labels(tiny_run, images):
    done = tiny_run("--dataset", f"folder:{images / 'members'}")
    assert done.status == 5 and "nothing could be compared: 3 samples have no label" in done.out
    assert (images.parent / "run" / "scores.parquet").is_file()


def test_non_members_alone(tiny_run, images):
    for path in (images / "members").iterdir():
        path.rename(images / path.name)
    (images / "members").rmdir()
    done = tiny_run("--dataset", f"folder:{images}")
    assert done.status == 5 and "above at 5 % FPR" in done.out
    assert "5 % of 3 non-members is 0.15 errors: fewer than 1" in done.out


def emptied(images):
    for path in (images / "members").iterdir():
        path.unlink()


def listed(text):
    return lambda images: (images / "metadata.csv").write_text(text)


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        (emptied, "no images in", "put images there, or remove the folder"),
        (listed("file_name,id\nmembers/1.png,a\nmembers/3.png,a\n"), "duplicate id: 'a'", "its own id"),
        (listed("file_name,captions\nmembers/1.png,a\n"), "column 'captions': not a column", "rename it"),
        (listed("file_name,member\nmembers/1.png,seen\n"), "line 2: member 'seen'", "correct that line"),
        (listed("file_name\n../1.png\n"), "line 2: file_name '../1.png' leaves the folder", "correct that line"),
    ],
)
def test_a_folder_that_is_refused(tiny_run, images, change, said, fix):
    change(images)
    done = tiny_run("--dataset", f"folder:{images}")
    assert done.status == 3 and said in done.err and fix in done.err.split("fix:")[1]
    assert not done.out


@pytest.mark.parametrize(
    ("dataset", "status", "said", "fix"),
    [
        ("clid-coco", 2, "no path given", "ask for access at https://huggingface.co/datasets/zsf"),
        ("clid-flickr:nowhere", 3, "no such folder", "ask the authors"),
        ("clid-pokemon:nowhere", 3, "no such folder", "taken down"),
        ("copymark", 2, "no path given", "get datasets.zip"),
        ("cifar10:nowhere", 3, "no such folder", "cifar-10-binary.tar.gz"),
        ("celeba:nowhere", 3, "no such folder", "img_align_celeba.zip"),
        ("stroll:nowhere", 3, "no such folder", "leave it out to read the hub's"),
        ("parquet:nowhere", 3, "no such file or folder", "check the path"),
        ("hf:./nowhere", 2, "no such folder", "write OWNER/NAME"),
        ("webdataset:own,capton=x", 2, "no such option; did you mean caption", "mia-bench describe webdataset"),
    ],
)
def test_a_dataset_that_is_not_here(tiny_run, dataset, status, said, fix):
    done = tiny_run("--dataset", dataset)
    assert done.status == status and said in done.err and fix in done.err.split("fix:")[1]


@pytest.mark.parametrize("name", ["folder", "hf", "parquet", "stroll", "celeba", "tiny-imagenet"])
def test_describe_says_how_a_dataset_is_written(cli, name):
    done = cli("describe", name)
    assert f"`--dataset {name}" in done.out or f"`{name}:PATH`" in done.out
    assert "licence" in done.out and "biases" in done.out
