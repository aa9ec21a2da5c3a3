"""What a network looks at in anybody's photograph, as a page to upload it to.

pip install '.[photographs]' gradio && python notebooks/demo/gradio_demo.py
"""

from importlib.resources import files

import gradio

import jaxcam

MODEL = jaxcam.models.efficientnet_lite0("imagenet")
METHODS = ["grad_cam", "grad_cam_pp", "layer_cam", "hires_cam"]


def maps(file, method):
    """The maps of the three likeliest classes over the photograph, with confidence and status."""
    picture = MODEL.preprocessing.view(jaxcam.read_image(file))[None]
    return jaxcam.explain(MODEL, MODEL.preprocessing.normalise(picture), method=method, top=3).over(picture)


demo = gradio.Interface(
    maps,
    [gradio.Image(type="filepath", label="photograph"), gradio.Dropdown(METHODS, label="method")],
    gradio.Image(format="png", show_label=False),
    flagging_mode="never",
    examples=[[str(files("skimage") / "data" / name), METHODS[0]] for name in ("chelsea.png", "coffee.png")],
)
if __name__ == "__main__":
    demo.launch(show_error=True)
