"""train_log.jsonl, its alerts and curves.png: as they are written, after a resume, and in real runs."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasklib.files import read_jsonl
from tasklib.training import training_log
from tasklib.training.training_log import TrainingLog


class Bar:
    """What the callback needs of a tqdm bar; keeps what was written beside it."""

    def __init__(self) -> None:
        self.n, self.shown = 0, io.StringIO()

    def reset(self, total: int) -> None:
        self.n = 0

    def update(self, n: int) -> None:
        self.n += n

    def set_postfix(self, values: dict, refresh: bool) -> None: ...

    def write(self, text: str, file: object) -> None:
        self.shown.write(text + "\n")


@pytest.fixture
def log(tmp_path) -> TrainingLog:
    return TrainingLog(tmp_path / "train_log.jsonl", None)


def resumed(log: TrainingLog, step: int) -> TrainingLog:
    """The same log opened again for a run that continues from the checkpoint of this step."""
    checkpoint = log.path.parent / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return TrainingLog(log.path, checkpoint)


# --- lines and alerts ---


def test_each_line_has_step_epoch_time_and_speed_and_the_last_numbers_can_be_asked_for(log):
    log.started -= 10  # as if training had begun ten seconds ago
    log.write(1, 0.1, {"loss": 2.0, "num_tokens": 1000.0})
    log.write(2, 0.2, {"loss": math.inf})
    first, second, *_ = read_jsonl(log.path)
    assert (first["step"], first["epoch"], first["loss"]) == (1, 0.1, 2.0)
    assert first["elapsed_s"] == pytest.approx(10, abs=0.5) and first["tokens_per_s"] == pytest.approx(100, rel=0.05)
    assert second["loss"] == "inf"
    assert log.last("loss") == {"loss": 2.0} and log.last("eval_loss") == {}


def test_an_alert_is_a_line_of_the_log_and_comes_once(log):
    for step in (1, 2, 3):
        log.write(step, None, {"loss": math.nan, "learning_rate": 1e-3})
    [line] = [line for line in read_jsonl(log.path) if "alert" in line]
    assert line["step"] == 1 and line["alert"] == "loss_is_nan" and line["value"] == "nan"
    assert line["message"] and "training.learning_rate" in line["hint"]
    assert [alert.code for alert in log.alerts] == ["loss_is_nan"]


def diverge(log: TrainingLog, steps: range) -> None:
    for step in steps:
        log.write(step, None, {"loss": 2.0 if step < 3 else 50.0})


def test_resuming_after_an_alert_keeps_it_and_does_not_repeat_it(log):
    diverge(log, range(1, 8))
    again = resumed(log, 6)
    assert again.alerts == log.alerts != []
    diverge(again, range(7, 12))
    assert [line["step"] for line in read_jsonl(log.path) if "alert" in line] == [5]
    assert [line["step"] for line in read_jsonl(log.path) if "loss" in line] == list(range(1, 12))


def test_resuming_from_before_an_alert_raises_it_anew_when_its_steps_run_again(log):
    diverge(log, range(1, 8))
    again = resumed(log, 4)
    assert again.alerts == []
    diverge(again, range(5, 8))
    assert [line["step"] for line in read_jsonl(log.path) if "alert" in line] == [5]


def test_time_goes_on_after_a_resume(log):
    log.started -= 100
    log.write(1, None, {"loss": 1.0})
    again = resumed(log, 1)
    again.write(2, None, {"loss": 1.0})
    assert 100 <= read_jsonl(log.path)[1]["elapsed_s"] < 110


# --- the callback ---


def call(log: TrainingLog, bar: Bar, logs: dict, fp16: bool = False) -> SimpleNamespace:
    control = SimpleNamespace(should_save=True, should_evaluate=False, should_log=False, should_training_stop=False)
    state = SimpleNamespace(global_step=5, epoch=0.5)
    log.callback(bar).on_log(SimpleNamespace(fp16=fp16), state, control, logs=logs)
    return control


def test_a_loss_that_is_no_number_stops_the_training_saves_nothing_and_is_shown(log):
    bar = Bar()
    control = call(log, bar, {"loss": math.nan, "grad_norm": math.nan})
    assert control.should_training_stop and not control.should_save
    assert "alert loss_is_nan at step 5" in bar.shown.getvalue() and "training.learning_rate" in bar.shown.getvalue()
    later = SimpleNamespace(should_save=True, should_evaluate=True, should_log=False)
    log.callback(bar).on_epoch_end(SimpleNamespace(), SimpleNamespace(), later)
    assert not later.should_save and not later.should_evaluate


def test_the_loss_is_logged_before_a_checkpoint_is_written(log):
    control = SimpleNamespace(should_save=True, should_evaluate=False, should_log=False)
    log.callback(Bar()).on_step_end(SimpleNamespace(), SimpleNamespace(global_step=1), control)
    assert control.should_log and control.should_save


def test_gradients_that_overflow_under_the_loss_scaler_of_fp16_are_no_alert(log):
    control = call(log, Bar(), {"loss": 2.0, "grad_norm": math.inf}, fp16=True)
    assert not control.should_training_stop and log.alerts == []
    assert call(log, Bar(), {"loss": 2.0, "grad_norm": math.inf}).should_training_stop


def test_metrics_of_an_evaluation_are_kept_and_its_speed_and_the_totals_at_the_end_are_not(log):
    call(log, Bar(), {"eval_loss": 1.0, "eval_macro_f1": 0.5, "eval_runtime": 3.0, "eval_num_tokens": 7.0})
    call(log, Bar(), {"train_runtime": 9.0, "train_loss": 1.0, "num_tokens": 5.0})
    [line] = read_jsonl(log.path)
    assert set(line) == {"step", "max_steps", "epoch", "elapsed_s", "eval_loss", "eval_macro_f1"}


# --- the curves ---


def fill(log: TrainingLog) -> None:
    for step in range(1, 40):
        log.write(step, step / 10, {"loss": 3 / step, "learning_rate": 1e-4, "grad_norm": 1.0})
    log.write(39, 3.9, {"eval_loss": 0.2})
    log.write(40, 4.0, {"loss": math.nan, "learning_rate": 1e-4, "grad_norm": math.inf})


def test_the_curves_have_three_panels_both_losses_and_the_alert(log):
    fill(log)
    panels = training_log.curves(log.lines).axes
    assert [panel.get_ylabel().split("\n")[0] for panel in panels] == ["loss", "learning rate", "gradient norm"]
    assert {line.get_label() for line in panels[0].get_lines()} >= {"training", "validation"}
    assert [text.get_text().strip() for text in panels[0].texts] == ["loss_is_nan"]
    shown = [line.get_xydata() for line in panels[0].get_lines() if line.get_label() == "validation"]
    assert shown[0].tolist() == [[39.0, 0.2]]


def test_the_curves_are_written_whole_under_their_name_and_nothing_else_stays(log, tmp_path):
    fill(log)
    log.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "train_log.jsonl"]


def test_an_empty_log_can_be_drawn(log, tmp_path):
    log.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_while_training_the_curves_are_drawn_at_most_every_half_minute_and_a_hundredth_of_the_time(log, monkeypatch):
    now, drawn = [1000.0], []

    def draw(target: Path) -> None:
        drawn.append(now[0])
        now[0] += 2.0  # a slow machine: two seconds for each drawing

    monkeypatch.setattr(log, "plot", draw)
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    log.next_drawing = now[0] + training_log.REDRAW_S
    while now[0] < 1600:
        log.redraw()
        now[0] += 1
    assert drawn == [1030.0, 1230.0, 1430.0]


# --- real runs (slow: train) ---


def run(tiny_model: Path, folder: Path, *, rate: float, n_steps: int = 120, **arguments) -> tuple[TrainingLog, Bar]:
    """All weights of the tiny model on two easy answers at a learning rate, with this log."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(0)
    rows = [{"input_ids": [5, 6, 40 + n % 2, 8, 20 + n % 2], "labels": [-100] * 4 + [20 + n % 2]} for n in range(64)]
    log, bar = TrainingLog(folder / "train_log.jsonl", None), Bar()
    settings = {"logging_steps": 1, "save_strategy": "no", "eval_strategy": "steps", "eval_steps": 30, **arguments}
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(folder / "checkpoints"),
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            max_length=None,
            max_steps=n_steps,
            learning_rate=rate,
            logging_nan_inf_filter=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:8]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
        callbacks=[log.callback(bar)],
    )
    trainer.train()
    return log, bar


@pytest.mark.slow
def test_a_healthy_run_raises_no_alert_and_leaves_its_curves(tiny_model, tmp_path):
    log, bar = run(tiny_model, tmp_path, rate=1e-3)
    assert log.alerts == [] and bar.shown.getvalue() == ""
    losses = [line["loss"] for line in log.lines if "loss" in line]
    assert len(losses) == 120 and losses[-1] < losses[0] / 2
    assert all(line["tokens_per_s"] > 0 for line in log.lines if "loss" in line)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_absurd_learning_rate_raises_diverging_with_the_rate_to_set(tiny_model, tmp_path):
    log, bar = run(tiny_model, tmp_path, rate=10.0, n_steps=40)
    assert [alert.code for alert in log.alerts] == ["diverging"]
    assert "set training.learning_rate to 2" in bar.shown.getvalue()


@pytest.mark.slow
def test_a_run_whose_loss_becomes_nan_stops_there_and_keeps_no_checkpoint_of_lost_weights(tiny_model, tmp_path):
    log, _ = run(tiny_model, tmp_path, rate=1e25, save_strategy="steps", save_steps=1, logging_steps=10)
    [alert] = [alert for alert in log.alerts if alert.code == "loss_is_nan"]
    assert log.lines[-1]["step"] == alert.step < 10
    from safetensors.torch import load_file

    saved = list((tmp_path / "checkpoints").glob("checkpoint-*/model.safetensors"))
    assert [path.parent.name for path in saved] == [f"checkpoint-{step}" for step in range(1, alert.step)]
    assert all(weight.isfinite().all() for path in saved for weight in load_file(path).values())
