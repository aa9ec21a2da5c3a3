"""Class names: ImageNet, CIFAR-10, or numbers."""

from importlib.resources import files

IMAGENET: tuple[str, ...] = tuple(
    (files("jaxcam") / "data" / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def class_names(num_classes: int, *, of: tuple[str, ...] = IMAGENET) -> tuple[str, ...]:
    """The names of a data set where there are as many classes, else "class 0", "class 1" ..."""
    return of if num_classes == len(of) else tuple(f"class {i}" for i in range(num_classes))
