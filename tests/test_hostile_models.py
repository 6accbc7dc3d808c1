"""Models of strangers: weights and JSONs that are something else end in a sentence, and nothing in them is run."""

import io
import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import inference
import linked
import model_dispatcher
import tester
import train
from conftest import TINY
from modeling.encoder_weights import load_encoder
from tools import run_folders
from tools.errors import UserError
from tools.files import sha256, write_json
from training import checkpoints

RUN = Path("lightning_logs/demo/fold0_seed42")
SMALL = "smp_linknet_tu-test_resnet"


class Bomb:
    """Writes a file where it is unpickled."""

    def __reduce__(self):
        return Path.write_text, (Path("ran.txt"), "the code of a file was run")


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach a network fails the test."""

    def reached(*address, **_):
        raise AssertionError(f"tried to reach {address[:2]}")

    monkeypatch.setattr(socket.socket, "connect", reached)
    monkeypatch.setattr(socket, "getaddrinfo", reached)


@pytest.fixture
def trained(trained_by_smp):
    """Of the network that is exchanged here."""
    return trained_by_smp


def put_weights(state):
    """Exchange the weights, with a hash that fits: as one who means harm does."""
    save_file({name: value.clone().contiguous() for name, value in state.items()}, RUN / run_folders.WEIGHTS)
    vouch()


def vouch():
    about = json.loads((RUN / run_folders.MODEL).read_text())
    write_json(RUN / run_folders.MODEL, {**about, "weights_sha256": sha256(RUN / run_folders.WEIGHTS)})


def both_refuse(refused, *words):
    for main in (inference.main, tester.main):
        said = refused(main, [*TINY, "FOLD=0"], *words)
        assert said.count("\n") == 1, said  # one sentence
    assert not list(Path("output/demo/predictions").glob("*"))


def prefixed(prefix):
    return lambda state: {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("change, words", [
    (lambda _: model_dispatcher.build("smp_fpn_tu-test_resnet").state_dict(), "does not fit smp_linknet"),
    (lambda _: model_dispatcher.build(SMALL, classes=3).state_dict(), "does not fit smp_linknet"),
    (prefixed("_orig_mod."), "_orig_mod."), (prefixed("module."), "module."),
    (lambda state: dict(list(state.items())[:-3]), "it lacks 3 of"),
    (lambda state: {**state, "more": torch.ones(1)}, "more"),
    (lambda state: {name: value * torch.nan if value.is_floating_point() else value for name, value in state.items()},
     "no numbers"),
    (lambda _: {}, "does not fit"),
])  # fmt: skip
def test_weights_of_another_network_are_refused(trained, refused, change, words):
    put_weights(change(load_file(RUN / run_folders.WEIGHTS)))
    both_refuse(refused, "model.safetensors", words)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_are_cut_off_with_a_hash_that_fits(trained, refused, share):
    whole = (RUN / run_folders.WEIGHTS).read_bytes()
    (RUN / run_folders.WEIGHTS).write_bytes(whole[: int(len(whole) * share)])
    vouch()
    both_refuse(refused, "model.safetensors", "not readable as weights")


def test_a_pickle_under_the_name_of_weights_does_not_run(trained, refused):
    torch.save({"w": Bomb()}, RUN / run_folders.WEIGHTS)
    vouch()
    both_refuse(refused, "model.safetensors")
    assert not Path("ran.txt").exists()


NETWORK = [
    *({"MODEL_NAME": name} for name in (
        "unetify_hf-hub:someone/model", "smp_unet_tu-hf-hub:a/b", "unetify_local-dir:/tmp", "../../etc/passwd",
        "smp_unet_../../x", "smp_unet_resnet34\n", "resnet34", "smp_unet_nothing", "os.system", "", "smp_evil_resnet34",
        7, None, ["smp_unet_resnet34"],
    )),
    *({"IMAGE_SIZE": size} for size in ([10**9, 10**9], [0, 0], [-32, 64], [32], "32", [1e999, 32], ["a", 1], None)),
    *({"MODEL_STD": std} for std in ([-1, 1, 1], [0, 1, 1], [float("nan")] * 3, [1e999] * 3, [1, 1], "abc", None)),
    *({"MODEL_MEAN": mean} for mean in ([float("inf")] * 3, [0.5], [1e9] * 3, {})),
    *({"INPUT_SIZE": size} for size in ([10**9, 32], [32], "ab", None, [1e999, 32])),
    {"RESIZE": "../x"}, {"RESIZE": None}, {"MAX_FEATURES": 10**9}, {"MAX_FEATURES": -1, "MODEL_NAME": "unet"},
]  # fmt: skip


def test_a_model_json_that_names_what_it_should_not(trained, refused, offline):
    about = json.loads((RUN / run_folders.MODEL).read_text())
    changes = [{"network": {**about["network"], **change}} for change in NETWORK]
    changes += [{"network": {name: value for name, value in about["network"].items() if name != lacking}}
                for lacking in about["network"] if lacking not in ("MAX_FEATURES", "INPUT_SIZE")]  # fmt: skip
    for name in ("a/b\n", "\0", "=1+1", "", "@x", "\u2028"):
        changes.append({"data": {**about["data"], "classes": [name]}})
    both = {"task": "multilabel", "classes": ["a/b", "a_b"]}  # they would share a file
    changes += [{"data": {**about["data"], **change}} for change in (
        both, {"channels": 10**9}, {"std": [-1, 1, 1]}, {"window": [0, 1e999]}, {"bits": 7}, {"rle": "../x"},
        {"values": [1e999]}, {"mean": [float("nan")] * 3},
    )]  # fmt: skip
    for change in changes:
        write_json(RUN / run_folders.MODEL, {**about, **change})
        refused(inference.main, [*TINY, "FOLD=0"], "model.json")
        refused(tester.main, [*TINY, "FOLD=0"])
    for key in ("fold", "weights", "network", "data", "weights_sha256", "folds_sha256"):
        write_json(RUN / run_folders.MODEL, {name: value for name, value in about.items() if name != key})
        both_refuse(refused, "model.json", key, "make train")
    for text in ("[" * 100_000, "{" * 10, "1" * 10_000, "\ufeff{}", '{"fold": "\ud800"}'):
        (RUN / run_folders.MODEL).write_bytes(text.encode("utf-8", "surrogatepass"))
        both_refuse(refused, "model.json")


def test_a_model_of_before_max_features_still_predicts(trained):
    about = json.loads((RUN / run_folders.MODEL).read_text())
    del about["network"]["MAX_FEATURES"]
    write_json(RUN / run_folders.MODEL, about)
    assert inference.main([*TINY, "FOLD=0"]) == 0


@pytest.mark.parametrize("name", ["bomb.pth", "bomb.ckpt", "bomb.safetensors", "bomb.pt"])
def test_encoder_weights_with_code_in_them_stop_the_training_and_do_not_run(folds_table, refused, name):
    torch.save({"state_dict": {"conv1.weight": Bomb()}}, name)
    refused(train.main, [*TINY, "FOLD=0", f"ENCODER_WEIGHTS={name}"], name, "not readable as weights")
    assert not Path("ran.txt").exists()
    assert not Path("lightning_logs").exists()
    torch.load(
        io.BytesIO(Path(name).read_bytes()), weights_only=False
    )  # the bomb is one: it runs where it is allowed to
    assert Path("ran.txt").exists()


def test_a_checkpoint_with_code_in_it_is_not_resumed_from(trained_source, tmp_path, monkeypatch):
    monkeypatch.chdir(linked.copy(trained_source, tmp_path / "copy"))  # two epochs, and so two checkpoints
    state = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    torch.save({**state, "more": Bomb()}, RUN / "checkpoints/last.ckpt")
    (RUN / "checkpoints/previous.ckpt").unlink()
    for sums in (True, False):  # the list of checksums tells it first; without it torch refuses to run it
        if not sums:
            (RUN / "checkpoints/sha256.json").unlink()
        with pytest.raises(UserError, match="torn" if sums else "not readable"):
            checkpoints.choose(RUN / "checkpoints")
    assert not Path("ran.txt").exists()


def test_odd_tensors_of_an_encoder_are_refused_or_found_under_their_prefix(tmp_path):
    encoder = model_dispatcher.build(SMALL).body.encoder
    good = encoder.state_dict()
    name = next(name for name, value in good.items() if value.ndim == 4)
    file = tmp_path / "e.pth"
    for odd in (
        {1: torch.ones(1)}, {**good, name: good[name].to("meta")}, {**good, name: good[name].to_sparse()},
        {**good, name: good[name] * torch.inf}, {**good, name: torch.ones(1)}, {**good, name: "text"}, [good],
        good[name],
    ):  # fmt: skip
        torch.save(odd, file)
        with pytest.raises(UserError, match=r"e\.pth"):
            load_encoder(encoder, file)
    for prefix in ("_orig_mod.", "module.", "_orig_mod.module.", "module.encoder."):
        torch.save({f"{prefix}{key}": value for key, value in good.items()}, file)
        fresh = model_dispatcher.build(SMALL).body.encoder
        assert not torch.equal(fresh.state_dict()[name], good[name])
        load_encoder(fresh, file)
        assert torch.equal(fresh.state_dict()[name], good[name])


def test_a_model_is_read_from_a_linked_folder_and_not_from_a_file(trained, refused):
    shutil.move(RUN, "elsewhere")
    RUN.write_text("")
    refused(inference.main, [*TINY, "FOLD=0"], "fold0_seed42")
    RUN.unlink()
    RUN.symlink_to(Path("elsewhere").resolve())
    assert inference.main([*TINY, "FOLD=0"]) == 0
