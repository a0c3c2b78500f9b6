import pytest

from rotnet_keras.text import duration, first_few, percent, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0 s"),
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (86399, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


def test_a_percentage_says_so_unless_its_column_does():
    assert percent(0.8404) == "84.0 %"
    assert percent(0.8404, digits=0) == "84 %"
    assert percent(0.8404, sign="") == "84.0"
    assert percent(None) == ""


def test_a_long_list_is_cut_short():
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcdefg"), most=2) == "a, b and 5 more"


def test_control_characters_are_left_out():
    assert printable("a\x1b[2Jb\n\tc\x00") == "a[2Jb\n\tc"
