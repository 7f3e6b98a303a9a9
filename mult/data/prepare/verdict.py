"""What a test of a dataset's labels ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """What one test of the labels found.

    subject: what was tested. state: "wrong" names the cause in `text`; "not compared" is for labels that have one origin, or of
    which there is nothing to hold them against; "cannot tell" is for too little evidence. A wrong one prevents training, unless
    it does not block.
    """

    subject: str
    state: Literal["right", "wrong", "not compared", "cannot tell"]
    text: str
    blocks: bool = True

    @property
    def prevents_training(self) -> bool:
        return self.state == "wrong" and self.blocks
