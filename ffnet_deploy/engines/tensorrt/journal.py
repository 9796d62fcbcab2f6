"""What happened while an engine was loaded and run: TensorRT's complaints, and notes on the results."""

import threading
from contextlib import ExitStack
from typing import Any

from ffnet_deploy.engines.tensorrt.flavour import Message, listen

_MESSAGES = 50


class Journal:
    """Keeps what TensorRT logs from now until `close`, the last lines of it, and notes for the user."""

    def __init__(self, trt: Any) -> None:
        self._listening = ExitStack()
        self._messages: list[Message] = self._listening.enter_context(listen(trt))
        self._lock = threading.Lock()
        self.notes: tuple[str, ...] = ()
        """What is to be known of the results, each once."""

    def add_note(self, note: str) -> None:
        """Add to `notes`."""
        with self._lock:
            if note not in self.notes:
                self.notes = (*self.notes, note)

    def explain(self) -> str:
        """What TensorRT complained of last."""
        errors = [message.text for message in self._messages if message.is_error]
        return errors[-1] if errors else "it gave no reason"

    def trim(self) -> None:
        """Forget all but the last lines."""
        del self._messages[:-_MESSAGES]

    def close(self) -> None:
        """Stop listening; calling it twice is harmless."""
        self._listening.close()
