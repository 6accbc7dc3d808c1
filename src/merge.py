"""make merge: the parts that SHARD=1/4, 2/4, ... predicted -> one prediction folder, checked to be whole.

The parts lie side by side in output/<dataset>/predictions/ (<name>.shard1of4, ...), copied there from wherever they
were made. They stay; the maps are linked, which takes no room.
"""

import sys

import settings as settings_module
import shards
from errors import command
from inference import picture_of, prediction_folder, same_words

FLAGS = {
    "FOLD": "which prediction: as given to make inference",
    "NAME": "name of the prediction folder, where one was given",
}


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    folder = prediction_folder(settings, flags.FOLD, flags.NAME)
    count, images = shards.join(folder)
    picture_of(folder).unlink(missing_ok=True)  # of what was there before
    print(f"{count} parts with {images} images, each once -> {folder}")
    print(f"Next: make submission {same_words(argv, flags)}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
