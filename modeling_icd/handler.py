"""What an Inference Endpoint runs: `pipeline("icd-coding")` behind the request that the service passes on."""

from typing import Any

from transformers import pipeline


class EndpointHandler:
    """Answers requests with codes.

    Args:
        path (`str`): The folder of this repository.
    """

    def __init__(self, path: str = "."):
        self.coder = pipeline("icd-coding", model=path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> list:
        """Codes the notes of a request.

        Args:
            data (`dict`):
                `inputs`, a note or a list of notes, and, if wanted, `parameters`: `threshold`, `top_k`, `num_spans`.

        Returns:
            For a note its codes, `{"code", "description", "score", "decision", "evidence"}`; for a list of notes a list of these.

        Raises:
            ValueError: where `inputs` hold no note, or a parameter is not one of these.
        """
        notes = data.get("inputs")
        if not isinstance(notes, str | list) or not notes:
            raise ValueError('A request needs "inputs": a note, or a list of notes.')
        return self.coder(notes, **(data.get("parameters") or {}))
