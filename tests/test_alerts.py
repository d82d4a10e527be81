"""Alerts: each kind of failing run raises its own and no other; healthy runs, however noisy, raise none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasklib.training import alerts


def log_of(
    losses, *, every: int = 5, rate: float = 2e-4, evals: dict[int, float] | None = None, warmup: int = 0
) -> list:
    """Log lines of a run: one training loss for every `every` steps; `evals`: position -> validation loss after it."""
    lines = []
    for position, loss in enumerate(losses):
        step = (position + 1) * every
        grown = min(1.0, (position + 1) / warmup) if warmup else 1.0
        value = float(loss) if math.isfinite(loss) else str(float(loss))
        lines.append(
            {"step": step, "epoch": step / 100, "loss": value, "learning_rate": rate * grown, "grad_norm": 1.0}
        )
        if evals and position in evals:
            lines.append({"step": step, "epoch": step / 100, "eval_loss": evals[position]})
    return lines


def codes(lines) -> list[str]:
    return [alert.code for alert in alerts.find(lines)]


def falling(n: int, start: float, end: float) -> np.ndarray:
    """A loss that falls fast at first, then slowly."""
    return end + (start - end) * np.exp(-np.arange(n) / (n / 6))


# --- runs that fail ---


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_told_at_its_first_step(value):
    [alert] = alerts.find(log_of([2.0, 1.5, value, value, 1.0], rate=1e-3))
    assert (alert.code, alert.step) == ("loss_is_nan", 15)
    assert str(value) in alert.message and "training.learning_rate to 0.0001" in alert.hint


@pytest.mark.parametrize("key", ["grad_norm", "eval_loss"])
def test_a_gradient_norm_or_validation_loss_that_is_no_number_is_told_too(key):
    lines = log_of([2.0, 1.5])
    lines[-1][key] = "nan"
    assert codes(lines) == ["loss_is_nan"]


def test_a_loss_that_climbs_back_from_its_best_is_diverging():
    noise = np.random.default_rng(0).normal(0, 0.05, 60)
    losses = np.concatenate([falling(30, 3.0, 0.7), np.linspace(0.7, 4.0, 30)]) + noise
    [alert] = alerts.find(log_of(losses, rate=1e-3))
    assert alert.code == "diverging" and 30 * 5 < alert.step < 60 * 5
    assert "0.7" in alert.message and "training.learning_rate to 0.0002" in alert.hint


def test_a_loss_that_jumps_at_once_and_stays_is_diverging():
    assert codes(log_of([3.0, *[9.0, 10.0, 11.0, 10.5] * 3])) == ["diverging"]


def test_a_loss_worse_than_guessing_is_diverging_after_three_logs():
    [alert] = alerts.find(log_of([40.0, 62.0, 55.0, 58.0]))
    assert (alert.code, alert.step) == ("diverging", 15)


def test_a_flat_loss_is_no_decrease_and_told_once():
    noise = np.random.default_rng(0).normal(0, 0.02, 200)
    [alert] = alerts.find(log_of(2.0 + noise, rate=1e-7, warmup=10))
    assert alert.code == "no_decrease" and alert.step >= alerts.ENOUGH_STEPS
    assert "training.learning_rate to 5e-07" in alert.hint


def test_a_validation_loss_that_rises_while_training_goes_on_falling_is_memorising():
    losses = falling(60, 2.0, 0.1)
    rising = {9: 0.9, 19: 0.7, 29: 0.75, 39: 0.9, 49: 1.1, 59: 1.4}
    [alert] = alerts.find(log_of(losses, evals=rising))
    assert alert.code == "memorising" and alert.step == 250 and alert.value == 1.1
    assert "training.num_train_epochs to 1 " in alert.hint and "0.7" in alert.message


def test_a_perfect_training_loss_beside_a_poor_validation_loss_is_memorising():
    [alert] = alerts.find(log_of(falling(60, 2.0, 0.001), evals={59: 0.6}))
    assert (alert.code, alert.step) == ("memorising", 300)


# --- runs that do not ---


def noisy(seed: int, kind: str) -> np.ndarray:
    """Losses of healthy runs: a trend and the noise that small batches make."""
    random = np.random.default_rng(seed)
    n = int(random.integers(20, 400))
    trend = falling(n, random.uniform(1.5, 4), random.uniform(0.05, 1.0))
    if kind == "normal":
        return np.abs(trend + random.normal(0, random.uniform(0.02, 0.3), n))
    if kind == "wide":  # the larger the loss, the larger its noise
        return trend * random.lognormal(0, random.uniform(0.1, 0.6), n)
    share, height = random.uniform(0.02, 0.5), random.uniform(0.5, 3)  # now and then a batch with a hard row
    return trend + height * (random.random(n) < share)


@pytest.mark.parametrize("kind", ["normal", "wide", "hard rows"])
def test_healthy_runs_raise_no_alert_whatever_their_noise(kind):
    raised = {seed: found for seed in range(300) if (found := codes(log_of(noisy(seed, kind), warmup=5)))}
    assert raised == {}


def test_a_long_run_with_a_few_hard_rows_and_one_spike_raises_no_alert():
    random = np.random.default_rng(1)
    losses = np.where(random.random(5000) < 0.2, 1.0, 0.01)
    losses[:50] += falling(50, 3, 0)
    losses[3000] = 20.0
    assert codes(log_of(losses, every=1)) == []


def test_a_model_that_can_do_the_task_already_need_not_get_better():
    assert codes(log_of(np.full(100, 0.03), evals={20: 0.04, 40: 0.04})) == []


def test_a_flat_loss_during_warmup_is_no_alert_yet():
    assert codes(log_of(np.full(60, 2.0), warmup=100)) == []


def test_a_validation_loss_that_wavers_is_no_alert():
    wavering = {9: 0.50, 19: 0.45, 29: 0.5, 39: 0.47, 49: 0.6, 59: 0.48}
    assert codes(log_of(falling(60, 2.0, 0.3), evals=wavering)) == []


def test_lines_of_alerts_in_a_log_change_nothing():
    lines = log_of([2.0, math.nan, 1.0])
    with_alert = [*lines[:2], {"step": 10, "alert": "loss_is_nan", "value": "nan", "message": "", "hint": ""}, lines[2]]
    assert repr(alerts.find(with_alert)) == repr(alerts.find(lines)) != "[]"
