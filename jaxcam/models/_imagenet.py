"""What the ImageNet networks share: the 1,000 class names."""

from importlib.resources import files

CLASS_NAMES: tuple[str, ...] = tuple(
    (files("jaxcam") / "data" / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
)


def class_names(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names where there are 1,000 classes, else "class 0", "class 1" ..."""
    return CLASS_NAMES if num_classes == len(CLASS_NAMES) else tuple(f"class {i}" for i in range(num_classes))
