from __future__ import annotations

import pytest

from metarun.cli.export import main, parse
from metarun.errors import UserError


def test_the_words_are_keys_with_values():
    assert parse(["checkpoint=my run", "out='a b'", "trust=[mine,yours]"]) == {
        "checkpoint": "my run",
        "out": "a b",
        "trust": "[mine,yours]",
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "metarun export needs checkpoint="),
        (["checkpoint=a"], "metarun export needs out="),
        (["checkpoint=a", "checkpoint=b"], "checkpoint= may occur once"),
        (["checkpoint=[a,b]", "out=c"], r"checkpoint=\[a,b\] must be one path"),
        (["checkpoint=", "out=c"], "checkpoint= has no value"),
        (["chekpoint=a"], "metarun export knows no 'chekpoint=a'. Did you mean 'checkpoint'"),
        (["-m"], "metarun export knows no '-m'"),
    ],
    ids=str,
)
def test_another_line_is_one_sentence_with_the_usage(words: list[str], sentence: str):
    with pytest.raises(UserError, match=f"{sentence}(.|\n)*usage: metarun export checkpoint=RUN out=DIR"):
        main(words)


def test_the_result_and_what_the_network_normalises_by_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked: list[object] = []
    about = {"backbone": {"mode": "train"}, "normalisation": {"statistics": "the statistics of the batch"}}
    monkeypatch.setattr("metarun.commands.export.export", lambda *arguments: asked.append(arguments) or about)
    assert main(["checkpoint=run", "out=there", "trust=mine, yours"]) == 0
    assert asked == [("run", "there", ["mine", "yours"])]
    out = capsys.readouterr().out
    assert "wrote backbone.safetensors and model.json to there" in out
    assert "normalises by the statistics of the batch." in out
    assert main(["--help"]) == 0
    assert "usage: metarun export" in capsys.readouterr().out
