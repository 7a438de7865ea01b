"""What a caption is allowed to be."""

import pytest

from t2i_kd.data.captioned_images import check_caption
from t2i_kd.errors import UserError


@pytest.mark.parametrize(
    ("caption", "message"),
    [("", "empty"), (" \n\u3000", "empty"), ("a" * 10000, "10000"), (b"\xff", "UTF-8"), ("\ud800", "UTF-8")],
)
def test_refused(caption, message):
    with pytest.raises(UserError, match=f"^caption: .*{message}"):
        check_caption(caption)


def test_returned_unchanged():
    assert check_caption(" größe".encode()) == " größe"
    assert check_caption("a" * 2000) == "a" * 2000
