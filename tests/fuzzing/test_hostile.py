"""A few hundred hostile files of each kind, the same every time; `hostile.py` tries as many as one likes."""

import hostile
import pytest

NUMBER = 300


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile.KINDS)
def test_hostile_files_are_read_rightly_or_refused(name, tmp_path, unchecked):
    outcomes = {hostile.tried(name, f"0 {number}", tmp_path) for number in range(NUMBER)}
    assert "refused" in outcomes


@pytest.mark.parametrize("name", hostile.KINDS)
def test_one_hostile_file_of_each_kind(name, tmp_path, unchecked):
    assert hostile.tried(name, "first", tmp_path) in ("read", "refused")
