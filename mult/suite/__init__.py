"""One YAML of overrides of one config -> many runs, trained and evaluated one after the other, and their tables.

    base: ../rooms6.yaml            # relative to the suite's file
    seeds: [0, 1, 2]
    members: {shared: [], independent: [model.attention=independent]}       # name -> overrides; the first is the reference
    evaluate: {test: {split: test}, blurred: {split: test, blur: "1,2,4"}}  # name -> options of eval.py

Optional: `baselines`, the members that are single-task runs: the others get delta_m against those of the same seed;
`published`, a YAML of others' rows to stand beside (configs/published/), relative to the suite's file; an evaluation's `config`
(a YAML of a data section, relative to the suite's file), `corrupt`, and `members`, the only ones it is for. `{name}` in an
override is the folder of that member's run of the same seed, for run.init.
"""

from mult.suite.file import read_suite
from mult.suite.run import run_suite

__all__ = ["read_suite", "run_suite"]
