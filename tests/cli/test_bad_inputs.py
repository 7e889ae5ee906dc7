"""What a user gets wrong: one sentence with the remedy, exit code 2, no traceback, and no folder left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from command_line import Answer, CommandLine

pytest_plugins = ("command_line",)

SINUSOID = "train task=sinusoid backbone=mlp logger=jsonl steps=2 tasks_per_step=2 eval_episodes=2 algo.inner_steps=1"
PHOTOS = (
    "train task=folder task.root=photos task.image_size=8 task.ways=2 task.queries=2 task.train_queries=2 "
    "backbone=mlp logger=jsonl steps=1 eval_episodes=1"
)
TABLE = "train task=table task.path=table.csv task.task_column=city task.target=price backbone=mlp logger=jsonl steps=1 eval_episodes=1"


@pytest.fixture
def belongings(tmp_path: Path) -> Path:
    """Fill the working folder with what the rows below name."""
    for folder, broken in (("photos", None), ("damaged", b"no picture")):
        for name in [f"class{i:02}" for i in range(15)]:
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{folder}/{name}/{number}.png")
        if broken is not None:
            (tmp_path / folder / "class07/2.png").write_bytes(broken)
    (tmp_path / "empty").mkdir()
    draw = random.Random(0)
    rows = "".join(f"city{i % 10},{draw.random()},{draw.random()}\n" for i in range(300))
    (tmp_path / "table.csv").write_text("city,size,price\n" + rows)
    (tmp_path / "garbage.pt").write_bytes(b"PK no checkpoint")
    (tmp_path / "norun").mkdir()
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / "conf/root.yaml").write_text("a: 1\n")
    (tmp_path / "conf/algo/broken.yaml").write_text("_target_: [unclosed\n")
    (tmp_path / "conf/algo/absent.yaml").write_text("_target_: no_such_module.Thing\n")
    (tmp_path / "conf/algo/pointing.yaml").write_text("_target_: x.Y\nlr: ${algo.nothing}\n")
    return tmp_path


# Each row: the words, then what the sentence must hold: the nearest valid name, or the key and the numbers.
ROWS = [
    # names
    ("train algo=mamll", "algo has no option 'mamll'. Did you mean 'maml'?"),
    ("train logger=[tensorboard,wandbb]", "logger has no option 'wandbb'. Did you mean 'wandb'?"),
    ("train logger=wandb logger.wandb.mode=ofline", "Did you mean 'offline'?"),
    ("train patience=3 eval_every=0", "patience=3 counts validations"),
    ("train task=few_shot", "task has no option 'few_shot'."),
    ("train experiment=smoek", "experiment has no option 'smoek'."),
    ("train task.shotss=3", "There is no key 'task.shotss'. Did you mean 'task.shots'?"),
    ("train tsak.shots=3", "Did you mean 'task.shots'?"),
    ("train shots=3", "Did you mean 'task.shots'?"),
    ("train step=3", "There is no key 'step'. Did you mean 'steps'?"),
    ("train alog=maml", "Did you mean 'algo'?"),
    ("train seed.x=3", "There is no key 'seed.x'."),
    ("train algo.lr=3", "There is no key 'algo.lr'. Did you mean 'algo.inner_lr' or 'optimizer.lr'?"),
    ("train algo.fce=true", "There is no key 'algo.fce'. It belongs to algo=matching."),
    ("train algo=Prototypical", "algo has no option 'Prototypical'. Did you mean 'protonet'?"),
    ("train --lr 3", "a key has no dashes: write optimizer.lr=VALUE"),
    ("eval checkpoint=x n_way=5", "There is no key 'n_way'. Did you mean 'task.ways'?"),
    ("train -h algo=maml,anil", "--help explains one choice at a time"),
    ("list algo mamll", "algo has no option 'mamll'. Did you mean 'maml'?"),
    ("train task=glyphs task.sources=[line]", "names the sources of a mixture, and this task is none; give task=mixture"),
    ("train hydra.run.dri=x", "Did you mean 'hydra.run.dir'?"),
    ("train --multirn", "there is no flag '--multirn'. Did you mean '--multirun'?"),
    ("train hydra/launcher=slurm", "hydra/launcher has no option 'slurm'."),
    ("eval checkpoint=x episode=5", "Did you mean 'episodes'?"),
    ("eval checkpoint=x task=sinusoid task.shotss=5", "Did you mean 'task.shots'?"),
    ("eval checkpoint=x experiment=smoke", "experiment"),
    # words
    ("train maml", "'maml' is not of the form key=value."),
    ("train seed=1,2", "add -m to run each of them"),
    ("train task.ways=((", "'task.ways=((' cannot be read"),
    ("train -m seed=0 resume=photos", "resume=auto"),
    ("train --cfg job -m", "Only one of"),
    # files
    ("train --config-dir nowhere", "--config-dir:"),
    ("train --config-dir conf algo=broken", "not YAML"),
    ("train --config-dir conf algo=pointing", "algo.lr refers to 'algo.nothing', which does not exist."),
    ("train --config-dir conf algo=absent task=sinusoid backbone=mlp", "no_such_module"),
    ("train hydra.run.dir=garbage.pt/run", "garbage.pt/run"),
    ("train resume=nowhere", "resume=nowhere: there is no such run folder."),
    ("train resume=norun", "resume=norun: it holds no checkpoints/"),
    ("eval", "give one with checkpoint=VALUE"),
    ("eval checkpoint=nowhere", "nowhere"),
    ("eval checkpoint=garbage.pt", "garbage.pt"),
    ("predict", "give one with checkpoint=VALUE"),
    ("predict checkpoint=x query=z", "give one with support=VALUE"),
    ("predict checkpoint=x support=y query=z task.shots=5", "There is no key 'task"),
    ("predict checkpoint=x support=y query=z abstain=1", "abstain=1"),
    ("predict checkpoint=x support=y query=z abstain=yes", "abstain"),
    ("predict checkpoint=x support=y query=z out=p.txt", "out=p.txt must end in .csv"),
    ("predict checkpoint=x support=y query=z out=nowhere/p.csv", "there is no folder nowhere"),
    ("predict checkpoint=nowhere support=y query=z", "nowhere"),
    # numbers
    (f"{SINUSOID} steps=-1", "steps=-1"),
    (f"{SINUSOID} steps=many", "many"),
    (f"{SINUSOID} tasks_per_step=0", "tasks_per_step=0"),
    (f"{SINUSOID} eval_episodes=0", "eval_episodes=0"),
    (f"{SINUSOID} eval_every=-2", "eval_every=-2"),
    (f"{SINUSOID} seed=x", "seed"),
    (f"{SINUSOID} seed=-1", "seed=-1 should be a whole number from 0 to"),
    (f"{SINUSOID} task.shots=-1", "-1"),
    (f"{SINUSOID} algo.inner_steps=-1", "inner_steps"),
    (f"{SINUSOID} algo.inner_lr=fast", "inner_lr"),
    (f"{SINUSOID} device.name=gpu", "gpu"),
    (f"{SINUSOID} device.threads=0", "device.threads=0"),
    (f"{SINUSOID} backbone.widths=[0]", "widths"),
    (f"{SINUSOID} backbone.norm=bacth", "Did you mean 'batch'?"),
    (f"{SINUSOID} optimizer.name=Adma", "Did you mean 'Adam"),
    (f"{SINUSOID} optimizer.schedule=liner", "Did you mean 'linear'?"),
    (f"{SINUSOID} algo=protonet algo.inner_steps=null", "inner_steps"),
    ("train task=sinusoid backbone=mlp algo=protonet logger=jsonl", "classification"),
    ("train task=sinusoid backbone=conv4 logger=jsonl", "conv4"),
    # data
    (f"{PHOTOS} task.ways=50", "50"),
    (f"{PHOTOS} task.shots=3", "3 shots + 2 queries need 5"),
    (f"{PHOTOS} task.shots=-1", "-1"),
    (f"{PHOTOS} task.ways=two", "two"),
    (f"{PHOTOS} task.root=nowhere", "nowhere"),
    (f"{PHOTOS} task.root=empty", "empty"),
    (f"{PHOTOS} task.root=damaged", "class07/2.png"),
    ("train task=folder", "task.root"),
    ("train task=omniglot task.root=empty", "empty"),
    ("train task=table", "give one with task.path=VALUE"),
    ("train task=glyphs +task.colour=3", "task.colour is not an argument of metarun.tasks.glyphs.glyphs"),
    (f"{TABLE} task.path=nowhere.csv", "nowhere.csv"),
    (f"{TABLE} task.target=prize", "Did you mean 'price'?"),
    (f"{TABLE} task.task_column=towns", "towns"),
    (f"{TABLE} task.shots=4000", "4000"),
]


def assert_refused(answer: Answer, said: str) -> None:
    assert (answer.code, "Traceback" in answer.err) == (2, False), answer
    sentences = [line for line in answer.err.splitlines() if line.startswith("metarun: ")]
    assert len(sentences) == 1, answer
    assert said in answer.err  # one sentence, or a line for each of several complaints


@pytest.mark.parametrize(("words", "said"), ROWS, ids=[words for words, _ in ROWS])
def test_a_bad_input_is_refused_with_a_sentence(command_line: CommandLine, belongings: Path, words: str, said: str) -> None:
    assert_refused(command_line(*words.split(" ")), said)
    assert not Path("outputs").exists()


@pytest.mark.parametrize(("command", "said"), [("train", "the config has no task"), ("eval", "the config has no key 'checkpoint'")])
def test_a_root_config_without_the_keys_of_its_command_is_refused(
    command_line: CommandLine, belongings: Path, command: str, said: str
) -> None:
    assert_refused(command_line(command, "--config-dir", "conf", "--config-name", "root"), said)


def test_an_outputs_folder_that_cannot_be_made_is_refused(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    assert_refused(command_line("train"), "The run folder outputs/glyphs-maml/")


RUN_ROWS = [
    ("eval checkpoint=run split=tset", "Did you mean 'test'?"),
    ("eval checkpoint=run episodes=0", "episodes=0"),
    ("eval checkpoint=run seed=-1", "seed=-1"),
    ("eval checkpoint=run task.shotss=5", "Did you mean 'task.shots'?"),
    ("eval checkpoint=run task.shots=-5", "-5"),
    ("eval checkpoint=run inner_steps=-1", "inner_steps"),
    ("eval checkpoint=run by_step=some", "by_step='some' should be one of all, thin, last"),
    ("eval checkpoint=run norm=bacth", "Did you mean 'batch'?"),
    ("eval checkpoint=run save=nowhere/scores.csv", "nowhere"),
    ("eval checkpoint=run backbone.widths=[7]", "shape"),
    ("eval checkpoint=run/checkpoints/cut.pt", "cut.pt"),
    ("train resume=run", "steps"),
    ("train resume=run steps=5 algo.inner_steps=3", "algo.inner_steps=3 differs"),
    ("train resume=run steps=5 algo=reptile", "algo=reptile differs"),
    ("train resume=run steps=5 algo.inner_stesp=3", "Did you mean 'algo.inner_steps'?"),
    ("train resume=run steps=-5", "steps=-5"),
    ("train resume=run steps=5 logger.tensorbord=true", "there is no key 'logger.tensorbord'"),
    ("train resume=run steps=5 patience=0", "patience=0 should be a whole number from 1"),
    ("train resume=run steps=5 patience=2 eval_every=0", "patience=2 counts validations"),
    ("train resume=run/checkpoints/cut.pt steps=5", "cut.pt"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, keep_logging: Callable[[], AbstractContextManager[None]]) -> dict[str, bytes]:
    """The files of a finished run, by their path in the run folder."""
    from metarun.cli import main as cli

    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch, keep_logging():
        patch.chdir(folder.parent)
        assert cli.main([*SINUSOID.split(" "), "hydra.run.dir=run"]) == 0
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {**files, "checkpoints/cut.pt": files["checkpoints/last.pt"][:500]}


@pytest.mark.parametrize(("words", "said"), RUN_ROWS, ids=[words for words, _ in RUN_ROWS])
def test_a_bad_input_about_a_run_is_refused_and_changes_nothing_of_it(
    command_line: CommandLine, trained: dict[str, bytes], words: str, said: str
) -> None:
    for name, content in trained.items():
        Path("run", name).parent.mkdir(parents=True, exist_ok=True)
        Path("run", name).write_bytes(content)
    assert_refused(command_line(*words.split(" ")), said)
    assert not Path("outputs").exists()
    assert {name: Path("run", name).read_bytes() for name in trained} == trained
