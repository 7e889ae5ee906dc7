"""The verdict in words, from hand-made numbers."""

from __future__ import annotations

from typing import Any

from metarun.commands.reporting.verdict import Gap, Standing, leader_of, limits, outcome, ranked, verdict, widest


def accurate(name: str, mean: float | None = 0.9, half: float | None = 0.01, **keys: Any) -> Standing:
    return Standing(name, "accuracy", mean, half, keys.pop("episodes", 600), **keys)


def erring(name: str, mean: float | None = 0.5, half: float | None = 0.05, **keys: Any) -> Standing:
    return Standing(name, "mse", mean, half, keys.pop("episodes", 600), validation_higher=False, **keys)


def validated(name: str, mean: float, score: float, **keys: Any) -> Standing:
    return accurate(name, mean, validation=score, validation_metric="mean accuracy", **keys)


def test_the_better_of_two_models_beats_the_other_by_the_paired_difference() -> None:
    said = verdict(
        [validated("protonet", 0.95, 0.96), validated("simpleshot", 0.919, 0.92)], [Gap("protonet", "simpleshot", 0.031, 0.008, 600)]
    )
    assert said[0] == "`protonet` beats `simpleshot` by 3.10 ± 0.80 points on the same 600 test tasks."
    assert said[1].startswith("`protonet` has the best validation score. It has an accuracy of 95.0 % ± 1.0 on 600 test tasks.")


def test_the_direction_of_a_difference_does_not_matter() -> None:
    one, other = validated("a", 0.95, 0.96), validated("b", 0.9, 0.9)
    assert verdict([one, other], [Gap("a", "b", 0.05, 0.01, 600)]) == verdict([other, one], [Gap("b", "a", -0.05, 0.01, 600)])


def test_models_that_the_interval_does_not_separate_are_called_so() -> None:
    said = verdict([validated("a", 0.95, 0.96), validated("b", 0.949, 0.92)], [Gap("a", "b", 0.001, 0.008, 600)])
    assert said[0] == "The data do not separate `a` from `b` (a difference of 0.10 ± 0.80 points) on the same 600 test tasks."
    assert not any("beats" in sentence for sentence in said)


def test_a_model_that_validation_preferred_may_be_behind_at_test() -> None:
    said = verdict([validated("a", 0.90, 0.96), validated("b", 0.95, 0.92)], [Gap("a", "b", -0.05, 0.01, 600)])
    assert said[0] == "`a` is behind `b` by 5.0 ± 1.0 points on the same 600 test tasks, though validation preferred it."


def test_wins_ties_and_losses_of_one_model_are_three_sentences() -> None:
    others = [validated("win", 0.8, 0.8), validated("tie", 0.9, 0.85), validated("loss", 0.95, 0.9)]
    gaps = [Gap("best", "win", 0.1, 0.01, 600), Gap("best", "tie", 0.001, 0.01, 600), Gap("best", "loss", -0.05, 0.01, 600)]
    said = verdict([validated("best", 0.9, 0.99), *others], gaps)
    assert [sentence.split()[1] for sentence in said[:3]] == ["beats", "data", "is"]
    assert "separate it from `tie`" in said[1]


def test_a_lower_error_beats_a_higher_one() -> None:
    standings = [
        erring("a", 0.4, validation=0.4, validation_metric="median mse"),
        erring("b", 0.6, validation=0.7, validation_metric="median mse"),
    ]
    said = verdict(standings, [Gap("a", "b", -0.2, 0.05, 600)])
    assert said[0] == "`a` beats `b` by 0.200 ± 0.050 on the same 600 test tasks (mean squared error: lower is better)."
    assert outcome(Gap("b", "a", 0.2, 0.05, 600), "mse") == "loss"


def test_without_validation_scores_the_test_chooses_and_the_verdict_says_so() -> None:
    said = verdict([accurate("a", 0.8), accurate("b", 0.9)], [Gap("a", "b", -0.1, 0.01, 600)])
    assert said[0].startswith("`b` beats `a` by 10.0 ± 1.0 points")
    assert "a choice by this score is optimistic" in said[1]


def test_validations_by_different_statistics_choose_nothing() -> None:
    one = erring("a", 0.5, validation=0.1, validation_metric="median mse")
    assert leader_of([one, erring("b", 0.4, validation=0.3, validation_metric="mean mse")])[1] is False


def test_one_model_is_told_with_its_score_and_the_baseline() -> None:
    said = verdict([accurate("maml", 0.954, 0.009, baseline=0.2, baseline_name="Guessing")], [])
    assert said[0] == "`maml` has an accuracy of 95.40 % ± 0.90 on 600 test tasks. Guessing has 20 %."


def test_a_model_that_is_no_better_than_the_baseline_has_learned_nothing() -> None:
    name = "Predicting the mean of the support targets"
    assert "learned nothing" in verdict([erring("maml", 4.5, 0.3, baseline=4.6, baseline_name=name)], [])[0]
    assert "learned nothing" not in verdict([erring("maml", 4.0, 0.3, baseline=4.6, baseline_name=name)], [])[0]
    assert "learned nothing" in verdict([accurate("maml", 0.205, 0.01, baseline=0.2, baseline_name="Guessing")], [])[0]


def test_several_seeds_use_the_wider_interval() -> None:
    gap = Gap("a", "b", 0.03, 0.004, 600, seeds=3, seeds_half=0.05)
    assert widest(gap) == 0.05
    assert outcome(gap, "accuracy") == "tie"
    said = verdict([validated("a", 0.95, 0.96, seeds=3), validated("b", 0.92, 0.92, seeds=3)], [gap])
    assert "on the same 600 test tasks over 3 seeds" in said[0]
    assert "the mean of 3 seeds" in said[1]
    assert not any("trained once" in sentence for sentence in said)


def test_a_difference_without_an_interval_separates_nothing() -> None:
    assert outcome(Gap("a", "b", 0.3, None, 1), "accuracy") == "tie"


def test_diverged_tasks_lead_to_the_median() -> None:
    said = limits([erring("maml", 0.45, diverged=8, median=0.2725)])
    assert said[0] == "8 of 600 tasks of `maml` diverged. Read its median, 0.2725."


def test_a_mean_that_is_not_finite_is_no_score() -> None:
    said = verdict([erring("a", None, None, not_finite=2, diverged=2)], [])
    assert said[0] == "`a` has no finite mean squared error: 2 of 600 test tasks are not finite."
    both = verdict([erring("a", None, None, not_finite=2), erring("b", 0.5)], [])
    assert ranked([erring("a", None, None), erring("b", 0.5)])[0].name == "b"
    assert any("A mean that is not finite has no difference to `b`" in sentence for sentence in both)


def test_few_tasks_and_a_single_one_are_remarked() -> None:
    assert "20 tasks are few" in " ".join(limits([accurate("a", episodes=20)]))
    assert "One task has no interval" in " ".join(limits([accurate("a", half=None, episodes=1)]))
    assert "few" not in " ".join(limits([accurate("a")]))


def test_the_same_classes_in_every_task_are_remarked() -> None:
    said = " ".join(limits([accurate("a", covers_new=False, population="3 test classes")]))
    assert "Every task has the same 3 test classes, so no interval covers new ones." in said


def test_scores_under_different_conditions_do_not_compare() -> None:
    said = verdict([accurate("a", conditions="ways 5"), accurate("b", 0.8, conditions="ways 20")], [])
    assert "different conditions" in said[0]
    assert said[2].startswith("The others: `b` 80.0 % ± 1.0. There is no paired difference to `a`")


def test_different_metrics_do_not_compare() -> None:
    assert verdict([accurate("a"), erring("b")], [])[0] == "The models have different metrics, so their scores cannot be compared."


def test_without_any_score_the_best_validation_is_told() -> None:
    one, two = (validated(name, 0.0, score, episodes=0) for name, score in (("a", 0.9), ("b", 0.95)))
    assert verdict([one, two], []) == ["No run has been tested. `b` has the best validation score, mean accuracy of 95.00 %."]
    assert verdict([accurate("a", None, None, episodes=0)], []) == ["No run has a score yet."]


def test_a_long_list_of_models_is_shortened() -> None:
    others = [validated(f"m{number}", 0.5, 0.5) for number in range(9)]
    gaps = [Gap("best", other.name, 0.4, 0.01, 600) for other in others]
    assert "and 4 more on the same" in verdict([validated("best", 0.9, 0.9), *others], gaps)[0]


def test_a_name_cannot_end_its_own_mark() -> None:
    assert verdict([accurate("a`b\x1b[2J")], [])[0].startswith("`a'b\\x1b[2J` has")
