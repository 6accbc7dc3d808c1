"""Test-time augmentation: equivariance on a network without any, exact inverses, means, names, and the Predictor."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import model_dispatcher
from data.dataspec import DataSpec
from modeling import segmenter
from prediction import predictor, shipped_model, tta
from tools import run_folders
from tools.errors import UserError
from tools.files import sha256, write_json

TINY_NETWORK = "smp_linknet_tu-test_resnet"
FRAMES = [(8, 8), (6, 10), (7, 12)]
GROUP = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]  # D4, without tta's own words for it


def moved(x, turns, mirrored):
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))


def lopsided(classes=2, seed=0):
    """A network of random kernels, in float64, whose answer depends on where is up."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, 3, padding=1)
    for layer in (layers[0], layers[2]):
        nn.init.normal_(layer.weight)
    return nn.Sequential(*layers).double().requires_grad_(False)


def picture(size, count=2, seed=1):
    return torch.rand(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def disagreement(network, x, move, names, **options):
    """How far the answer to the moved picture is from the moved answer."""
    answer = tta.predict(network, x, "binary", tta.views(names), **options)
    return float((tta.predict(network, move(x), "binary", tta.views(names), **options) - move(answer)).abs().max())


@pytest.mark.parametrize("mean", tta.MEANS)
@pytest.mark.parametrize("size", FRAMES)
def test_d4_makes_any_network_equivariant_to_all_eight(size, mean):
    network, x = lopsided(), picture(size)
    for element in GROUP:
        assert disagreement(network, x, lambda y: moved(y, *element), "d4", mean=mean) < 1e-12, element  # noqa: B023
        if element != (0, False):
            assert disagreement(network, x, lambda y: moved(y, *element), "none") > 0.1, element  # noqa: B023


def test_flips_make_it_equivariant_to_flips_and_to_no_quarter_turn():
    network, x = lopsided(), picture((6, 10))
    for axes in ((-1,), (-2,), (-2, -1)):
        assert disagreement(network, x, lambda y: y.flip(axes), "flips") < 1e-12  # noqa: B023
        assert disagreement(network, x, lambda y: y.flip(axes), "none") > 0.1  # noqa: B023
    assert disagreement(network, x, lambda y: moved(y, 1, False), "flips") > 0.1


def test_d4_with_scales_is_equivariant_too():
    network, x = lopsided(), picture((96, 128), count=1)
    assert disagreement(network, x, lambda y: moved(y, 1, True), "d4+scales") < 1e-12
    assert disagreement(network, x, lambda y: moved(y, 1, True), "scales") > 0.1


@pytest.mark.parametrize(("names", "count"), [("none", 1), ("flips", 4), ("d4", 8), ("scales", 3), ("scales+d4", 24)])
def test_each_name_has_its_number_of_views_all_different(names, count):
    x = picture((96, 160), count=1)
    seen = [view.apply(x) for view in tta.views(names)]
    assert len(seen) == count
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("size", FRAMES)
def test_undo_is_the_exact_inverse_of_each_symmetry(size):
    x = torch.randn(2, 3, *size)
    for view in tta.views("d4"):
        seen = view.apply(x)
        assert seen.shape == (2, 3, *view.size(size))
        assert torch.equal(view.undo(seen, size), x)


def test_the_eight_views_are_the_symmetries_of_the_square():
    x = torch.arange(25.0).view(1, 1, 5, 5)
    ours = {tuple(view.apply(x).flatten().tolist()) for view in tta.views("d4")}
    assert ours == {tuple(moved(x, *element).flatten().tolist()) for element in GROUP}


@pytest.mark.parametrize(
    ("frame", "smaller", "larger"),
    [
        ((96, 160), (64, 128), (128, 192)),
        ((512, 256), (384, 192), (640, 320)),
        ((37, 61), (32, 32), (32, 64)),
        ((9, 100), (32, 64), (32, 128)),
    ],
)
def test_scaled_frames_are_multiples_of_32(frame, smaller, larger):
    assert [view.size(frame) for view in tta.views("scales")] == [smaller, frame, larger]


def test_scales_keep_shapes_and_what_is_constant():
    constant = torch.full((1, 3, 37, 61), 0.3, dtype=torch.float64)
    for view in tta.views("d4+scales"):
        seen = view.apply(constant)
        assert seen.shape[-2:] == view.size((37, 61))
        torch.testing.assert_close(view.undo(seen, (37, 61)), constant)
    answer = tta.predict(lambda x: x, constant, "binary", tta.views("scales"))
    torch.testing.assert_close(answer, constant.sigmoid())


def test_scales_show_the_network_other_sizes_and_keep_a_ramp_where_it_was():
    ramp = torch.linspace(-2, 2, 160).expand(1, 1, 96, 160)
    sizes = []

    def network(x):
        sizes.append(tuple(x.shape[-2:]))
        return x

    answer = tta.predict(network, ramp, "binary", tta.views("scales"))
    assert sizes == [(64, 128), (96, 160), (128, 192)]
    assert (answer - ramp.sigmoid())[..., 8:-8].abs().max() < 4e-4  # half a pixel beside it in one view would be 1e-3


@pytest.mark.parametrize(("scale", "width"), [(0.75, 128), (1.25, 192)])
def test_scaled_pixels_show_what_was_at_their_center(scale, width):
    columns = torch.arange(160.0).expand(1, 1, 96, 160)
    expected = (torch.arange(width) + 0.5) * (160 / width) - 0.5
    seen = tta.View(scale=scale).apply(columns)[0, 0, 0]
    torch.testing.assert_close(seen[2:-2], expected[2:-2], atol=0.05, rtol=0)  # half a pixel off would be 0.5


def test_shrinking_does_not_alias():
    stripes = (torch.arange(160) % 2).float().expand(1, 1, 96, 160)
    seen = tta.View(scale=0.75).apply(stripes)
    assert (seen - 0.5)[..., 2:-2].abs().max() < 0.25  # picked pixels would be as black and white as the stripes


def test_views_that_are_the_same_in_a_tiny_frame_are_asked_once():
    calls = []

    def network(x):
        calls.append(x)
        return x

    x = picture((32, 32))
    answer = tta.predict(network, x, "binary", tta.views("d4+scales"))
    assert len(calls) == 8
    torch.testing.assert_close(answer, x.sigmoid())


def test_the_two_means_are_what_they_say():
    logits = torch.tensor([[[[4.0, -1.0]]]])
    views = tta.views("flips")
    probability = tta.predict(lambda _: logits, logits, "binary", views)
    logit = tta.predict(lambda _: logits, logits, "binary", views, "logit")
    torch.testing.assert_close(probability, logits.sigmoid().mean().expand(1, 1, 1, 2))
    torch.testing.assert_close(logit, torch.tensor(1.5).sigmoid().expand(1, 1, 1, 2))
    assert torch.equal(logits, torch.tensor([[[[4.0, -1.0]]]]))  # nothing is added in place to the network's own answer


@pytest.mark.parametrize("names", ["flips", "d4", "scales", "d4+scales"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_means_differ_and_are_probabilities(task, names):
    network, x = lopsided(classes=3), picture((40, 64), count=1)
    answers = [tta.predict(network, x, task, tta.views(names), mean) for mean in tta.MEANS]
    assert (answers[0] - answers[1]).abs().max() > 1e-2
    for answer in answers:
        assert answer.shape == (1, 3, 40, 64)
        assert answer.min() >= 0 and answer.max() <= 1
        total = answer.sum(1)
        assert torch.allclose(total, torch.ones_like(total)) == (task == "multiclass")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flip", ["TTA=flip", "Did you mean flips?"]),
        ("d4+scale", ["Did you mean scales?"]),
        ("", ["expected none, flips, d4, scales"]),
        ("d4+flips", ["one of none, flips, d4"]),
        ("scales+scales", ["each once"]),
        ("D4", ["TTA=D4", "d4"]),
    ],
)
def test_names_that_mean_nothing_are_refused(text, words):
    with pytest.raises(UserError) as error:
        tta.views(text)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_mean_is_refused():
    with pytest.raises(UserError, match="TTA_MEAN=mean: expected probability or logit"):
        tta.predict(lopsided(), picture((8, 8)), "binary", tta.views("none"), "mean")


class OneSizeOnly(nn.Module):
    """Takes 32 x 64, as an encoder with a fixed number of patches, until `memory` runs out after so many calls."""

    def __init__(self, size=(32, 64), memory=1000):
        super().__init__()
        self.head, self.size, self.memory = nn.Conv2d(3, 3, 1), size, memory

    def forward(self, x):
        if not x.is_meta:
            self.memory -= 1
            if self.memory < 0:
                raise RuntimeError("out of memory")
        assert self.size is None or tuple(x.shape[-2:]) == self.size, "Input height doesn't match model"
        return self.head(x)


@pytest.mark.parametrize(
    ("names", "refused"),
    [("flips", []), ("d4", [(64, 32)]), ("scales", [(32, 96)]), ("d4+scales", [(96, 32), (64, 32)])],
)
def test_a_network_of_one_size_is_told_from_one_of_any(names, refused):
    shape = (1, 3, 32, 64)
    assert set(refused) <= set(tta.refused_sizes(OneSizeOnly(), shape, tta.views(names)))
    assert bool(refused) == bool(tta.refused_sizes(OneSizeOnly(), shape, tta.views(names)))
    assert tta.refused_sizes(OneSizeOnly(None), shape, tta.views(names)) == []
    assert tta.refused_sizes(OneSizeOnly((1, 1)), shape, tta.views(names)) == []  # it fails for its own, too


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A run folder with an untrained network for frames of 32 x 64 and three classes."""
    folder = tmp_path_factory.mktemp("shipped")
    torch.manual_seed(3)
    network = model_dispatcher.build(TINY_NETWORK, classes=3)
    for parameter in network.body.segmentation_head.parameters():
        parameter.data.mul_(20)  # an untrained head says 0.5 everywhere
    save_file(segmenter.shipped_state(network), folder / run_folders.WEIGHTS)
    parts = {"MODEL_NAME": TINY_NETWORK, "IMAGE_SIZE": [32, 64], "RESIZE": "stretch",
             "MODEL_MEAN": [0.5] * 3, "MODEL_STD": [0.2] * 3}  # fmt: skip
    spec = DataSpec("multiclass", ("background", "a", "b"), values=(0, 1, 2), mean=(0.5,) * 3, std=(0.2,) * 3)
    about = {
        "fold": "0",
        "weights": "last",
        "network": parts,
        "data": spec.as_json(),
        "weights_sha256": sha256(folder / run_folders.WEIGHTS),
        "folds_sha256": "1",
    }
    write_json(folder / run_folders.MODEL, about)
    return folder


@pytest.fixture
def model(shipped):
    return shipped_model.load(shipped)


def image_files(folder, frames):
    """uint8 frames -> their files, as images without loss."""
    paths = [folder / f"{number}.png" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(np.ascontiguousarray(frame)).save(path)
    return paths


def noise(size):
    return np.random.default_rng(5).integers(0, 256, (*size, 3)).astype(np.uint8)


def answers_of(model, paths, **options):
    return [answer for _, answer in predictor.Predictor([model], **options).predict(paths)]


def test_the_predictor_without_it_gives_the_networks_own_answer_bit_for_bit(model, tmp_path):
    frame = noise((32, 64))
    paths = image_files(tmp_path, [frame])
    x = torch.from_numpy(frame[None]).permute(0, 3, 1, 2).float().div_(255)
    with torch.inference_mode():
        expected = model.network(x.contiguous(memory_format=torch.channels_last)).softmax(1)[0].numpy()
    plain = answers_of(model, paths)[0]
    assert (plain == expected).all()
    assert (answers_of(model, paths, tta="none", tta_mean="logit")[0] == plain).all()
    assert np.ptp(plain) > 0.1


def test_the_predictors_d4_turns_with_the_image(model, tmp_path):
    frame = noise((40, 70))  # padded to 64 x 96 inside, below and right of it
    paths = image_files(tmp_path, [frame, frame.transpose(1, 0, 2), frame[:, ::-1], frame[::-1]])
    model = dataclasses.replace(model, resize="none")

    def off_by(**options):
        first, transposed, mirrored, reversed_ = answers_of(model, paths, **options)
        back = transposed.transpose(0, 2, 1), mirrored[..., ::-1], reversed_[:, ::-1]
        return [float(np.abs(first - other).max()) for other in back]

    assert max(off_by(tta="d4")) < 1e-5
    assert max(off_by(tta="flips")[1:]) < 1e-5
    assert min(off_by()) > 0.02


def test_the_predictors_means_and_scales_reach_the_network(model, tmp_path):
    paths = image_files(tmp_path, [noise((32, 64)), noise((50, 40))])
    every = [answers_of(model, paths, tta=names, tta_mean=mean) for names in ("d4", "scales") for mean in tta.MEANS]
    for first, second in itertools.combinations(every, 2):
        assert np.abs(first[0] - second[0]).max() > 1e-4
    for answer in itertools.chain(*every):
        np.testing.assert_allclose(answer.sum(0), 1, atol=1e-5)


def test_the_predictor_says_how_it_asks(model):
    about = predictor.Predictor([model, model], tta="d4", tta_mean="logit").about()
    assert about == {"tta": "d4", "tta_mean": "logit", "sizes": [[32, 64, "stretch"], [32, 64, "stretch"]]}
    assert json.loads(json.dumps(about)) == about


def test_what_is_the_same_is_said_the_same(model):
    def said(**options):
        about = predictor.Predictor([model], **options).about()
        return about["tta"], about["tta_mean"]

    assert said(tta="scales+d4", tta_mean="logit") == ("d4+scales", "logit")
    assert said(tta="none+scales") == said(tta="scales") == ("scales", "probability")
    assert said(tta_mean="logit") == said(tta="none") == ("none", "probability")  # one view has one mean


def test_the_predictor_refuses_typos_before_it_starts(model):
    with pytest.raises(UserError, match="Did you mean flips"):
        predictor.Predictor([model], tta="filps")
    with pytest.raises(UserError, match=r"TTA_MEAN=logits.*Did you mean logit"):
        predictor.Predictor([model], tta_mean="logits")


def test_views_that_an_encoder_of_one_size_cannot_take_are_refused_in_words(model, tmp_path):
    paths = image_files(tmp_path, [noise((32, 64))])
    fixed = dataclasses.replace(model, network=OneSizeOnly())
    assert answers_of(fixed, paths, tta="flips")[0].shape == (3, 32, 64)
    for names, size in (("d4", "64 x 32"), ("scales", "32 x 96")):
        with pytest.raises(UserError, match=f"TTA={names}.*32 x 64.*{size}"):
            answers_of(fixed, paths, tta=names)


def test_other_failures_of_a_network_are_not_blamed_on_its_size(model, tmp_path):
    paths = image_files(tmp_path, [noise((32, 64))])
    for names in ("none", "d4"):
        full = dataclasses.replace(model, network=OneSizeOnly(size=None, memory=0))
        with pytest.raises(RuntimeError, match="out of memory"):
            answers_of(full, paths, tta=names)
