"""Any value that JSON has, for hypothesis."""

from hypothesis import strategies as st


def any_json(*awkward):
    """A strategy of small values, the awkward ones among them more often than by chance."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(awkward),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
