"""The configuration: what can be set (schema) and how files become settings (load)."""

from detector.config.load import dump_config, load_config, parse_config
from detector.config.schema import Config

__all__ = ["Config", "dump_config", "load_config", "parse_config"]
