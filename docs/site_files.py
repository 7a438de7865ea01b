"""A hook of MkDocs: the site's pages are files of the repository, each at its own path.

MkDocs reads one folder, which may not be the repository itself. With README.md, docs/ and the pages beside the code at
their own paths, a link is the same on the site as in the repository.
"""

from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "*.md",
    "docs/**/*.md",
    "pipelines/*/**/README.md",
    "saved_models/*/README.md",
)
# What the pages show or link to.
OTHERS = (
    "LICENSE",
    "CITATION.cff",
    "docs/images/*.png",
    "docs/images/*.jpg",
    "docs/notebooks/*.ipynb",
    "pipelines/on_device/raspberry_pi.py",
    "t2i_kd/data/*.py",
    "t2i_kd/data/NOTICE",
    "saved_models/*/NOTICE",
    "t2i_kd/teachers/weights/NOTICE",
)


def on_files(files, config):
    """The theme's own files, and those of the repository that `PAGES` and `OTHERS` name."""
    theirs = [file for file in files if file.src_dir != config.docs_dir]
    ours = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, config.use_directory_urls)
        for pattern in (*PAGES, *OTHERS)
        for path in sorted(ROOT.glob(pattern))
        if "node_modules" not in path.parts
    ]
    return Files(theirs + ours)
