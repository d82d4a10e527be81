"""Which checkpoints are whole: every part of a real one cut off at many places; and what a full disk says."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from tasklib.summary import TaskError
from tasklib.training import checkpoints

pytestmark = pytest.mark.slow
PARTS = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """The checkpoint that transformers' Trainer writes after one step of a very small model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    folder = tmp_path_factory.mktemp("checkpoints")
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}]
    arguments = TrainingArguments(
        str(folder), max_steps=1, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
    )

    def collate(examples):
        return {key: torch.tensor([example[key] for example in examples]) for key in examples[0]}

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
    Trainer(model, arguments, train_dataset=rows, data_collator=collate).train()
    return folder / "checkpoint-1"


@pytest.fixture
def copy(real, tmp_path) -> Path:
    return Path(shutil.copytree(real, tmp_path / "checkpoint-1"))


def test_a_checkpoint_as_the_trainer_writes_it_is_whole(copy):
    assert checkpoints.is_whole(copy)
    assert checkpoints.last_whole(copy.parent) == copy


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_part_that_was_cut_off_anywhere_makes_it_broken(copy, part, kept):
    file = copy / part
    os.truncate(file, int(file.stat().st_size * kept))
    assert not checkpoints.is_whole(copy)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing_makes_it_broken(copy, part):
    (copy / part).unlink()
    assert not checkpoints.is_whole(copy)


def test_the_newest_whole_checkpoint_is_chosen_and_only_broken_ones_are_removed(real, tmp_path):
    for step in (2, 10, 30):
        shutil.copytree(real, tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-30" / "optimizer.pt").unlink()
    (tmp_path / "runs").mkdir()
    assert checkpoints.last_whole(tmp_path).name == "checkpoint-10"
    assert checkpoints.remove_broken(tmp_path) == ["checkpoint-30"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2", "runs"]


def test_a_folder_that_does_not_exist_has_no_checkpoint(tmp_path):
    assert checkpoints.last_whole(tmp_path / "none") is None
    assert checkpoints.remove_broken(tmp_path / "none") == []


@pytest.mark.parametrize(("epoch", "evaluates"), [(2.0, True), (2.5, False)])
def test_an_epoch_that_is_cut_short_is_not_evaluated(epoch, evaluates):
    from transformers import TrainerControl, TrainerState

    request = checkpoints.StopRequest()
    request.is_set = True
    state, control = TrainerState(epoch=epoch), TrainerControl(should_evaluate=True)
    request.callback().on_epoch_end(None, state, control)
    assert control.should_evaluate is evaluates


def test_a_launcher_that_repeats_the_signal_does_not_stop_at_once(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with checkpoints.stop_softly() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.is_set


def test_the_first_signal_asks_and_the_second_stops_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with checkpoints.stop_softly() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.is_set
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_that_the_disk_cannot_hold_is_refused_with_the_sizes(tmp_path):
    checkpoints.require_disk(tmp_path, trainable=1000, n_kept=2)
    with pytest.raises(TaskError) as caught:
        checkpoints.require_disk(tmp_path, trainable=10**15, n_kept=2)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (4, "disk_full")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "torch", "safetensors"],
)
def test_a_full_disk_is_exit_4_in_whoever_s_words(error):
    with pytest.raises(TaskError) as caught, checkpoints.full_disk_explained():
        raise error
    assert (caught.value.exit_code, caught.value.problems[0].code) == (4, "disk_full")


def test_any_other_error_is_left_alone():
    with pytest.raises(ValueError, match="something else"), checkpoints.full_disk_explained():
        raise ValueError("something else")
