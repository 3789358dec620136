"""The handler of a Hugging Face Inference Endpoint: answers requests by `pipeline("icd-coding")`."""

from typing import Any

from transformers import pipeline


FIELDS = ("inputs", "parameters")
PARAMETERS = ("threshold", "top_k", "num_spans", "batch_size")


class EndpointHandler:
    """Answers the requests of an Inference Endpoint with codes.

    Args:
        path (`str`): The folder of this repository.
    """

    max_bytes = 400_000
    """Text (UTF-8) that a request may hold in all its notes: about 40 discharge summaries. No tokenizer makes more than one
    token of a byte, so this bounds the work for any text. An endpoint with more memory may raise it here."""

    def __init__(self, path: str = "."):
        self.coder = pipeline("icd-coding", model=str(path), trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> list:
        """Codes the notes of a request.

        Args:
            data (`dict`):
                `inputs`, a note or a list of notes, each a string or `{"text": string}`; and, if wanted, `parameters`:
                `threshold`, `top_k`, `num_spans`, `batch_size`.

        Returns:
            For a note its codes, `{"code", "description", "score", "decision", "evidence"}`; for a list of notes a list of these.
            A blank note has none.

        Raises:
            ValueError: where the request is not of this form, or longer than the limit. The service answers with status
                400 and `{"error": message}`; the message holds nothing of a note.
        """
        if not isinstance(data, dict) or not isinstance(data.get("inputs"), str | dict | list):
            raise ValueError('A request needs "inputs": a note (a string), or a list of notes.')
        parameters = {} if data.get("parameters") is None else data["parameters"]
        if not isinstance(parameters, dict):
            raise ValueError(f'"parameters" must be an object with any of {", ".join(PARAMETERS)}.')
        for what, given, known in (("A request", data, FIELDS), ('"parameters"', parameters, PARAMETERS)):
            if unknown := sorted(map(str, set(given) - set(known))):
                raise ValueError(f"{what} may hold {', '.join(known)}; {', '.join(unknown)} is none of these.")
        notes = data["inputs"]
        size = sum(map(_num_bytes, notes if isinstance(notes, list) else [notes]))
        if size > self.max_bytes:
            raise ValueError(
                f"The notes of this request hold {size:,} bytes of text, and at most {self.max_bytes:,} are coded at "
                "once: send fewer notes, or shorter ones."
            )
        return self.coder(notes, **parameters)


def _num_bytes(note: Any) -> int:
    """Bytes of a note's text; 0 for anything that is not a note, which the pipeline then refuses."""
    text = note.get("text") if isinstance(note, dict) else note
    return len(text.encode("utf-8", errors="replace")) if isinstance(text, str) else 0
