"""Opening model files: safe by default, one network or one clear refusal."""

from vfconvert.loading.model import LoadedModel as LoadedModel
from vfconvert.loading.model import load_model as load_model
from vfconvert.loading.model import model_files as model_files
