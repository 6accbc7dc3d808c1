"""make onnx: what the file computes, its example without this repository, and what is refused and leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import export
import model_dispatcher
from conftest import TINY
from data.dataspec import DataSpec
from modeling import segmenter
from prediction import postprocess, predictor, shipped_model
from prediction.postprocess import Rule
from shipping import onnx_check, onnx_file
from tools import run_folders
from tools.files import sha256, write_json

RUN, FOLDER = Path("lightning_logs/demo/fold0_seed42"), Path("output/demo/onnx")
FILE, EXAMPLE = FOLDER / "demo_fold0_seed42.onnx", FOLDER / "demo_fold0_seed42_example.py"


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_images():
    return sorted(Path("input/demo/test_hq").iterdir())


test_images.__test__ = False


def by_torch(folders, paths):
    """The probabilities (C, H, W) that make inference would write, and the frames that the networks saw."""
    models = [shipped_model.load(folder) for folder in folders]
    asked = predictor.Predictor(models)
    frames = [asked.spec.read_frames(path, asked.frames)[1][0] for path in paths]
    return np.stack(frames), [probabilities for _, probabilities in asked.predict(paths)]


def ship(folder: Path, spec: DataSpec, name="smp_linknet_tu-test_resnet", size=(32, 64), resize="stretch"):
    """A run folder whose network has random weights, and norms that fit what it sees."""
    torch.manual_seed(1)
    mean, std = (0.4,) * spec.channels, (0.2,) * spec.channels
    counts = {"classes": len(spec.classes), "channels": spec.channels}
    network = model_dispatcher.build(name, **counts, normalization=segmenter.Normalization(mean, std))
    with torch.no_grad():
        for _ in range(20):
            network.train()(torch.rand(4, spec.channels, *size))
    folder.mkdir(parents=True)
    segmenter.save_network(network, folder / run_folders.WEIGHTS)
    sizes = {"IMAGE_SIZE": size, "RESIZE": resize, "MODEL_MEAN": mean, "MODEL_STD": std}
    sha = sha256(folder / run_folders.WEIGHTS)
    about = {"experiment": "demo", "fold": "0", "seed": 42, "weights": "last epoch", "weights_sha256": sha}
    about |= {"folds_sha256": "x", "data": spec.as_json(), "network": {"MODEL_NAME": name, **sizes}}
    write_json(folder / run_folders.MODEL, about)


def write_tests(spec: DataSpec, count=2, size=(50, 90)):
    """Test images with coarse structure and noise, as files of that spec."""
    folder, random = Path("input/demo/test"), np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        for part in range(spec.channels if spec.stacked else 1):
            coarse = random.integers(0, 256, (5, 9, 3)).astype(np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
            noise = random.integers(-60, 61, (*size, 1))
            picture = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
            name = f"p{number}_{part}.png" if spec.stacked else f"p{number}.png"
            if spec.bits == 16:
                Image.fromarray(np.asarray(picture)[..., 0].astype(np.uint16) * 200).save(folder / name)
            else:
                (picture.convert("L") if spec.stacked or spec.channels == 1 else picture).save(folder / name)


def run_example(example: Path, paths: list[Path], out: Path) -> None:
    """In a process of its own that knows nothing of src/."""
    arguments = [str(path.resolve()) for path in (example, *paths, out)]
    done = subprocess.run(
        [sys.executable, "-I", *arguments], cwd=out.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_file_computes_the_networks_for_batches_and_sizes_of_any_number(trained, capsys):
    assert export.main([*TINY, "FOLD=0"]) == 0
    said = capsys.readouterr().out
    assert "all masks equal" in said and "images of any size" in said
    frames, _ = by_torch([RUN], test_images()[:3])
    session, network = session_of(FILE), shipped_model.load(RUN).network
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    for batch in (frames[:1], frames, frames[:, :, :31], np.tile(frames, (1, 3, 2, 1))[:, :77]):
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255).sigmoid().numpy()
        found = session.run(None, {"images": batch})[0]
        assert found.shape == expected.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-6)
    about, facts = json.loads((RUN / "model.json").read_text()), session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["foreground"] and facts["task"] == "binary"
    assert json.loads(facts["size"]) == [32, 64] and facts["resize"] == "stretch"
    assert json.loads(facts["rules"])[0]["threshold"] == 0.5
    assert json.loads(facts["models"])[0]["weights_sha256"] == about["weights_sha256"]
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([FILE.name, EXAMPLE.name])


def test_without_a_fold_the_file_is_the_mean_of_all(trained):
    assert export.main(TINY) == 0
    folders = [RUN, RUN.with_name("fold1_seed42")]
    frames, _ = by_torch(folders[:1], test_images()[:2])
    found = session_of(FOLDER / "demo_fold0-1_seed42.onnx").run(None, {"images": frames})[0]
    alone = [onnx_file.by_torch([shipped_model.load(folder)], frames) for folder in folders]
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=2e-6)
    assert abs(found - alone[0]).max() > 0.01


def test_the_example_makes_the_same_mask_without_this_repository(trained):
    big = Path("input/demo/test_hq/big.png")
    Image.open(test_images()[1]).resize((333, 170)).save(big)
    assert export.main([*TINY, "FOLD=0"]) == 0
    _, (probabilities,) = by_torch([RUN], [big])
    run_example(EXAMPLE, [big], Path("mask.png").resolve())
    mask, expected = np.asarray(Image.open("mask.png")) > 0, probabilities[0] >= 0.5
    assert mask.shape == expected.shape == (170, 333) and 0.02 < expected.mean() < 0.98
    assert (mask != expected).mean() < 5e-3  # bytes of a resized image may be one apart


@pytest.mark.parametrize(("kind", "resize", "orientation"), [("classes", "fit", 6), ("gray", "stretch", 1)])
def test_a_large_jpeg_is_halved_by_its_decoder_in_the_example_too(workplace, kind, resize, orientation):
    ship(RUN, SPECS[kind], resize=resize)
    folder, random = Path("input/demo/test"), np.random.default_rng(5)
    folder.mkdir(parents=True)
    coarse = Image.fromarray(random.integers(0, 256, (20, 36, 3)).astype(np.uint8)).resize((512, 256))
    noisy = np.asarray(coarse) * 0.6 + random.integers(0, 100, (256, 512, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(noisy.astype(np.uint8))
    (picture.convert("L") if kind == "gray" else picture).save(folder / "p.jpg", quality=90, exif=exif)
    _, (probabilities,) = by_torch([RUN], [folder / "p.jpg"])
    threshold = round(float(np.median(probabilities)), 2)
    assert export.main([*TINY, "FOLD=0", f"THRESHOLD={threshold}"]) == 0
    run_example(EXAMPLE, [folder / "p.jpg"], Path("mask.png").resolve())
    mask, p8 = np.asarray(Image.open("mask.png")), postprocess.to_p8(probabilities)
    expected = p8.argmax(0) if kind == "classes" else (p8[0] >= postprocess.level(threshold)) * 255
    assert mask.shape == ((512, 256) if orientation == 6 else (256, 512)) and 0.01 < (expected > 0).mean() < 0.99
    assert (mask != expected).mean() < 5e-4  # whole blocks, so that no byte differs


SPECS = {
    "classes": DataSpec("multiclass", ("background", "red", "blue"), mean=(0.4,) * 3, std=(0.2,) * 3),
    "stack": DataSpec("multilabel", ("left lung", "heart"), channels=2, stacked=True, mean=(0.4,) * 2, std=(0.2,) * 2),
    "16 bits": DataSpec(channels=1, bits=16, window=(1000.0, 45000.0), mean=(0.4,), std=(0.2,)),
    "gray": DataSpec(channels=1, mean=(0.4,), std=(0.2,)),
}


@pytest.mark.parametrize(
    ("kind", "resize"), [("classes", "fit"), ("stack", "none"), ("16 bits", "stretch"), ("gray", "fit")]
)
def test_other_tasks_channels_and_frames_are_read_and_cut_by_the_example_too(workplace, kind, resize):
    spec = SPECS[kind]
    ship(RUN, spec, resize=resize)
    write_tests(spec, size=(90, 130) if spec.channels > 1 else (20, 30))  # shrunk to the frame, and enlarged
    stacks = [Path("input/demo/test/p0_{z}.png")] if spec.stacked else [Path("input/demo/test/p0.png")]
    files = [Path(f"input/demo/test/p0_{part}.png") for part in range(2)] if spec.stacked else stacks
    _, (probabilities,) = by_torch([RUN], stacks)
    threshold = round(float(np.median(probabilities)), 2)  # the network has learned nothing: cut where it differs
    assert export.main([*TINY, "FOLD=0", f"THRESHOLD={threshold}"]) == 0
    rules = (Rule(threshold=threshold),) * len(spec.scored)
    expected = postprocess.to_masks(postprocess.to_p8(probabilities), spec.task, spec.scored, rules)
    run_example(EXAMPLE, files, Path("mask.png").resolve())
    if spec.task == "multiclass":
        masks = [np.asarray(Image.open("mask.png")) == index for index in spec.scored]
    elif spec.task == "multilabel":
        masks = [np.asarray(Image.open(f"mask_{name}.png")) > 0 for name in ("left_lung", "heart")]
    else:
        masks = [np.asarray(Image.open("mask.png")) > 0]
    assert 0.01 < expected.mean() < 0.99
    assert (np.stack(masks) != expected).mean() < 5e-3  # a byte of a resized image may be one apart


def test_padding_that_was_decided_in_python_is_found_out(trained, monkeypatch, capsys):
    """As of an architecture that is wrong, or fails, at other sizes than the traced one: the file has one size."""
    monkeypatch.setattr(onnx_file, "_padded", lambda network, x: network(x))  # what the traced size needs, for all
    assert export.main([*TINY, "FOLD=0"]) == 0
    said = capsys.readouterr().out
    assert "not by any size" in said and "images of 32 x 64 px only" in said and "all masks equal" in said
    assert session_of(FILE).get_inputs()[0].shape == ["batch", 32, 64, 3]


def test_a_file_that_answers_otherwise_on_real_images_is_refused_and_not_left(trained, monkeypatch, refused):
    describe = onnx_file.describe

    def damage(path, values):
        describe(path, values)
        model = onnx.load(str(path))
        weight = next(part for part in model.graph.initializer if part.name.endswith("head.weight"))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.05)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(onnx_file, "describe", damage)
    refused(export.main, [*TINY, "FOLD=0"], "does not answer as torch does", "Nothing was written")
    assert list(FOLDER.iterdir()) == []


def test_masks_are_compared_where_the_threshold_is_far():
    """One pixel on the threshold is a rounding; one that is far from it is not."""
    probabilities = np.array([[[0.5, 0.9], [0.50004, 0.1]]], np.float32)
    near = onnx_check._near_cut(probabilities, DataSpec(), (Rule(),), 1e-4)
    np.testing.assert_array_equal(near, [[[True, False], [True, False]]])
    spec = DataSpec("multiclass", ("background", "a"))
    near = onnx_check._near_cut(np.array([[[0.5, 0.1]], [[0.502, 0.9]]]), spec, (Rule(),), 1e-4)
    np.testing.assert_array_equal(near, [[[True, False]]])


def test_the_rule_that_looks_at_objects_stands_in_the_file_and_is_said_to_be_missing_in_the_example(trained):
    assert export.main([*TINY, "FOLD=0", "MIN_AREA=30", "THRESHOLD=0.4"]) == 0
    rule = json.loads(session_of(FILE).get_modelmeta().custom_metadata_map["rules"])[0]
    assert rule["min_area"] == 30 and rule["threshold"] == 0.4
    assert "# Not done here: threshold 0.4, objects of 30 px and more." in EXAMPLE.read_text()


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages_are_named_with_what_installs_them(trained, refused, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(export.main, [*TINY, "FOLD=0"], package, "pip install onnx")
    assert not FOLDER.exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["FOLD=0", "TTA=flips"], ["the networks alone", "TTA=none"]),
        (["FOLD=7"], ["no finished model", "make train FOLD=7"]),
        (["FOLD=0", "TEST_PATH=nowhere"], ["no test images"]),
        (["FOLD=0", "POSTPROCESS=tuned"], ["tuned.json", "make tune"]),
    ],
)
def test_what_no_file_can_be_made_of_is_refused(trained, refused, extra, words):
    refused(export.main, [*TINY, *extra], *words)
    assert not FOLDER.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "any_size"),
    [
        ("unet", True),
        ("smp_unet_resnet18", True),
        ("smp_fpn_resnet18", True),
        ("smp_unet_efficientnet-b0", True),
        ("smp_segformer_mit_b0", True),
        ("unetify_convnext_atto", True),
        ("unetify_swin_tiny_patch4_window7_224", False),
        ("smp_upernet_tu-test_resnet", False),  # by torch's second exporter
        ("smp_pspnet_resnet18", False),
    ],
)
def test_many_architectures_are_written(workplace, name, any_size):
    spec = DataSpec(mean=(0.4,) * 3, std=(0.2,) * 3)
    ship(RUN, spec, name, size=(64, 96))
    write_tests(spec)
    assert export.main([*TINY, "FOLD=0"]) == 0
    assert session_of(FILE).get_inputs()[0].shape[1:3] == (["height", "width"] if any_size else [64, 96])
