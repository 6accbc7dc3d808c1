"""make onnx: one ONNX file of a fold's network, or of the mean of several, checked against torch on real images.

Writes output/<dataset>/onnx/<experiment>_fold<k>_seed<s>.onnx and, beside it, ..._example.py: a few lines that use it
with numpy, Pillow and onnxruntime alone. Without FOLD: the mean of every finished fold.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import settings as settings_module
from data import dataspec
from prediction import chosen_rule, inference_job, prediction_folders
from shipping import onnx_check
from shipping.onnx_check import Agreement, compare, load_session, metadata_of, real_images, refuse_disagreement
from shipping.smp_form import CHECKED, refuse_foreign, save
from tools import console, run_folders
from tools.errors import UserError, command
from tools.files import atomic_write, write_text
from tools.flags import is_on, run_action

if TYPE_CHECKING:
    from shipping.onnx_file import Way

FLAGS = {"FOLD": "0, or 0,1,2, or full; without it every finished fold"}
HUB_FLAGS = {"FOLD": "0, 1, ... or full", "OVERWRITE": "1: replace the folder that is there, its README.md too"}


@command
def onnx(argv: list[str]) -> None:
    """Do what the module's docstring says."""
    settings, flags = settings_module.command_line(argv, __doc__, FLAGS)
    folds = inference_job.chosen_folds(settings, flags.FOLD)
    folders = [run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, fold, settings.SEED) for fold in folds]
    data = run_folders.read_model(folders[0])["data"]
    paths = real_images(settings, dataspec.from_json(data, str(folders[0] / run_folders.MODEL)))
    from shipping import onnx_example, onnx_file

    onnx_file.packages()
    predictor = load_session(settings, folders)
    from prediction.shipped_model import describe

    spec, makers, about = predictor.spec, describe(predictor.models), predictor.about()
    rules = chosen_rule.chosen(settings, spec, prediction_folders.provenance(makers, about))
    name = f"{settings.EXPERIMENT}_fold{'-'.join(folds)}_seed{settings.SEED}"
    path = Path(settings.OUTPUT, "onnx", f"{name}.onnx")
    of = str(folders[0]) if len(folders) == 1 else f"the mean of {len(folders)} models"
    print(f"Writing {of} as ONNX, and asking onnxruntime and torch the same", flush=True)
    with atomic_write(path) as temporary:
        first = spec.read_image(paths[0], settings.MAX_PIXELS)
        way = onnx_file.write(temporary, predictor.models, first)
        onnx_file.describe(temporary, metadata_of(spec, rules, about, makers, way))
        agreement = compare(onnx_file.open_session(temporary), predictor, paths, rules, settings.MAX_PIXELS)
        refuse_disagreement(agreement, onnx_file.TOLERANCE)
    model = predictor.models[0]
    size = first.shape[:2] if model.resize == "none" else model.size
    example = path.with_name(f"{name}_example.py")
    source = onnx_example.text(path.name, spec, rules, size=size, resize=model.resize, any_size=way.any_size)
    write_text(example, source)
    _report(path, example, paths, agreement, way, size)


def _report(
    path: Path, example: Path, paths: list[Path], agreement: Agreement, way: "Way", size: tuple[int, ...]
) -> None:
    sizes = "images of any size" if way.any_size else f"images of {size[0]} x {size[1]} px only"
    print(
        f"{len(paths)} images such as {paths[0]}, onnxruntime against torch: {agreement}\n"
        f"Batches of any number, {sizes}{'' if way.any_size else ' (this architecture was not proven at others)'}\n"
        f"{path.stat().st_size / 1e6:.1f} MB -> {path}\n"
        f"How to use it without this repository -> {example}"
    )
    if "{z}" not in paths[0].name:
        print(f"Next: python {console.quoted(str(example))} {console.quoted(str(paths[0]))} mask.png")


@command
def hub(argv: list[str]) -> None:
    """make hub FOLD=0: a fold's network in smp's own form, with a model card that carries its honest scores.

    Writes output/<dataset>/hub/<experiment>_fold<k>_seed<s>/: config.json and model.safetensors (smp.from_pretrained),
    albumentations_config_eval.json (the images' preparation), README.md. It is loaded back and compared first.
    """
    settings, flags = settings_module.command_line(argv, hub.__doc__, HUB_FLAGS)
    if not flags.FOLD:
        raise UserError("Which fold? make hub FOLD=0 (or full); make onnx writes the mean of several in one file.")
    run = run_folders.finished_run(settings.LOGS, settings.EXPERIMENT, flags.FOLD, settings.SEED)
    about = run_folders.read_model(run)
    name = str(about["network"].get("MODEL_NAME"))
    if not name.startswith("smp_"):
        raise UserError(f"{run} has a {name}, which smp cannot save; make onnx FOLD={flags.FOLD} writes any network.")
    folder = Path(settings.OUTPUT, "hub", run.parent.name + "_" + run.name)
    refuse_foreign(folder, is_on(flags.OVERWRITE))
    from shipping import model_card

    evidence = model_card.gather(run, about)
    spec = dataspec.from_json(about["data"], str(run / run_folders.MODEL))
    paths = onnx_check.real_images(settings, spec, CHECKED)
    from prediction import shipped_model

    model = shipped_model.load(run)
    pictures = [spec.read_image(path, settings.MAX_PIXELS) for path in paths]
    frames = [spec.read_frames(path, [(model.size, model.resize)], settings.MAX_PIXELS)[1][0] for path in paths]
    off = save(folder, model, pictures, frames, evidence)
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    print(model_card.scores(evidence, about))
    print(
        f"\nLoaded back by smp, and compared on {len(paths)} images such as {paths[0]}: logits within {off:.1e} of the "
        f"largest\n{megabytes:.1f} MB, with the scores above in its README.md -> {folder}\n"
        f"Next: read {folder / 'README.md'} and give it a license; then hf upload <you>/{folder.name} {folder}"
    )


def main(argv: list[str] | None = None) -> int:
    return run_action(argv, onnx, hub=hub)


if __name__ == "__main__":
    sys.exit(main())
