"""A list of sources on the command line."""

from __future__ import annotations

import pytest

from metarun.cli.arguments import prepare
from metarun.cli.sources import with_sources
from metarun.errors import UserError


def test_each_source_of_a_mixture_becomes_a_word_of_hydra():
    assert with_sources(["task=mixture", "task.sources=[glyphs, birds:folder]", "seed=1"], "train") == [
        "task=mixture",
        "+task@task.sources.glyphs=glyphs",
        "+task@task.sources.birds=folder",
        "task.only=[glyphs,birds]",
        "seed=1",
    ]


def test_the_sources_of_the_mixtures_own_file_are_chosen_only():
    assert with_sources(["task=mixture", "task.sources=[line,quadratic]"], "train") == ["task=mixture", "task.only=[line,quadratic]"]
    assert "+task@task.sources.line=quadratic" in with_sources(["task=mixture", "task.sources=[line:quadratic]"], "train")


@pytest.mark.parametrize("words", [["experiment=multitask_images"], ["checkpoint=RUN"], ["resume=RUN"]])
def test_without_a_task_the_list_chooses_among_known_sources(words: list[str]):
    assert with_sources([*words, "task.sources=[line]"], "train") == [*words, "task.only=[line]"]


def test_other_words_stay_as_they_are():
    words = ["task=mixture", "task.sources.line=null", "task.sources={a: 1}", "task.sources.folder.root=DIR"]
    assert with_sources(words, "train") == words


def test_an_evaluation_passes_the_chosen_sources_on():
    assert prepare("eval", ["checkpoint=a", "task.sources=[line]"]) == ["checkpoint='a'", "++task.only=[line]"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task.sources=[glyphs]"], "task.sources names the sources of a mixture; give task=mixture too"),
        (["task=mixture", "task.sources=[]"], "names no source"),
        (["task=mixture", "task.sources=[glyphs,glyphs]"], "names 'glyphs' twice; give the second one a name, such as other:glyphs"),
        (["task=mixture", "task.sources=[glyphs,a b]"], "'a b' in task.sources is neither the name of a task"),
        (["task=mixture", "task.sources=[1:line]"], "'1:line' in task.sources is neither .* nor NAME:TASK with a letter first"),
        (["task=mixture", "task.sources=[a:line,a.b:line]"], "'a.b:line' in task.sources is neither the name of a task"),
        (["task=mixture", "task.sources=[[glyphs]]"], "is no list of sources"),
        (["experiment=x", "task.sources=[a:folder]"], "adds a source, which needs task=mixture"),
    ],
)
def test_a_bad_list_is_told_in_a_sentence(words: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence.replace("[", r"\[")):
        with_sources(words, "train")


def test_a_sweep_over_lists_is_refused():
    with pytest.raises(UserError, match="A sweep cannot vary the sources"):
        with_sources(["task=mixture", "task.sources=[a,b],[a,c]"], "train", sweep=True)
