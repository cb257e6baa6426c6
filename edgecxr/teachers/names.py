"""Names that the commands offer, or look for, before PyTorch is loaded."""

__all__ = ["COMPOSITES", "HISTORY", "METHODS", "RECIPES", "RECORD"]

METHODS = ("cam", "gradcam", "occlusion", "lrp")  # of explaining
COMPOSITES = ("epsilon-plus-flat", "epsilon-plus", "epsilon-gamma-box")  # of lrp
RECORD = "teacher.json"  # in the folder of a trained teacher
HISTORY = "history.json"  # beside it: what training reached, epoch by epoch
RECIPES = (".yaml", ".yml")  # how the names of recipes end
