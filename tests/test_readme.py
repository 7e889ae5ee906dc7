"""The README and docs: their commands work, their links lead somewhere, their tables name what there is."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image
from small import composed

from metarun import draws
from metarun.functional import map_tasks
from metarun.layers.norm import MODES
from metarun.testing import double, first_episodes
from metarun.wiring.build import build

if TYPE_CHECKING:
    from command_line import Answer, CommandLine

pytest_plugins = ("command_line",)

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
}

TINY = {
    "train": ["steps=2", "tasks_per_step=2", "eval_every=0", "eval_episodes=2", "logger=jsonl"],
    "resume": ["steps=3"],
    "eval": ["episodes=2"],
    "list": [],
}
"""What makes a command quick, by its kind."""


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    """Return the words after `metarun` of each line that begins so, with the values of the block's own variables in their places."""
    text = block.replace("\\\n", " ")
    for name, value in reversed(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, flags=re.MULTILINE)):
        text = text.replace(f"${name}", value)
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["metarun"]]


def single(words: list[str]) -> list[str]:
    """Return the first job of a sweep, and any other command as it is. Of a search it takes the lower end of each interval."""
    if "-m" not in words:
        return words
    fixed = [re.sub(r"=.*interval\(([^,]+),.*", r"=\1", word) for word in words if word != "-m" and not word.startswith("hydra")]
    return [re.sub(r"=([^\[,]+),.*", r"=\1", word) for word in fixed]


ALL = [words for text in PAGES.values() for block in fences(text, "bash") for words in commands(block)]
COMPOSED = [
    single(words)
    for words in ALL
    if words[0] in ("train", "eval", "predict") and not any(word.startswith("resume=") and word != "resume=auto" for word in words)
]
RUN_BLOCKS = [commands(block) for block in re.findall(r"<!-- run -->\n```bash\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)]
EXAMPLES = dict(
    found
    for page in ("README.md", "docs/extending.md", "docs/pretrained.md")
    for found in re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)
)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Write the example files of the README and of two pages into the working folder."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def belongings(conf: Path) -> Path:
    """Add photographs of the reader's."""
    for number in range(40):
        kind = conf / "photos" / f"class{number:02}"
        kind.mkdir(parents=True)
        for shade in range(16):
            Image.new("RGB", (4, 4), (6 * number, 16 * shade, 0)).save(kind / f"{shade}.bmp")
    return conf


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"<!-- run -->\n```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("steps=200", "steps=2, eval_episodes=2").replace("episodes=100", "episodes=2"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] in ("['an O', 'an A']", "['an A', 'an A']", "['an O', 'an O']", "['an A', 'an O']")


def filled(words: list[str], run: str = "run") -> list[str]:
    """Put real names in the place of RUN, DIR and FILE.csv."""
    return [word.replace("RUN", run).replace("DIR", "photos").replace("FILE.csv", "table.csv") for word in words]


def tiny(words: list[str]) -> list[str]:
    kind = "resume" if any(word.startswith("resume=") for word in words) else words[0]
    narrow = [] if kind != "train" else ["backbone.width=4"] if "backbone=wide" in words else ["backbone.filters=4"]
    return [*words, *TINY[kind], *narrow]


def said(answer: Answer, what: str) -> str:
    """Return the path that was printed after these words."""
    found = re.search(rf"{what} (\S+)", answer.out)
    assert found is not None, answer
    return found[1]


@pytest.mark.parametrize("words", COMPOSED, ids=" ".join)
def test_every_command_composes(words: list[str], command_line: CommandLine, conf: Path) -> None:
    answer = command_line(*filled(words), "--cfg", "job")
    assert answer.code == 0, answer.err


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN_BLOCKS, ids=lambda block: block[0][1])
def test_the_commands_of_the_readme_run_one_after_the_other(
    block: list[list[str]], command_line: CommandLine, belongings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ""
    for words in block:
        with monkeypatch.context() as patch:
            if "task=folder" in words:  # the built-in letters stay in the cache that all tests share, these pictures need not
                patch.setenv("METARUN_CACHE", str(belongings / "cache"))
            answer = command_line(*tiny(filled(words, run)))
        assert answer.code == 0, f"metarun {' '.join(words)}: {answer.err}"
        if words[0] == "train" and not run:
            run = said(answer, "run folder")
        if words[0] == "eval":
            report = json.loads(Path(said(answer, "report:")).read_text(encoding="utf-8"))
            unexplained = [key for key in report if f"`{key}`" not in PAGES["docs/protocol.md"]]
            assert not unexplained, "docs/protocol.md should say what these mean"


def test_both_blocks_of_the_readme_are_run() -> None:
    assert [len(block) for block in RUN_BLOCKS] == [5, 3]


def test_the_readers_own_parts_are_listed_with_their_headers(command_line: CommandLine, conf: Path) -> None:
    listed = command_line("list", "--config-dir", "conf").out
    for name in ("ridge", "patterns", "wide"):
        assert re.search(rf"^  {name} +\w", listed, flags=re.MULTILINE), listed


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_with_its_title_and_then_says_something(page: str) -> None:
    assert re.match(r"# \w.*\n\n(.+\n)+\n", PAGES[page])


def headings(file: Path) -> set[str]:
    lines = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    """Links to a heading name it as GitHub and mkdocs do: lower case, hyphens for spaces, no punctuation."""
    missing = []
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (heading and heading not in headings(file)):
            missing.append(target)
    assert not missing


def test_the_table_of_folders_names_every_folder_and_no_other() -> None:
    """Of metarun/ the table has each folder too, but not the folders inside of these."""
    table = README.split("## What is where")[1].split("## ")[0]
    named = set(re.findall(r"^\| `([\w/]+)/` \|", table, flags=re.MULTILINE))
    packages = {file.parent.relative_to(ROOT).as_posix() for file in (ROOT / "metarun").glob("*/*.py")}
    assert named == packages | {"metarun", "configs", "scripts", "docs", "tests", "outputs"}


def test_the_readme_shows_at_most_twelve_results() -> None:
    table = README.split("## Results")[1].split("## ")[0]
    rows = re.findall(r"^\| (?!task|---).*", table, flags=re.MULTILINE)
    assert 0 < len(rows) <= 12
    assert all("±" in row for row in rows)


def test_the_readme_quotes_its_scores_from_the_page_of_results() -> None:
    table = README.split("## Results")[1].split("## ")[0]
    scores = re.findall(r"[\d.]+(?: %)? ± [\d.]+", table)
    assert len(scores) >= 12
    assert [score for score in scores if score not in PAGES["docs/results.md"]] == []


def test_every_experiment_with_a_score_has_a_row_among_the_results() -> None:
    table = PAGES["docs/results.md"].split("<!-- results -->")[1].split("<!-- /results -->")[0]
    headers = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "configs/experiment").glob("*.yaml")}
    experiments = {name for name, text in headers.items() if not re.search("Score: not (yet )?measured", text)} - {"smoke"}
    assert len(experiments) >= 6
    assert experiments <= set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))


def test_the_trace_of_an_episode_has_the_shapes_of_a_real_step() -> None:
    trace = PAGES["docs/architecture.md"].split("## One episode on its way")[1].split("## ")[0]
    parts = build(composed("algo=maml", "tasks_per_step=4"))
    params, state = parts.algorithm.init(draws.key(0, "init"))
    assert f"{len(params)} parameter tensors, {sum(value.numel() for value in params.values()):,} numbers" in trace
    batch, keys = first_episodes(parts.source, 4)
    for part, examples in zip(("support", "query"), batch, strict=True):
        for name, tensor in zip("xy", examples[:2], strict=True):
            assert re.search(rf"^\| `{part}\.{name}` .*{re.escape(str(tuple(tensor.shape)))} \|$", trace, flags=re.MULTILINE)
    step, (params, state) = torch.tensor(0), double((params, state))
    losses, aux = map_tasks(lambda episode, key: parts.algorithm.loss(params, state, episode, key, step), batch, keys)
    assert f"{tuple(params['head.weight'].shape)} for `head.weight`" in trace
    assert f"Losses become {tuple(losses.shape)}, and statistics {tuple(next(iter(aux.state.values())).shape)}" in trace


def test_the_table_of_modes_is_complete() -> None:
    table = PAGES["docs/normalisation.md"].split("## Measured")[0]
    assert sorted(re.findall(r"^\| `(\w+)` +\|", table, flags=re.MULTILINE)) == sorted([*MODES, "norm"])
