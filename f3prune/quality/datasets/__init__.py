"""Real videos with prompts: UCF-101, and folders of captioned videos such as MSR-VTT."""

from f3prune.quality.datasets._captions import captions
from f3prune.quality.datasets._decode import RealVideo, decode
from f3prune.quality.datasets._ucf101 import prompt_of_class, ucf101

__all__ = ["RealVideo", "captions", "decode", "prompt_of_class", "ucf101"]
