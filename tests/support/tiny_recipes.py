"""Small recipes of every other kind, to be filled in with the places of their data."""

PROBE = """\
kind = "probe"
title = "tiny probe"
[data]
name = "{data}"
validation = 0.2
[augment]
pad = 2
[backbone]
file = "backbone.keras"
[[probe]]
head = "linear"
baselines = ["random"]
steps = 3
"""

STUDY = """\
kind = "study"
title = "tiny study"
paper = "Table 1"

[scales.full]
note = "as large as it gets"
seeds = [0, 1]
recipes = { pretrain = "tiny.toml", probe = "probe.toml" }

[scales.cpu]
note = "two steps"
recipes = { pretrain = "tiny.toml", probe = "probe.toml" }

[[run]]
name = "rotnet"
recipe = "pretrain"
set = { train.steps = 2 }

[[run]]
name = "probe"
recipe = "probe"
of = "rotnet"

[[table]]
title = "Object accuracy, %"
entry = [
    { row = "RotNet", run = "probe", probe = 0, paper = { conv1 = 85.07 } },
    { row = "random", run = "probe", probe = 0, weights = "random" },
    { row = "rotation", run = "rotnet", column = "conv2", paper = 91.73 },
]

[[table]]
title = "By blocks"
x = "epoch"
entry = [{ row = "rotation", run = "rotnet", by = "epoch" }]

[[finding]]
claim = "Trained features beat random ones"
higher = ["RotNet", "conv2"]
lower = ["random", "conv2"]
"""

TRANSFERS = """\
kind = "study"
title = "tiny transfers"
paper = "Table 7"

[scales.full]
note = "four steps"
recipes = { pretrain = "tiny.toml", segmentation = "segmentation.toml" }

[[run]]
name = "rotnet"
recipe = "pretrain"
set = { train.steps = 2, data.size = 48, probe = [] }

[[run]]
name = "pretrained"
recipe = "segmentation"
of = "rotnet"
set = { train.steps = 4 }

[[run]]
name = "random"
recipe = "segmentation"
like = "rotnet"
set = { train.steps = 4 }

[[table]]
title = "Mean IoU, %"
entry = [
    { row = "RotNet", run = "pretrained", column = "segmentation", paper = 39.1 },
    { row = "random", run = "random", column = "segmentation" },
]
"""

SEGMENTATION = """\
kind = "transfer"
task = "segmentation"
title = "tiny transfer"
tap = "conv1"

[data]
name = "{kit}"
classes = {classes}
splits = {{ train = "train+val", validation = "val", test = "train+val" }}

[canvas]
side = 48

[backbone]
name = "compact"
blocks = 2
width = 0.5

[optimizer]
learning_rate = 0.2

[schedule]
name = "cosine"

[train]
steps = 80
batch = 10
precision = "float32"
"""
