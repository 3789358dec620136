"""Asks the Hub once whether it has a model: its library would try for half a minute where the network is away."""

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME, is_offline_mode
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)


SECONDS_TO_WAIT = 10


def check_on_hub(model_id: str) -> None:
    """Raise a `FileNotFoundError` where a model is neither in the Hub's cache on this machine nor on the Hub, or the Hub
    cannot be reached.

    Args:
        model_id (`str`): an id such as `someone/their-coder`; what cannot be one is left to the library, which says so.
    """
    try:
        if is_offline_mode() or isinstance(try_to_load_from_cache(model_id, CONFIG_NAME), str):
            return
        HfApi(library_name="modeling-icd").model_info(model_id, timeout=SECONDS_TO_WAIT)
    except (HFValidationError, GatedRepoError):
        return
    except RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{model_id} is not a folder, and the Hub has no such model for you: is the name right? For a private model, run "
            "`hf auth login` first."
        ) from None
    except HfHubHTTPError:  # of a Hub in trouble: loading says more
        return
    except (HTTPError, OSError):
        raise FileNotFoundError(
            f"{model_id} is not a folder, and the Hub cannot be reached to look for a model of that name: is the path right? If "
            "it is a model of the Hub, check the network."
        ) from None
