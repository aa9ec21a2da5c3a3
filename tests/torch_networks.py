"""Networks of torch with random parameters, for the tests that compare with them."""

import numpy as np
import safetensors.numpy


def randomised(create):
    """torch's network; no parameter or statistic keeps its initial value, where a mix-up would go unseen.

    Scales of batch norm up to 1.5 would make the deepest networks amplify rounding errors ten thousand times, and two
    right implementations disagree.
    """
    import torch

    torch.manual_seed(1)
    network = create()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.2)
                module.bias.normal_(0, 0.2)
            elif isinstance(module, torch.nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
            elif getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.05)
        for name, parameter in network.named_parameters():
            if name.endswith((".gamma", ".layer_scale")):
                parameter.uniform_(0.2, 1.0)
            elif name.endswith(("_token", "pos_embed", "latent", "bias_table")):
                parameter.normal_(0, 0.5)
    return network.eval()


def saved(network, path):
    safetensors.numpy.save_file({key: value.numpy() for key, value in network.state_dict().items()}, path)
    return path


def assert_close(found, expected, tolerance):
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape) / scale, expected / scale, atol=tolerance)


def resnet18_in_both(torchvision, folder):
    """Ours and torchvision's with the same parameters in float64, and two images as each of them takes them."""
    import torch

    from jaxcam import models

    theirs = randomised(torchvision.models.resnet18)
    ours = models.resnet18(saved(theirs, folder / "w.safetensors"), dtype=np.float64)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3))
    return ours, theirs.double(), images, torch.from_numpy(np.moveaxis(images, -1, 1))
