"""A stop that was asked for is never lost, wherever the exception of the signal handler ends."""

import signal
from contextlib import suppress

import pytest

from ffnet_deploy.core import stopping

BOTH = pytest.mark.parametrize(
    ("number", "error", "code"),
    [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, stopping.Terminated, 143)],
)


@BOTH
def test_a_swallowed_stop_is_raised_again(number: signal.Signals, error: type[BaseException], code: int) -> None:
    with stopping.listening():
        stopping.check()
        with suppress(BaseException):  # as a callback of another package does
            signal.raise_signal(number)
        assert stopping.requested() is number and stopping.exit_code(number) == code
        with pytest.raises(error) as raised:
            stopping.check()
        assert raised.type is error


@BOTH
def test_steps_that_belong_together_are_not_torn_apart(
    number: signal.Signals, error: type[BaseException], code: int
) -> None:
    steps = []
    with stopping.listening(), pytest.raises(error):
        with stopping.deferred():
            with stopping.deferred():
                signal.raise_signal(number)
                steps.append("first")
            steps.append("second")
        steps.append("after")
    assert steps == ["first", "second"]


def test_a_new_command_starts_without_a_mark_and_gives_the_handlers_back() -> None:
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stopping.listening(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    stopping.check()  # the mark goes with the command
    with stopping.listening():
        assert stopping.requested() is None
        stopping.check()


@BOTH
def test_a_signal_while_the_handlers_go_back_is_told_and_they_go_back(
    number: signal.Signals, error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, restore = [signal.getsignal(number) for number in stopping.SIGNALS], signal.signal

    def late(which: int, handler: object) -> object:
        if handler in before and stopping.requested() is None:
            signal.raise_signal(number)
        return restore(which, handler)  # type: ignore[arg-type]

    with stopping.listening():
        monkeypatch.setattr(signal, "signal", late)
    assert stopping.requested() is number
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


def test_an_exception_of_the_block_is_not_hidden_by_the_deferral() -> None:
    with stopping.listening(), pytest.raises(ValueError, match="own"), stopping.deferred():
        raise ValueError("own")


def test_what_is_left_to_write_is_written_after_a_stop_was_heeded() -> None:
    with stopping.listening():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        stopping.heed()
        stopping.check()
        assert stopping.requested() is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)  # insists
