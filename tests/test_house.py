"""The rooms: imports go down and in no circle, none is hidden, every room says what it is for."""

import ast
import importlib

import house
import pytest

ROOMS = sorted({house.room(name) for name in house.modules() if (house.PACKAGE / house.room(name)).is_dir()})


@pytest.fixture(scope="module")
def found():
    return house.imports()


def told(found):
    return [f"{one.source}:{one.line} imports {one.target}" for one in found]


def test_every_room_has_a_floor():
    assert len(house.FLOORS) <= 8
    for module in house.modules():
        assert sum(house.room(module) in rooms for rooms in house.FLOORS) == 1, module


def test_imports_go_down(found):
    assert told(house.upward(found)) == []


def test_the_way_down_has_eight_floors_at_most(found):
    assert house.storeys(found) <= 8


def test_no_circles(found):
    assert house.circles(found) == []


def test_no_import_of_our_own_is_hidden_in_a_function(found):
    assert told(one for one in found if one.hidden) == []


def test_file_names_stand_once():
    assert house.names_twice() == {}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_a_sign_and_say_what_is_public(room):
    module = importlib.import_module(f"jaxcam.{room}")
    assert len(module.__doc__.splitlines()) >= 3 or room == "commands"
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), name


@pytest.mark.parametrize("name", ["alphas", "images", "maps", "methods", "metrics", "models", "scenes", "scores"])
def test_dir_shows_what_is_the_users(name):
    module = importlib.import_module(f"jaxcam.{name}")
    assert sorted(module.__all__) == dir(module)
    tree = ast.parse((house.modules()[name]).read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.FunctionDef) and node.name == "__dir__" for node in tree.body)


def test_the_reading_of_imports_finds_what_it_is_for(tmp_path):
    # A house with one fault of each kind.
    for file, text in {
        "__init__.py": "",
        "scores.py": "from jaxcam.maps import x",
        "maps.py": "def f():\n    from jaxcam import scores",
        "cuts/__init__.py": "from jaxcam.cuts.model import a",
        "cuts/model.py": "import jaxcam.cuts.cut",
        "cuts/cut.py": "from jaxcam.cuts import model",
        "metrics/__init__.py": "",
        "metrics/cut.py": "from jaxcam.cuts import cut",
    }.items():
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = house.imports(tmp_path)
    assert {(one.source, one.target) for one in house.upward(found)} == {
        ("scores", "maps"), ("metrics.cut", "cuts.cut"),
    }  # fmt: skip
    assert house.circles(found) == [{"cuts.cut", "cuts.model"}, {"maps", "scores"}]
    assert [one.source for one in found if one.hidden] == ["maps"]
    assert house.names_twice(tmp_path) == {"cut.py": 2}
