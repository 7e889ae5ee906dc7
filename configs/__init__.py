"""The shipped configs, one folder per group. A package so that Hydra finds them as pkg://metarun.configs."""
