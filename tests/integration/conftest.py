"""Makes the fixtures known to pytest."""
from fixtures import gpt2_start, minilm_start, tiny_bert  # noqa: F401
