"""make weights: pack the ImageNet weights of MODEL_NAME's encoder into WEIGHTS, to work offline and on Kaggle."""

import sys

import settings as settings_module
from errors import UserError, command


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    import model_dispatcher
    from callbacks import save_network

    _, encoder = model_dispatcher.parse(settings.MODEL_NAME)
    if not encoder:
        raise UserError(
            f"MODEL_NAME={settings.MODEL_NAME} has no ImageNet weights to pack; smp_... and unetify_... have."
        )
    path = model_dispatcher.packed_weights(encoder, settings.WEIGHTS)
    if path.is_file():
        print(f"{path} is there already.")
        return
    network = model_dispatcher.build(settings.MODEL_NAME, encoder_weights="imagenet", weights_folder=settings.WEIGHTS)
    save_network(network.body.encoder, path)
    megabytes = path.stat().st_size / 1e6
    print(
        f"ImageNet weights of {encoder}, {megabytes:.0f} MB -> {path}\n"
        "ENCODER_WEIGHTS=imagenet uses this file from now on, without a network."
    )


if __name__ == "__main__":
    sys.exit(main())
