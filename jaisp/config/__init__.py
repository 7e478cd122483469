"""The config: one YAML file, checked key by key before anything runs."""

from jaisp.config.hashes import batch_hash, group_hash, stage_hash, stage_version
from jaisp.config.load import dump_config, load_config, parse_config
from jaisp.config.root import Config

__all__ = [
    "Config",
    "batch_hash",
    "dump_config",
    "group_hash",
    "load_config",
    "parse_config",
    "stage_hash",
    "stage_version",
]
