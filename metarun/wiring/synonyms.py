"""What other programs call metarun's keys and options. `metarun.wiring.suggestions` looks words up here after a mistake.

Words are in lower case, with `_` for `-`. A key that the command does not have is left out of an answer.
"""

from __future__ import annotations

import re

_KEYS = {
    "checkpoint": "run model ckpt load weights model_path resume from folder",
    "steps": "epoch epochs num_epochs n_epochs max_epochs iterations num_iterations iters max_steps num_steps train_steps outer_steps",
    "tasks_per_step": "batch_size batch meta_batch meta_batch_size batchsize bs num_tasks n_tasks tasks",
    "optimizer.lr": "lr learning_rate meta_lr outer_lr rate learningrate",
    "algo.inner_lr": "lr learning_rate fast_lr alpha inner_rate update_lr step_size learningrate adaptation_lr",
    "algo.inner_steps": "num_inner_steps adaptation_steps num_adaptation_steps inner_updates update_steps n_inner inner_iterations",
    "algo.test_inner_steps": "test_steps eval_inner_steps test_adaptation_steps",
    "algo.first_order": "second_order fo fomaml",
    "task": "dataset data data_set dataset_name benchmark source",
    "task.ways": "way n_way n_ways num_ways nway ways k_way num_classes classes",
    "task.shots": "shot k_shot k_shots n_shot n_shots num_shots kshot nshot shots num_support support_size",
    "task.queries": "query n_query n_queries num_query num_queries nquery k_query query_shots queries query_size",
    "task.root": "root data_dir data_path data_root dataset_path data_folder",
    "task.path": "path data_path csv file csv_file",
    "algo": "algorithm method learner meta_learner",
    "backbone": "model network arch architecture encoder net embedding feature_extractor",
    "backbone.filters": "channels num_filters hidden n_filters hidden_channels hidden_size filters",
    "backbone.widths": "width hidden hidden_size hidden_sizes hidden_dim hidden_units layers units widths",
    "backbone.norm": "batch_norm batchnorm bn normalization normalisation normalize",
    "optimizer": "optim opt outer_optimizer meta_optimizer",
    "optimizer.schedule": "scheduler lr_scheduler lr_schedule schedule decay",
    "optimizer.warmup_steps": "warmup warm_up num_warmup_steps",
    "optimizer.options.weight_decay": "wd l2 weight_decay",
    "optimizer.clip_norm": "clip clip_grad grad_clip max_grad_norm gradient_clip gradient_clipping gradient_clip_val",
    "device": "accelerator cpu no_cuda",
    "device=cuda": "gpu gpus cuda use_gpu use_cuda",
    "device.name": "type kind gpu cuda index id",
    "device.threads": "num_workers workers n_workers threads num_threads n_jobs cpus cores jobs",
    "device.precision": "amp fp16 bf16 tf32 half mixed_precision precision dtype",
    "logger": "log logging tensorboard wandb tb use_wandb",
    "seed": "random_seed manual_seed rng seeds random_state",
    "eval_every": "eval_interval val_every val_interval validate_every validation_interval eval_freq test_every",
    "eval_episodes": "episodes val_episodes num_episodes eval_tasks n_episodes test_episodes num_eval_tasks",
    "episodes": "num_episodes n_episodes test_episodes eval_episodes num_tasks n_tasks tasks",
    "patience": "early_stopping early_stop stop_early",
    "save_every": "save_interval checkpoint_every save_freq checkpoint_interval",
    "log_every": "log_interval log_freq print_every log_steps",
    "init_from": "pretrained init checkpoint ckpt load load_from weights pretrained_path warm_start finetune_from",
    "resume": "checkpoint ckpt load restore resume_from continue",
    "hydra.run.dir": "out output output_dir out_dir log_dir logdir save_dir run_dir exp_dir outdir save_path name run_name exp_name",
    "experiment": "config preset cfg recipe",
    "inner_steps": "algo_inner_steps num_inner_steps adaptation_steps test_inner_steps test_steps",
    "split": "subset partition mode",
    "support": "train examples known labelled data support_dir",
    "query": "input inputs images image test files query_dir",
    "out": "output output_file save csv",
}
KEYS: dict[str, tuple[str, ...]] = {}
"""Word -> the keys that it may mean."""
for _target, _words in _KEYS.items():
    for _word in _words.split():
        KEYS[_word] = (*KEYS.get(_word, ()), _target)

_OPTIONS = {
    "algo=maml": "model_agnostic second_order_maml",
    "algo=mamlpp": "maml++ maml_plus_plus mamlplusplus",
    "algo=fomaml": "first_order first_order_maml fo_maml",
    "algo=protonet": "proto protonets prototypical prototypical_network prototypical_networks prototypes pn",
    "algo=matching": "matchingnet matching_net matching_network matching_networks",
    "algo=metasgd": "meta_sgd",
    "algo=pmaml": "platipus probabilistic_maml pplatipus",
    "algo=metaprior": "abml bayesian_maml bmaml amortized",
    "algo=r2d2": "ridge ridge_regression",
    "algo=cnp": "np neural_process conditional_neural_process neural_processes anp",
    "algo=tnp": "transformer transformer_neural_process np neural_process neural_processes tnp_d",
    "algo=mann": "ntm memory_augmented",
    "algo=finetune": "baseline fine_tune finetuning fine_tuning pretrain transfer",
    "algo=cosine_head": "baseline++ baseline_plus_plus cosine",
    "algo=simpleshot": "simple_shot nearest_centroid centroid ncm",
    "algo=nearest": "knn nearest_neighbour nearest_neighbor nn",
    "algo=scratch": "from_scratch random_init",
    "algo=gbml": "learned_optimizer meta_curvature lstm_meta_learner",
    "task=mini_imagenet": "imagenet mini miniimagenet",
    "task=tiered_imagenet": "imagenet tiered tieredimagenet",
    "task=cifar_fs": "cifar cifar100 cifar_100 cifarfs",
    "task=fc100": "cifar cifar100 cifar_100",
    "task=cub": "birds cub200 cub_200 cub_200_2011",
    "task=sinusoid": "sine sin sines sinusoids regression_1d",
    "task=folder": "images image_folder imagefolder photos pictures custom own",
    "task=table": "csv tabular tables",
    "task=ratings": "movielens recommendation ml_1m ml_100k recommender",
    "task=glyphs": "letters mnist characters fonts",
    "task=stream": "continual lifelong",
    "task=features": "embeddings embedding",
    "backbone=conv4": "cnn conv convnet conv_4 conv64 4conv simple_cnn",
    "backbone=mlp": "linear fc dense perceptron fully_connected",
    "backbone=resnet12": "resnet resnet_12 resnet18 resnet10",
    "backbone=identity": "none nothing",
    "device=cuda": "gpu cuda0 nvidia",
    "optimizer=sgd": "momentum gd",
    "optimizer=adamw": "adam_w",
    "logger=jsonl": "json none off csv file",
    "logger=tensorboard": "tb board",
    "algo/update=sgd": "gd gradient_descent",
    "algo/update=metasgd": "meta_sgd",
    "task/source=folder": "images image_folder photos",
}
OPTIONS: dict[tuple[str, str], tuple[str, ...]] = {}
"""(group, word) -> the options that the word may mean."""
for _choice, _words in _OPTIONS.items():
    for _word in _words.split():
        _group, _, _option = _choice.partition("=")
        OPTIONS[_group, _word] = (*OPTIONS.get((_group, _word), ()), _option)

TIMM = re.compile(r"(wide_?)?resne[tx]t?_?\d+|resnest|vit|deit|dino|clip|swin|convnext|efficientnet|mobilenet|densenet|regnet|vgg|beit|eva")
"""How the names of networks begin that `backbone=timm` may have."""
TORCH = {"rmsprop": ("sgd", "RMSprop"), "nadam": ("adam", "NAdam"), "radam": ("adam", "RAdam"), "adamax": ("adam", "Adamax")}
"""Optimizers of torch: the option whose further arguments they share, and their name there."""


def plain(word: str) -> str:
    """Return a word in the form of the tables."""
    return word.strip().lower().replace("-", "_")
