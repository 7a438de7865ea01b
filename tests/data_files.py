"""Files of a data set, in a folder or a .zip."""

import zipfile


def write(folder, files):
    """Writes {name: bytes} below a folder, which is returned."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path, files):
    """Writes {name: bytes} into a .zip, whose path is returned."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
