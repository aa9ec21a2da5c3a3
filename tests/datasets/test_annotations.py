"""Annotation files, read against results written down by hand, and what is refused."""

import json

import numpy as np
import pytest

from jaxcam.datasets.annotations import read_annotations, resolved
from jaxcam.datasets.class_index import ClassIndex
from jaxcam.datasets.regions import Polygons, Runs, drawn

NAMES = ("tabby", "tiger cat", "crane", "crane", "great white shark, white shark, man-eater", "dog")


def written(folder, content, name="annotations.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def truths(path, *, classes=None, names=NAMES):
    annotations = read_annotations(path)
    return annotations, resolved(annotations, ClassIndex(classes, names))


# Names and indices


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tabby", 0),
        ("TABBY", 0),
        ("Tiger Cat", 1),
        ("crane", -1),  # two classes have this name
        ("white shark", 4),
        ("man-eater", 4),
        ("Great White Shark", 4),
        ("dog, domestic dog, Canis familiaris", 5),
        ("tabby, dog", -1),  # one name of each of two classes
        ("cat", -1),  # a part of a name is not a name
        ("", -1),
        (3, 3),
        (None, -1),
    ],
)
def test_names_become_indices(name, index):
    assert ClassIndex(None, NAMES).index(name) == index


def test_the_users_mapping_comes_first():
    classes = ClassIndex({"kitty": "tiger cat", "Wolf": 5, "tabby": 2, 1: 0}, NAMES)
    assert [classes.index(name) for name in ("kitty", "KITTY", "wolf", "tabby", 1, "dog")] == [1, 1, 5, 2, 0, 5]


def test_an_imagenet_index_counts_for_models_of_1000_classes_only():
    thousand = [f"name {i}" for i in range(1000)]
    assert ClassIndex(None, thousand).index("dog", imagenet_index=151) == 151
    assert ClassIndex(None, ()).index("dog", imagenet_index=151) == 151
    assert ClassIndex(None, NAMES).index("dog", imagenet_index=151) == 5
    assert ClassIndex({"dog": 7}, thousand).index("dog", imagenet_index=151) == 7


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ({"a": "no such class"}, ValueError, "not the name of exactly one class"),
        ({"a": "crane"}, ValueError, "give the index"),
        ({"a": 6}, ValueError, "6, the number of the model's classes"),
        ({"a": 1.0}, TypeError, "class index"),
        ({"a": True}, TypeError, "class index"),
        (["a"], TypeError, "mapping"),
    ],
)
def test_mappings_that_are_refused(unchecked, classes, error, message):
    with pytest.raises(error, match=message):
        ClassIndex(classes, NAMES)


def test_imagenet_labels_of_the_photographs_are_found_by_name(data):
    from jaxcam.models.class_names import IMAGENET

    classes = ClassIndex(None, IMAGENET)
    entries = json.loads((data / "images" / "imagenet_val.json").read_text())
    found = [(classes.index(entry["label"]), entry["imagenet_index"]) for entry in entries]
    assert {a for a, b in found if a != b} <= {-1}  # never another class
    assert sum(a == b for a, b in found) >= 250


# Our own format


def test_own_format(tmp_path):
    path = written(
        tmp_path,
        [
            {"file": "a/one.jpg", "label": "dog", "boxes": [[1, 2, 3.5, 4]], "width": 30, "height": 20},
            {"file": "two.jpg", "label": 1},
            {"file": "three.jpg", "imagenet_index": 4, "label": "tabby"},
            {"file": "four.jpg", "imagenet_indices": [3, 4], "boxes": [[0, 0, 1, 1], [5, 5, 9, 9]]},
            {
                "file": "five.jpg",
                "label": "tabby",
                "boxes": [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]],
                "box_labels": ["dog", None, "unheard of"],
            },
            {"file": "six.jpg"},
            {"file": r"b\seven.jpg", "boxes": [[0, 0, 1, 1]], "width": 0, "height": 0},
        ],
    )
    annotations, found = truths(path)
    assert annotations.kind == "own"
    assert [entry.file for entry in annotations.entries] == [
        "a/one.jpg",
        "two.jpg",
        "three.jpg",
        "four.jpg",
        "five.jpg",
        "b/seven.jpg",
    ]
    assert annotations.num_empty == 1
    assert [truth.label for truth in found] == [5, 1, 0, -1, 0, -1]
    assert [truth.size for truth in found] == [(20, 30), None, None, None, None, None]
    np.testing.assert_array_equal(found[0].boxes, [[1, 2, 3.5, 4]])
    assert [truth.box_classes.tolist() for truth in found] == [[5], [], [], [-1, -1], [5, 0, -1], [-1]]
    # Without the model's names the ImageNet indices hold, and the first of several.
    path = written(tmp_path, [{"file": "four.jpg", "imagenet_indices": [3, 4], "boxes": [[0, 0, 1, 1]]}])
    assert truths(path, names=())[1][0].label == 3
    assert truths(path, names=())[1][0].box_classes.tolist() == [3]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, "must be an object"),
        ({}, "name of the image file is missing"),
        ({"file": ""}, "name of the image file is missing"),
        ({"file": "x.jpg", "label": 1.5}, "class index or a name"),
        ({"file": "x.jpg", "label": True}, "class index or a name"),
        ({"file": "x.jpg", "label": 6}, "below 6"),
        ({"file": "x.jpg", "label": -2}, "from 0"),
        ({"file": "x.jpg", "boxes": [[1, 2, 3]]}, r"\[m, 4\]"),
        ({"file": "x.jpg", "boxes": [[1, 2, 3, 4], [1, 2]]}, "different lengths"),
        ({"file": "x.jpg", "boxes": [1, 2, 3, 4]}, r"\[m, 4\]"),
        ({"file": "x.jpg", "boxes": [["1", 2, 3, 4]]}, "must be numbers"),
        ({"file": "x.jpg", "boxes": [[10**400, 2, 3, 4]]}, "must be numbers"),
        ({"file": "x.jpg", "boxes": [[1, 2, float("nan"), 4]]}, "finite"),
        ({"file": "x.jpg", "boxes": [[1, 2, float("inf"), 4]]}, "finite"),
        ({"file": "x.jpg", "boxes": [[5, 2, 3, 4]]}, "x0 <= x1"),
        ({"file": "x.jpg", "boxes": [[1, 9, 3, 4]]}, "y0 <= y1"),
        ({"file": "x.jpg", "boxes": [[1, 2, 3, 4]], "box_labels": []}, "one a box"),
        ({"file": "x.jpg", "boxes": [[1, 2, 3, 4]], "box_labels": [0.5]}, "box_labels"),
        ({"file": "x.jpg", "width": 3.5, "height": 2}, "width must be a whole number"),
        ({"file": "x.jpg", "width": 3}, "height must be a whole number"),
        ({"file": "x.jpg", "imagenet_index": "3"}, "must be an integer"),
        ({"file": "x.jpg", "imagenet_indices": 3}, "must be a list"),
    ],
)
def test_own_entries_that_are_refused(tmp_path, entry, message):
    path = written(tmp_path, [{"file": "fine.jpg", "label": 0}, entry])
    with pytest.raises(ValueError, match=message) as raised:
        truths(path)
    assert "annotations.json" in str(raised.value)
    assert "entry 1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nothing_that_matches_is_an_error_with_a_remedy(tmp_path):
    path = written(tmp_path, [{"file": "x.jpg", "label": "chat"}, {"file": "y.jpg", "label": "chien"}])
    with pytest.raises(ValueError, match=r"'chat', 'chien'; .*classes=\{'chat': "):
        truths(path)
    assert [truth.label for truth in truths(path, classes={"chien": "dog"})[1]] == [-1, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "neither a list"),
        ("3", "neither a list"),
    ],
)
def test_files_that_are_no_annotations(unchecked, tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_annotations(written(tmp_path, content))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_annotations(tmp_path / "binary.json")
    with pytest.raises(FileNotFoundError, match="do not exist"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(TypeError, match="must be a path"):
        read_annotations(3)


# COCO


def coco(**changes):
    content = {
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 10, "height": 8},
            {"id": 5, "file_name": "a.jpg", "width": 4, "height": 3},
            {"id": 6, "file_name": "empty.jpg", "width": 4, "height": 3},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]]},
            {"image_id": 5, "category_id": 1, "bbox": [0, 0, 2, 3]},
            {
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 9.5, 8],
                # down the columns: 3 pixels outside, 2 inside, the rest outside
                "segmentation": {"size": [8, 10], "counts": [3, 2, 75]},
            },
        ],
    }
    for path, value in changes.items():
        place, *keys, last = [int(key) if key.isdigit() else key for key in path.split("__")]
        inner = content[place] if keys or last else content
        for key in keys:
            inner = inner[key]
        inner[last] = value
    return content


def test_coco(tmp_path):
    annotations, found = truths(written(tmp_path, coco()))
    assert annotations.kind == "coco"
    assert annotations.num_empty == 1
    assert annotations.num_without_masks == 1
    assert [entry.file for entry in annotations.entries] == ["b.jpg", "a.jpg"]
    first, second = found
    np.testing.assert_array_equal(first.boxes, [[1, 2, 4, 6], [0, 0, 9.5, 8]])
    assert first.box_classes.tolist() == [-1, 5]
    assert first.label == 5  # of the largest box, 76 against 12 pixels
    assert first.size == (8, 10)
    assert (second.label, second.boxes.tolist(), second.masks) == (5, [[0, 0, 2, 3]], None)
    expected = np.zeros((2, 8, 10), bool)
    expected[0, 2:6, 1:4] = True
    expected[1, 3:5, 0] = True
    np.testing.assert_array_equal([drawn(mask, 8, 10) for mask in first.masks], expected)


def test_coco_compressed_runs_leave_boxes_only(tmp_path):
    content = coco(annotations__2__segmentation={"size": [8, 10], "counts": "34f5"})
    annotations, found = truths(written(tmp_path, content))
    assert annotations.num_without_masks == 2
    assert found[0].masks is None
    assert len(found[0].boxes) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations__1__bbox": [0, 0, -1, 3]}, r"annotations\[1\].*x0 <= x1"),
        ({"annotations__1__bbox": [0, 0, 1]}, r"annotations\[1\].*four numbers"),
        ({"annotations__1__bbox": [0, 0, float("nan"), 1]}, r"annotations\[1\].*four numbers"),
        ({"annotations__1__bbox": None}, r"annotations\[1\].*four numbers"),
        ({"annotations__1__image_id": 99}, r"annotations\[1\].*no image with the id 99"),
        ({"annotations__1__image_id": [7]}, r"annotations\[1\]: image_id must be a number"),
        ({"annotations__1__category_id": 99}, r"annotations\[1\].*no category with the id 99"),
        ({"annotations__1__segments_info": []}, "panoptic"),
        ({"annotations__0__segmentation": [[1, 2, 3, 4]]}, r"annotations\[0\].*three corners"),
        ({"annotations__0__segmentation": [[1, 2, 3, 4, 5, float("inf")]]}, r"annotations\[0\].*polygon"),
        ({"annotations__0__segmentation": 3}, r"annotations\[0\].*polygons"),
        ({"annotations__2__segmentation__counts": [3, 2, 74]}, r"annotations\[2\].*79 pixels, not 80"),
        ({"annotations__2__segmentation__counts": [3, -2, 79]}, r"annotations\[2\].*counts"),
        ({"annotations__2__segmentation__size": [10, 8]}, r"annotations\[2\].*size"),
        ({"images__1__id": 7}, r"images\[1\].*occurs twice"),
        ({"images__1__id": None}, r"images\[1\].*id must be"),
        ({"images__1__file_name": None}, r"images\[1\].*name of the image file"),
        ({"images__1": 3}, r"images\[1\] must be an object"),
        ({"categories__0__name": None}, r"categories\[0\].*name is missing"),
    ],
)
def test_coco_files_that_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        truths(written(tmp_path, coco(**changes)))
    assert "annotations.json" in str(raised.value)


def inside(x, y, outline):
    """Ray casting in plain Python."""
    odd = False
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


@pytest.mark.parametrize("seed", range(5))
def test_polygons_against_ray_casting(seed):
    rng = np.random.default_rng(seed)
    height, width = 17, 23
    outlines = tuple(rng.uniform(-4, 27, (num, 2)) for num in (3, 7))  # some corners lie outside, edges cross
    expected = [[any(inside(x + 0.5, y + 0.5, o) for o in outlines) for x in range(width)] for y in range(height)]
    assert 0.1 < np.mean(expected) < 0.95
    np.testing.assert_array_equal(drawn(Polygons(outlines), height, width), expected)


def test_polygons_that_meet_share_no_pixel_and_leave_none_out():
    corners = [(0.0, 0.0), (6.0, 0.0), (6.0, 5.0), (0.0, 5.0)]
    upper, lower = (np.array([corners[i] for i in which]) for which in ((0, 1, 2), (0, 2, 3)))
    first, second = (drawn(Polygons((outline,)), 5, 6) for outline in (upper, lower))
    assert np.all(first ^ second)


def test_runs_may_begin_inside():
    assert drawn(Runs(np.array([0, 2, 4])), 2, 3).tolist() == [[True, False, False], [True, False, False]]


# PASCAL VOC

VOC = """<annotation>
  <folder>VOC</folder><filename>{filename}</filename>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <object><name>dog</name><difficult>1</difficult>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
    <bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>8</ymax></bndbox></object>
  <object><name>tiger cat</name><bndbox><ymin>11</ymin><xmin>5.5</xmin><ymax>30</ymax><xmax>40</xmax></bndbox></object>
</annotation>"""


def test_voc(tmp_path):
    (tmp_path / "sub").mkdir()
    written(tmp_path, VOC.format(filename="one.jpg"), "b.xml")
    written(tmp_path, VOC.format(filename=""), "sub/a.XML")
    written(tmp_path, "<annotation><filename>empty.jpg</filename></annotation>", "c.xml")
    written(tmp_path, "not XML at all", "readme.txt")
    annotations, found = truths(tmp_path)
    assert (annotations.kind, annotations.num_empty) == ("voc", 1)
    assert [entry.file for entry in annotations.entries] == ["one.jpg", "a"]
    assert found[0].size == (30, 40)
    # Pixels 1 to 10 are [0, 10) counted from 0.
    np.testing.assert_array_equal(found[0].boxes, [[0, 2, 10, 8], [4.5, 10, 40, 30]])
    assert found[0].box_classes.tolist() == [5, 1]
    assert found[0].label == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>10</xmax>", "<xmax>-3</xmax>", r"object 0 \(dog\).*x0 <= x1"),
        ("<xmax>10</xmax>", "<xmax>ten</xmax>", "bndbox/xmax must be a number"),
        ("<xmax>10</xmax>", "<xmax>nan</xmax>", "finite"),
        ("<xmax>10</xmax>", "", "<bndbox/xmax> is missing"),
        ("<name>dog</name>", "", "<name> is missing"),
        ("<width>40</width>", "", "<size/width> is missing"),
        ("</annotation>", "", "not valid XML"),
        ("annotation>", "kml>", "outermost element"),
        ("<annotation>", '<!DOCTYPE annotation [<!ENTITY a "b">]><annotation>', "refused"),
        ("<annotation>", '<!DOCTYPE annotation SYSTEM "file:///etc/hostname"><annotation>', "refused"),
    ],
)
def test_voc_files_that_are_refused(tmp_path, old, new, message):
    content = VOC.format(filename="one.jpg")
    assert old in content
    written(tmp_path, content.replace(old, new), "one.xml")
    with pytest.raises(ValueError, match=message) as raised:
        truths(tmp_path)
    assert "one.xml" in str(raised.value)


def test_voc_in_utf_16_cannot_smuggle_in_a_document_type(tmp_path):
    content = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    (tmp_path / "one.xml").write_bytes(content.encode("utf-16"))
    with pytest.raises(ValueError, match="must be in UTF-8"):
        read_annotations(tmp_path)


def test_a_folder_without_xml_is_no_annotation(tmp_path):
    with pytest.raises(ValueError, match=r"without any \.xml file"):
        read_annotations(tmp_path)


def test_entries_of_one_image_and_class_are_one_image(tmp_path):
    content = [
        {"file": "a.png", "label": "dog", "boxes": [[0, 0, 2, 2]]},
        {"file": "b.png", "label": "dog"},
        {"file": "a.png", "label": "dog", "boxes": [[3, 3, 5, 6]], "box_labels": ["tabby"]},
        {"file": "a.png", "label": "tabby", "boxes": [[3, 3, 5, 6]]},
    ]
    annotations, found = truths(written(tmp_path, content))
    assert [entry.file for entry in annotations.entries] == ["a.png", "b.png", "a.png"]
    assert found[0].label == 5
    assert found[0].boxes.tolist() == [[0, 0, 2, 2], [3, 3, 5, 6]]
    assert found[0].box_classes.tolist() == [5, 0]
    assert found[2].label == 0


@pytest.mark.parametrize(
    ("slip", "meant"), [("box", "boxes"), ("bbox", "boxes"), ("lable", "label"), ("image", "file")]
)
def test_a_slip_of_a_key_is_named(tmp_path, slip, meant):
    entry = {"file": "a.png", "label": "dog", "boxes": [[0, 0, 2, 2]]}
    entry[slip] = entry.pop(meant)
    with pytest.raises(ValueError, match=f"entry 0 has the key '{slip}': call it '{meant}'"):
        truths(written(tmp_path, [entry]))


def test_coco_crowds_are_left_out(tmp_path):
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{**box, "id": 1}, {**box, "id": 2, "bbox": [0, 0, 8, 8], "iscrowd": 1}],
    }
    _, found = truths(written(tmp_path, content))
    assert found[0].boxes.tolist() == [[0, 0, 4, 4]]
