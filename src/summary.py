"""make summary: the network's parts with their parameters, and its multiply-adds at IMAGE_SIZE."""

import sys
from pathlib import Path

import settings as settings_module
from dataspec import DataSpec
from errors import command


@command
def main(argv: list[str] | None = None) -> None:
    settings, _ = settings_module.command_line(argv, __doc__, {})
    import torch
    from pytorch_lightning.utilities.model_summary import ModelSummary
    from torch.utils.flop_counter import FlopCounterMode

    from assembly import build_network, data_spec
    from lightning_module import SegmentationModule
    from losses import Loss

    there = Path(settings.TRAIN_FOLDS).with_suffix(".json").is_file()
    spec = data_spec(settings) if there else DataSpec()  # before make folds: RGB, one class
    network = build_network(settings, spec, encoder_weights="none").eval()
    module = SegmentationModule(network, Loss(settings.LOSS, spec.task, spec.scored, len(spec.classes)), lr=settings.LR)
    print(ModelSummary(module, max_depth=4))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, spec.channels, *settings.IMAGE_SIZE))
    operations = counter.get_total_flops() / 2  # the counter says two operations a multiply-add
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    height, width = settings.IMAGE_SIZE
    print(
        f"{settings.MODEL_NAME}: {millions:.2f} M parameters, {operations / 1e9:.2f} G multiply-adds "
        f"for one image of {height} x {width} px"
    )


if __name__ == "__main__":
    sys.exit(main())
