"""What evaluate reads: folders, lists and iterables, with the truth in the view's coordinates."""

import json
from contextlib import closing

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcam import scenes
from jaxcam.datasets.examples import Example, truth_of
from jaxcam.datasets.image_files import files_in, files_of, matched
from jaxcam.datasets.sources import source_of
from jaxcam.datasets.views import moved_boxes, moved_masks
from jaxcam.images import Preprocessing, read_image
from jaxcam.images.preprocessing import frame_of

PLAIN = Preprocessing()
GREY = np.full((6, 8, 3), 0.5, np.float32)


def picture(path, value, size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def views(source, indices=None, preprocessing=PLAIN, **options):
    indices = range(source.length) if indices is None else indices
    with closing(source.views(indices, preprocessing=preprocessing, num_workers=0, **options)) as found:
        return list(found)


# Where boxes and masks go


@pytest.mark.parametrize(
    ("height", "width", "resize", "crop"),
    [
        (60, 90, 30, 20),
        (90, 60, 30, 20),
        (47, 61, 32, 32),
        (40, 30, 64, 50),  # enlarged
        (33, 57, None, 24),
        (31, 44, 29, None),
        (20, 20, None, None),
    ],
)
def test_boxes_and_masks_go_where_the_pixels_go(height, width, resize, crop):
    preprocessing = Preprocessing(resize=resize, crop=crop, interpolation="box")
    frame = frame_of(height, width, resize, crop)
    rng = np.random.default_rng(height * width)
    for _ in range(20):
        x0, y0 = rng.integers(0, width - 2), rng.integers(0, height - 2)
        x1, y1 = rng.integers(x0 + 1, width + 1), rng.integers(y0 + 1, height + 1)
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = True
        image = np.repeat(mask[:, :, None].astype(np.float32), 3, axis=2)
        seen = preprocessing.view(image)[:, :, 0]
        moved, kept = moved_boxes(np.array([[x0, y0, x1, y1]], np.float64), height, width, frame)
        if not kept[0]:
            assert seen.max() == 0
            continue
        left, top, right, bottom = moved[0]
        rows, columns = np.nonzero(seen > 0.02)
        assert len(rows) == 0 or abs(columns.min() - left) <= 1.01
        assert len(rows) == 0 or abs(columns.max() + 1 - right) <= 1.01
        assert len(rows) == 0 or abs(rows.min() - top) <= 1.01
        assert len(rows) == 0 or abs(rows.max() + 1 - bottom) <= 1.01
        if resize is not None and height % frame.new_height == width % frame.new_width == 0:
            # Shrinking by "box" by whole numbers gives each pixel the part of it that is covered.
            assert seen.sum() == pytest.approx((right - left) * (bottom - top), rel=0.005)
        # The same pixels as a picture in which nothing is interpolated.
        nearest = Preprocessing(resize=resize, crop=crop, interpolation="nearest").view(image)[:, :, 0] == 1
        np.testing.assert_array_equal(moved_masks([mask], frame)[0], nearest)


def test_boxes_by_hand():
    # 40 x 20 becomes 20 x 10, of which columns 5 to 15 and all rows are kept.
    frame = frame_of(20, 40, 10, 10)
    boxes = np.array(
        [
            [0, 0, 40, 20],
            [10, 2, 12, 4],
            [0, 0, 10, 20],
            [30, 0, 40, 5],
            [9, 0, 11, 20],
            [20, 3, 20, 9],
            [-5, -5, 14, 50],
        ],
        np.float64,
    )
    moved, kept = moved_boxes(boxes, 20, 40, frame)
    np.testing.assert_array_equal(kept, [True, True, False, False, True, False, True])
    np.testing.assert_array_equal(moved, [[0, 0, 10, 10], [0, 1, 1, 2], [0, 0, 0.5, 10], [0, 0, 2, 10]])


def test_each_axis_has_its_own_scale():
    # The longer side is rounded down: 14 x 9 becomes int(6.2) x 4.
    frame = frame_of(9, 14, 4, None)
    moved, _ = moved_boxes(np.array([[7.0, 4.5, 14.0, 9.0]]), 9, 14, frame)
    np.testing.assert_array_equal(moved, [[3, 2, 6, 4]])


def test_masks_by_brute_force():
    rng = np.random.default_rng(0)
    masks = list(rng.random((3, 25, 40)) < 0.5)
    frame = frame_of(25, 40, 15, 12)
    assert (frame.new_height, frame.new_width, frame.top, frame.left) == (15, 24, 2, 6)
    expected = [
        [[mask[int((y + 2 + 0.5) * 25 / 15), int((x + 6 + 0.5) * 40 / 24)] for x in range(12)] for y in range(12)]
        for mask in masks
    ]
    np.testing.assert_array_equal(moved_masks(masks, frame), expected)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([5, 1, 9.5, 4], None),  # a pixel beyond is rounding, one and a half are not
        ([5, 1, 9, 7], ""),
        ([-1, -1, 3, 3], ""),
        ([0, 0, 3, 7.5], None),
        ([-1.5, 0, 3, 3], None),
        ([20, 10, 30, 20], None),
        ([20, 10, 20, 10], ""),  # without area: lost, as inside of the picture
        ([0.1, 0.2, 0.5, 1], "multiply x by the width, 8, and y by the height, 6"),
        ([0.1, 0.2, 0.5, 1.5], ""),
    ],
)
def test_boxes_that_are_not_in_the_picture_are_told(box, told):
    (view,) = views(source_of([Example(GREY, label=1, boxes=[box])]))
    if told == "":
        assert view.error is None
    else:
        assert (told or f"8 wide and 6 high, but one is x0, y0, x1, y1 = {[float(at) for at in box]}") in view.error


def test_an_example_keeps_boxes_classes_and_masks_together():
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :, :10] = masks[1, 4:8, 16:20] = masks[2, :, 30:] = True
    example = Example(
        np.full((20, 40, 3), 0.5, np.float32),
        label=2,
        boxes=[[0, 0, 10, 20], [16, 4, 20, 8], [30, 0, 40, 20]],
        box_classes=[1, 2, -1],
        masks=masks,
        name="three\nboxes",
    )
    (view,) = views(source_of([example]), preprocessing=Preprocessing(resize=10, crop=10))
    assert view.error is None
    assert (view.index, view.name, view.label, view.num_boxes_lost) == (0, r"three\nboxes", 2, 2)
    np.testing.assert_array_equal(view.boxes, [[3, 2, 5, 4]])
    assert view.box_classes.tolist() == [2]
    expected = np.zeros((1, 10, 10), bool)
    expected[0, 2:4, 3:5] = True
    np.testing.assert_array_equal(view.masks, expected)
    assert (view.image.dtype, view.boxes.dtype, view.box_classes.dtype) == (np.float32, np.float32, np.int32)


def test_masks_without_boxes_move_with_the_pixels_and_keep_their_classes():
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :, :10] = masks[1, 4:8, 16:20] = masks[2, :, 18:22] = True
    example = Example(np.zeros((20, 40, 3), np.float32), label=1, masks=masks, box_classes=[4, 5, 6])
    source = source_of([example])
    (view,) = views(source, preprocessing=Preprocessing(crop=10))  # columns 15 to 24, rows 5 to 14
    assert source.knows == {"masks"}
    assert (len(view.boxes), view.box_classes.tolist(), view.num_boxes_lost) == (0, [5, 6], 1)
    np.testing.assert_array_equal(view.masks, masks[1:, 5:15, 15:25])


def test_grey_pictures_need_no_axis_of_channels():
    grey = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    preprocessing = Preprocessing(crop=4, mean=(0.5,), std=(0.5,))
    flat, whole = views(source_of([grey, grey[..., None]]), preprocessing=preprocessing)
    np.testing.assert_array_equal(flat.image, grey[1:5, 2:6, None])
    np.testing.assert_array_equal(flat.image, whole.image)


# Folders and annotations


def test_a_folder(tmp_path):
    for name in ("b.png", "a/z.JPG", "a.webp", "B.gif", "a/y.bmp", "c.jpeg"):
        picture(tmp_path / name, (10, 20, 30))
    picture(tmp_path / ".hidden.png", (0, 0, 0))
    picture(tmp_path / ".checkpoints" / "b.png", (0, 0, 0))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "loop").symlink_to(tmp_path)
    source = source_of(str(tmp_path))
    found = views(source)
    assert [view.name for view in found] == ["B.gif", "a.webp", "a/y.bmp", "a/z.JPG", "b.png", "c.jpeg"]
    assert [view.label for view in found] == [-1] * 6
    np.testing.assert_array_equal(found[4].image, read_image(tmp_path / "b.png"))
    assert source.length == source.description["number"] == 6
    assert [view.index for view in views(source, [5, 0, 3])] == [5, 0, 3]
    json.dumps(source.description)


def test_no_images_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no images in the folder"):
        source_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        source_of(tmp_path / "none")
    with pytest.raises(ValueError, match="is a file; give its folder"):
        source_of(picture(tmp_path / "a.png", 0))


def test_damaged_images_do_not_stop_the_others(tmp_path):
    good = picture(tmp_path / "a.png", (200, 100, 50))
    data = good.read_bytes()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3)).astype(np.uint8))
    noise.save(tmp_path / "b.jpg")
    (tmp_path / "c_truncated.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:900])
    (tmp_path / "d_empty.png").write_bytes(b"")
    (tmp_path / "e_text.png").write_text("hello")
    (tmp_path / "f_damaged.png").write_bytes(data[:40] + b"\0\1\2\3" + data[44:])
    (tmp_path / "g_folder.png").mkdir()
    (tmp_path / "h_link.png").symlink_to(tmp_path / "nowhere.png")
    picture(tmp_path / "i_small.png", 0, size=(3, 3))
    found = views(source_of(tmp_path), preprocessing=Preprocessing(crop=5))
    errors = {view.name: view.error for view in found}
    assert [name for name, error in errors.items() if error is None] == ["a.png", "b.jpg"]
    assert "truncated" in errors["c_truncated.jpg"]
    assert "empty" in errors["d_empty.png"]
    assert "not a JPEG" in errors["e_text.png"]
    assert "damaged" in errors["f_damaged.png"]
    assert "does not exist" in errors["h_link.png"]
    assert "crop must fit" in errors["i_small.png"]
    assert all(view.image is None for view in found if view.error)
    assert not any("\n" in error for error in errors.values() if error)


def test_annotations_of_a_folder(tmp_path):
    images = tmp_path / "images"
    for name in ("val/a.png", "val/b.png", "other/c.png"):
        picture(images / name, (1, 2, 3))
    entries = [
        {"file": "val/b.png", "label": "dog", "boxes": [[0, 0, 2, 3], [4, 4, 8, 6]], "width": 8, "height": 6},
        {"file": "val/gone.png", "label": "cat"},
        {"file": "val/a.png", "label": "cat", "width": 6, "height": 8},
        {"file": "val/b.png", "label": "bird", "boxes": [[1, 1, 2, 2]]},
    ]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(entries))
    for folder in (images, images / "val"):
        source = source_of(folder, annotations=path, class_names=("cat", "dog"))
        found = views(source)
        assert [view.name.removeprefix("val/") for view in found] == ["b.png", "gone.png", "a.png", "b.png #2"]
        assert [view.label for view in found] == [1, 0, 0, -1]
        assert found[0].boxes.tolist() == [[0, 0, 2, 3], [4, 4, 8, 6]]
        assert found[0].box_classes.tolist() == [1, 1]
        assert "no such image file" in found[1].error
        assert "entry 1" in found[1].error
        assert "6 wide and 8 high" in found[2].error
        assert "8 wide and 6 high" in found[2].error
        assert "EXIF" in found[2].error
        assert found[3].error is None
        assert source.description["num_files_missing"] == 1
        assert source.description["num_files_without_annotation"] == (1 if folder == images else 0)
        assert source.description["unknown_class_names"] == {"bird": 1}
        json.dumps(source.description)
    # A list of paths is matched in the same way; what is not in it was not asked for.
    source = source_of([images / "val" / "b.png"], annotations=path, class_names=("cat", "dog"))
    assert [(view.index, view.label) for view in views(source)] == [(0, 1), (1, -1)]
    with pytest.raises(ValueError, match="none of the files"):
        source_of(images / "other", annotations=path, class_names=("cat", "dog"))
    with pytest.raises(ValueError, match="data set must be a folder or a list of paths"):
        source_of([GREY], annotations=path)
    with pytest.raises(ValueError, match="without annotations"):
        source_of(images, classes={"a": 1})


def test_which_file_an_annotation_means(tmp_path):
    for name in ("a/x.png", "b/x.png", "x.png", "a/y.png", "z.png", "ILSVRC_1.JPEG", "w.png", "w.jpg", "v.png.jpg"):
        picture(tmp_path / name, 0)
    files = files_in(tmp_path)

    def names(*paths):
        return [file and file.name for file in matched(paths, files)]

    assert names("a/x.png", "x.png", "y.png", "ILSVRC_1") == ["a/x.png", "x.png", "a/y.png", "ILSVRC_1.JPEG"]
    assert names(f"{tmp_path.name}/z.png", "./z.png", str(tmp_path / "b/x.png")) == ["z.png", "z.png", "b/x.png"]
    # A wrong folder is no match while other paths fit; where none fits, the base names count.
    assert names("q/z.png", "y.png", "v.png") == [None, "a/y.png", None]
    assert names("q/z.png", "q/y.png") == ["z.png", "a/y.png"]
    with pytest.raises(ValueError, match=r"may be any of 'w.jpg', 'w.png'"):
        names("w")
    with pytest.raises(ValueError, match="may be any of"):
        matched(["x.png"], files_of([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]))


def test_masks_from_coco(tmp_path):
    picture(tmp_path / "a.png", (1, 2, 3), size=(40, 20))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]},
            {"image_id": 1, "category_id": 3, "bbox": [16, 4, 4, 4], "segmentation": [[16, 4, 20, 4, 20, 8, 16, 8]]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    source = source_of(tmp_path, annotations=tmp_path / "coco.json", class_names=["cat", "dog"])
    (view,) = views(source, preprocessing=Preprocessing(resize=10, crop=10))
    assert (view.label, view.num_boxes_lost, view.boxes.tolist()) == (1, 1, [[3, 2, 5, 4]])
    expected = np.zeros((1, 10, 10), bool)
    expected[0, 2:4, 3:5] = True
    np.testing.assert_array_equal(view.masks, expected)


def test_the_photographs_with_their_boxes(data):
    images = data / "images"
    for folder in (images, images / "imagenet_val"):
        source = source_of(folder, annotations=images / "imagenet_val.json")
        found = views(source, range(0, 300, 30), preprocessing=Preprocessing(resize=256, crop=224))
        assert source.length == 300
        assert source.description["num_files_missing"] == 0
        assert all(view.error is None and view.image.shape == (224, 224, 3) for view in found)
    # 500 x 375 becomes 341 x 256, less 58 columns (58.5, rounded to even) and 16 rows.
    entry = json.loads((images / "imagenet_val.json").read_text())[0]
    x0, y0, x1, y1 = entry["boxes"][0]
    expected = [x0 * 341 / 500 - 58, y0 * 256 / 375 - 16, min(224, x1 * 341 / 500 - 58), y1 * 256 / 375 - 16]
    np.testing.assert_allclose(found[0].boxes, [expected], rtol=1e-6)
    assert found[0].label == entry["imagenet_index"]
    boxes = source_of(images, annotations=images / "boxes.json")
    assert boxes.description["num_files_missing"] == 0
    assert boxes.length == 51


# Sequences and iterables


def test_a_list_of_everything(tmp_path):
    path = picture(tmp_path / "a.png", (51, 102, 204))
    source = source_of([GREY, (GREY, 3), str(path), (path, np.int64(4)), Example(path, label=5, name="mine")])
    found = views(source)
    assert [view.name for view in found] == ["image 0", "image 1", str(path), str(path), "mine"]
    assert [view.label for view in found] == [-1, 3, -1, 4, 5]
    np.testing.assert_array_equal(found[1].image, GREY)
    np.testing.assert_array_equal(found[4].image[0, 0], np.array([0.2, 0.4, 0.8], np.float32))
    assert [view.index for view in views(source, [3, 1])] == [3, 1]
    with pytest.raises(ValueError, match="there is no item 5"):
        views(source, [5])
    with pytest.raises(ValueError, match="there is no item -1"):
        views(source, [-1])


BOX = [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((GREY * 255).astype(np.uint8), "pass image / 255"),
        (GREY * 255, "divide by 255"),
        (GREY[:, :, 0], r"shape \[H, W, 3\]"),
        (GREY * np.float32(np.nan), "finite"),
        (None, "floating-point array"),
        (Image.new("RGB", (4, 4)), "convert a Pillow image"),
        ("/nowhere/x.png", "does not exist"),
        ((GREY, 1, 2), "jaxcam.Example"),
        ((GREY, "dog"), "class index"),
        ((GREY, 1.0), "class index"),
        ((GREY, True), "class index"),
        ((GREY, -2), "from 0"),
        ((GREY, 10), "10, the number of the model's classes"),
        (Example(GREY, boxes=[[0, 0, 1]]), r"\[m, 4\]"),
        (Example(GREY, boxes=[[0, 0, np.nan, 1]]), "finite"),
        (Example(GREY, boxes=[[3, 0, 1, 1]]), "x0 <= x1"),
        (Example(GREY, boxes=BOX, box_classes=[1, 2]), r"box_classes must have shape \[1\]"),
        (Example(GREY, boxes=BOX, box_classes=[10]), "box_classes"),
        (Example(GREY, box_classes=[1]), "both are None"),
        (Example(GREY, boxes=BOX, masks=np.ones((1, 6, 8))), "must be bool"),
        (Example(GREY, boxes=BOX, masks=np.ones((2, 6, 8), bool)), r"\[1, H, W\]"),
        (Example(GREY, boxes=BOX, masks=np.ones((1, 8, 6), bool)), r"as large as the picture, \[6, 8\]"),
        (Example(GREY, name=3), "name must be a str"),
    ],
)
def test_a_bad_item_says_why_and_stops_nothing(item, message):
    for dataset in ([GREY, item, GREY], iter([GREY, item, GREY])):
        found = views(source_of(dataset, class_names=["a"] * 10), range(3))
        assert [view.error is None for view in found] == [True, False, True]
        assert found[1].image is None
        with pytest.raises(ValueError, match=message):
            raise ValueError(found[1].error)
        assert "\n" not in found[1].error


def test_an_item_that_cannot_be_had_is_bad():
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise KeyError("no such row")
            return GREY

    found = views(source_of(Broken()))
    assert [view.error for view in found] == [None, "the data set gives no item: KeyError: 'no such row'", None]


def test_arrays_are_sequences_of_pictures():
    stack = np.linspace(0, 1, 4 * 6 * 8 * 3, dtype=np.float32).reshape(4, 6, 8, 3)
    for dataset in (stack, jax.numpy.asarray(stack)):
        np.testing.assert_array_equal([view.image for view in views(source_of(dataset))], stack)


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (GREY, ValueError, r"put one picture into a list, \[picture\], and give grey ones their axis"),
        ([], ValueError, "is empty"),
        ({"a": GREY}, TypeError, "no order"),
        ({"a", "b"}, TypeError, "no order"),
        (b"folder", TypeError, "no order"),
        (Example(GREY), TypeError, r"\[example\]"),
        (3, TypeError, "got int"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_what_is_no_data_set(dataset, error, message):
    with pytest.raises(error, match=message):
        source_of(dataset)


def test_arguments_of_views(unchecked):
    source = source_of([GREY])
    with pytest.raises(TypeError, match="preprocessing"):
        source.views([0], preprocessing=None)
    for name in ("num_workers", "prefetch"):
        with pytest.raises(TypeError, match=name):
            source.views([0], preprocessing=PLAIN, **{name: 1.5})
        with pytest.raises(ValueError, match=name):
            source.views([0], preprocessing=PLAIN, **{name: -1})


def test_iterables_are_read_once_in_order_and_only_as_far_as_needed():
    drawn = []

    def pictures(num):
        for i in range(num):
            drawn.append(i)
            yield np.full((2, 2, 3), i / 100, np.float32), i

    source = source_of(pictures(20))
    assert source.length is None
    assert source.description["fingerprint"] is None
    # Pictures in memory are not taken ahead of their turn.
    with closing(source.views([2, 5, 6], preprocessing=PLAIN, num_workers=2)) as found:
        assert (next(found).label, drawn) == (2, [0, 1, 2])
        assert [(view.index, view.label) for view in found] == [(5, 5), (6, 6)]
    assert drawn == list(range(7))
    # A generator goes on where it was left; what has gone by is gone.
    assert [view.label for view in views(source, [9, 10])] == [9, 10]
    with pytest.raises(ValueError, match="has gone by"):
        views(source, [3])
    assert [view.label for view in views(source, range(15, 30))] == [15, 16, 17, 18, 19]

    class Again:
        def __iter__(self):
            return pictures(4)

    source = source_of(Again())
    assert [view.label for view in views(source, [1, 3])] == [1, 3]
    assert [view.label for view in views(source, [0, 1])] == [0, 1]
    with pytest.raises(ValueError, match="has gone by"):
        views(source, [2, 2])


def test_fingerprints_tell_names_and_truth_apart(tmp_path):
    box = [[0, 0, 1, 1]]
    mask = np.zeros((1, 6, 8), bool)
    other = mask.copy()
    other[0, 0, 0] = True
    different = [
        [Example(GREY, label=1, boxes=box, masks=mask)],
        [Example(GREY, label=1, boxes=box, masks=other)],
        [Example(GREY, label=1, boxes=box)],
        [Example(GREY, label=1)],
        [Example(GREY, label=2)],
        [Example(GREY, label=2, name="b")],
        [Example(GREY, label=2, name="b")] * 2,
        scenes.Dataset(5),
        scenes.Dataset(5, seed=1),
        scenes.Dataset(6)[:5],
        np.zeros((1, 2, 2, 3), np.float32),
        np.zeros((2, 2, 2, 3), np.float32),
    ]
    prints = [source_of(dataset).description["fingerprint"] for dataset in different]
    assert len(set(prints)) == len(different)
    assert prints == [source_of(dataset).description["fingerprint"] for dataset in different]


def test_truth_keeps_labels_and_boxes():
    truth = truth_of(Example(GREY, label=2, boxes=np.zeros((0, 4))), num_classes=3)
    assert (truth.label, truth.boxes.shape, truth.box_classes.shape) == (2, (0, 4), (0,))
    truth = truth_of(Example(GREY, label=2, boxes=[[0, 1, 2, 3], [4, 5, 6, 7]]), num_classes=3)
    assert truth.box_classes.tolist() == [2, 2]
